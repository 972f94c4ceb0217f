"""AppendMany over gRPC: items under their own tokens, and what their bodies can hold."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
import zstandard
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.ingest.v1 import quarantine_pb2, sources_pb2
from counterfoil.ingest.v1.append_pb2 import AppendItem, AppendManyRequest, AppendResult
from counterfoil_chassis.errors import Code
from counterfoil_chassis.status import failure_of
from counterfoil_ingest import blocks
from counterfoil_ingest.append import Appender
from counterfoil_ingest.errors import LogBusyError
from counterfoil_ingest.registry import Compiled, Contracts, validator_of
from counterfoil_ingest.servicers import append as servicer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.ingest.ingest_records import EVENTS_SCHEMA
from tests.ingest.ingest_service import READ, IngestService, ingest_in

pytestmark = pytest.mark.both_engines("contracts", "ingest")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine nobody is late by accident; who is to be late says so."""
    monkeypatch.setattr(servicer, "PATIENCE_SECONDS", 60.0)


@pytest.fixture
async def source_id(ingest: IngestService) -> str:
    """A source whose mappings fit nothing here: its events go to `unplanned`, which needs no contract."""
    request = sources_pb2.CreateSourceRequest(
        display_name="Shop", mappings=[sources_pb2.SourceMapping(type="track", event="Planned", dataset="events")]
    )
    made = await ingest.sources.CreateSource(request, **ingest.called())
    return str(made.source.source_id)


def events(*ids: str, event: str = "Seen") -> bytes:
    return orjson.dumps({"batch": [{"type": "track", "event": event, "messageId": each} for each in ids]})


def outcomes(result: AppendResult) -> list[str]:
    assert result.code == 0, result
    return [Verdict.Outcome.Name(each.outcome) for each in result.verdicts]


def counts(result: AppendResult) -> tuple[int, int, int]:
    """Return how many were accepted, duplicates and quarantined; events have no verdict each."""
    assert (result.code, len(result.verdicts)) == (0, 0), result
    return result.accepted, result.duplicates, result.quarantined


async def test_events_are_counted_by_outcome(ingest: IngestService, source_id: str) -> None:
    body = gzip.compress(events("a", "b", "a"))
    (result,) = await ingest.append_many(ingest.item(body, source_id=source_id))
    assert counts(result) == (2, 1, 0)
    (again,) = await ingest.append_many(ingest.item(body, source_id=source_id))
    assert counts(again) == (0, 3, 0)


async def test_a_source_tells_what_has_arrived(ingest: IngestService, source_id: str) -> None:
    async def source() -> Any:
        return await ingest.sources.GetSource(sources_pb2.GetSourceRequest(source_id=source_id), **ingest.called())

    assert not (await source()).HasField("first_event_at")
    for second, body in ((20, events("a", "b")), (10, events("b", "c")), (30, events("c")), (40, b'{"batch":["no"]}')):
        await ingest.append_many(ingest.item(body, source_id=source_id, received_at=Timestamp(seconds=second)))
    found = await source()
    listed = await ingest.sources.ListSources(sources_pb2.ListSourcesRequest(), **ingest.called())
    assert (found.events, found.first_event_at.seconds, found.last_event_at.seconds) == (3, 10, 40)
    assert found in listed.sources


async def test_an_item_that_comes_again_is_known_even_by_events_that_have_no_id(
    ingest: IngestService, source_id: str
) -> None:
    body = orjson.dumps({"batch": [{"type": "track", "event": "Seen"}, {"type": "track", "event": "Seen"}]})
    item = ingest.item(body, source_id=source_id, request_id="first-1")
    (first,) = await ingest.append_many(item)
    (again,) = await ingest.append_many(item)
    (another,) = await ingest.append_many(ingest.item(body, source_id=source_id, request_id="first-2"))
    assert [counts(each) for each in (first, again, another)] == [(2, 0, 0), (0, 2, 0), (2, 0, 0)]


async def test_an_item_fails_alone(ingest: IngestService, source_id: str) -> None:
    good = ingest.item(events("a"), source_id=source_id)
    cases = {
        "TOKEN_INVALID": AppendItem(token="nonsense", protocol="segment", body=b"{}"),
        "BAD_JSON": ingest.item(b"hello", source_id=source_id),
        "BAD_GZIP": ingest.item(b"\x1f\x8b...", source_id=source_id),
        "BODY_TOO_LARGE": ingest.item(gzip.compress(b" " * (21 << 20)), source_id=source_id),
        "TOO_MANY_RECORDS": ingest.item(orjson.dumps({"batch": [{}] * 5001}), source_id=source_id),
        "PROTOCOL_UNKNOWN": ingest.item(b"{}", protocol="nonsense"),
        "DATASET_INVALID": ingest.item(b"{}", protocol="records", dataset="No Such"),
        "SCOPE_MISSING": AppendItem(token=ingest.token(scopes=(READ,)), protocol="segment", body=b"{}"),
        "SOURCE_NOT_FOUND": ingest.item(events("x"), source_id="another"),
        "DEADLINE_EXCEEDED": ingest.item(events("x"), source_id=source_id, timeout=Duration()),
    }
    results = await ingest.append_many(good, *cases.values(), good)
    assert {counts(results[0]), counts(results[-1])} == {(1, 0, 0), (0, 1, 0)}, "whichever came to the log first"
    found = dict(zip(cases, results[1:-1], strict=True))
    assert {name: result.reason for name, result in found.items() if name != "TOKEN_INVALID"} == {
        name: name for name in cases if name != "TOKEN_INVALID"
    }
    assert found["TOKEN_INVALID"].code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert all(result.code and result.detail for result in found.values())


async def test_a_write_key_cannot_append_records(ingest: IngestService, source_id: str) -> None:
    (result,) = await ingest.append_many(
        ingest.item(b"[{}]", source_id=source_id, protocol="records", dataset="unplanned")
    )
    assert result.reason == "SCOPE_MISSING"


async def test_records_go_to_their_dataset_named_by_the_request(ingest: IngestService) -> None:
    item = ingest.item(b'[{"a":1},{"message_id":"m"}]', protocol="records", dataset="unplanned", request_id="r")
    (first,) = await ingest.append_many(item)
    assert [each.record_id for each in first.verdicts] == ["r#0", "m"]
    assert [each.position.offset for each in first.verdicts] == [0, 1]
    assert (first.accepted, first.duplicates, first.quarantined) == (2, 0, 0)
    (again,) = await ingest.append_many(item)
    assert outcomes(again) == ["DUPLICATE", "DUPLICATE"]


async def test_only_the_gateway_may_call(ingest: IngestService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.append.AppendMany(AppendManyRequest(items=[ingest.item(b"{}")]), **ingest.called())
    assert failure_of(caught.value).code.name == "PERMISSION_DENIED"


async def test_events_of_a_contract_that_cannot_be_looked_up_are_sent_again(
    ingest: IngestService, source_id: str
) -> None:
    mixed = orjson.dumps({"batch": [{"type": "track", "event": "Planned"}, {"type": "track", "event": "Seen"}]})
    by_source, records = await ingest.append_many(
        ingest.item(mixed, source_id=source_id), ingest.item(b"{}", protocol="records", dataset="events")
    )
    assert (by_source.reason, by_source.retry_after.seconds) == ("CONTRACTS_UNAVAILABLE", 2)
    assert outcomes(records) == ["RETRY"]


async def test_an_item_that_takes_long_holds_up_no_neighbour(
    ingest: IngestService, source_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, find = asyncio.Event(), Contracts.find

    async def slowly(contracts: Contracts, workspace: str, dataset: str) -> Compiled | None:
        if dataset == "slow":
            await found.wait()
            return None
        return await find(contracts, workspace, dataset)

    monkeypatch.setattr(Contracts, "find", slowly)
    monkeypatch.setattr(servicer, "PATIENCE_SECONDS", 0.01)
    slow = ingest.item(b"{}", protocol="records", dataset="slow")
    late, neighbour = await ingest.append_many(slow, ingest.item(events("a"), source_id=source_id))
    assert (late.code, late.reason) == (Code.ABORTED, "TAKES_LONG")
    assert counts(neighbour) == (1, 0, 0)
    alone = asyncio.ensure_future(ingest.append_many(slow))
    assert counts((await ingest.append_many(ingest.item(events("b"), source_id=source_id)))[0]) == (1, 0, 0)
    found.set()
    assert outcomes((await alone)[0]) == ["QUARANTINED"]


async def test_an_item_has_its_own_deadline(
    ingest: IngestService, source_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_contracts: Contracts, _workspace: str, _dataset: str) -> Compiled | None:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Contracts, "find", never)
    own = ingest.item(b"{}", protocol="records", dataset="slow", timeout=Duration(nanos=10_000_000))
    assert [each.reason for each in await ingest.append_many(own)] == ["DEADLINE_EXCEEDED"]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract `events` is in force in every workspace."""

    def in_force(_contracts: Contracts, workspace: str, dataset: str) -> Compiled | None:
        validator = validator_of(orjson.dumps(EVENTS_SCHEMA))
        return Compiled(workspace, dataset, "events", "1.0.0", "", validator, (), b"") if dataset == "events" else None

    async def find(contracts: Contracts, workspace: str, dataset: str) -> Compiled | None:
        return in_force(contracts, workspace, dataset)

    monkeypatch.setattr(Contracts, "in_force", in_force)
    monkeypatch.setattr(Contracts, "find", find)


def single(record_id: str, *, event: str = "Planned", **fields: object) -> bytes:
    return orjson.dumps(
        {"type": "track", "event": event, "messageId": record_id, "userId": "ada", "timestamp": "2026-01-02T03:04:05Z"}
        | fields
    )


@pytest.mark.sqlite
@pytest.mark.usefixtures("planned")
async def test_single_events_are_judged_together_and_answered_each(
    ingest: IngestService, source_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_itself: list[bytes] = []
    result = servicer.AppendServicer._result

    async def noted(self: servicer.AppendServicer, item: AppendItem, *rest: Any) -> AppendResult:
        by_itself.append(item.body)
        return await result(self, item, *rest)

    def item(body: bytes, trace: str = "", **fields: Any) -> AppendItem:
        traceparent = TRACEPARENT.replace("4bf9", trace) if trace else ""
        return ingest.item(body, source_id=source_id, route="track", traceparent=traceparent, **fields)

    await ingest.append_many(item(single("first")))  # the source's mappings are known from now on
    monkeypatch.setattr(servicer.AppendServicer, "_result", noted)
    unusual = item(b"hello"), item(single("id", timestamp=None), "cccc"), item(single("late"), timeout=Duration())
    results = await ingest.append_many(
        item(single("a"), "aaaa"), *unusual, item(gzip.compress(single("b")), "bbbb"), item(single("a"), "dddd")
    )
    assert [results[n].reason for n in (1, 3)] == ["BAD_JSON", "DEADLINE_EXCEEDED"]
    assert [counts(results[n]) for n in (0, 2, 4, 5)] == [(1, 0, 0), (1, 0, 0), (1, 0, 0), (0, 1, 0)]
    assert by_itself == [each.body for each in unusual]
    with closing(sqlite3.connect(ingest.folder / "ingest.db")) as connection:
        stored = connection.execute("SELECT headers FROM log_block").fetchall()
    headers = [header for (each,) in stored for header in blocks.decode_headers(each)]
    assert {"aaaa", "bbbb", "cccc"} < {header.traceparent[3:7] for header in headers}
    assert {(header.source_id, header.contract_versions["events"]) for header in headers} == {(source_id, "1.0.0")}


@pytest.mark.sqlite
@pytest.mark.usefixtures("planned")
async def test_large_single_events_of_one_call_fill_several_blocks_each_under_its_own_header(
    ingest: IngestService, source_id: str
) -> None:
    def item(number: int) -> AppendItem:
        body = single(f"large-{number}", properties={"text": str(number) * 500_000})
        at = Timestamp(seconds=1_000 + number)
        return ingest.item(body, source_id=source_id, route="track", received_at=at)

    await ingest.append_many(ingest.item(single("first"), source_id=source_id, route="track"))
    results = await ingest.append_many(*map(item, range(7)))
    assert [counts(each) for each in results] == [(1, 0, 0)] * 7
    with closing(sqlite3.connect(ingest.folder / "ingest.db")) as connection:
        stored = connection.execute("SELECT payload, headers FROM log_block WHERE first_offset > 0").fetchall()
    assert len(stored) > 1
    found = [
        (line["i"], blocks.decode_headers(headers)[line["h"]].received_at // 1_000_000)
        for payload, headers in stored
        for line in map(orjson.loads, zstandard.decompress(payload).splitlines())
    ]
    assert sorted(found) == [(f"large-{number}", 1_000 + number) for number in range(7)]


@pytest.mark.usefixtures("planned")
async def test_a_single_event_that_breaks_the_contract_costs_its_neighbours_nothing(
    ingest: IngestService, source_id: str
) -> None:
    bodies = single("a"), single("b", properties=[5]), single("c", timestamp="never"), single("d")
    items = [ingest.item(body, source_id=source_id, route="track") for body in bodies]
    assert [counts(each) for each in await ingest.append_many(*items)] == [(1, 0, 0), (0, 0, 1), (0, 0, 1), (1, 0, 0)]


@pytest.mark.usefixtures("planned")
async def test_single_events_that_the_log_refuses_are_told_each(
    ingest: IngestService, source_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest.append_many(ingest.item(single("first"), source_id=source_id, route="track"))

    async def busy(*_args: Any, **_named: Any) -> None:
        raise LogBusyError("Too much waits for the log.")

    monkeypatch.setattr(Appender, "append_all", busy)
    items = [ingest.item(single(each), source_id=source_id, route="track") for each in "ab"]
    results = await ingest.append_many(*items, ingest.item(b"hello", source_id=source_id))
    assert [each.reason for each in results] == [LogBusyError.reason, LogBusyError.reason, "BAD_JSON"]


async def test_what_is_no_event_is_quarantined_with_its_bytes_and_trace(ingest: IngestService, source_id: str) -> None:
    body = (
        b'{"batch":[5,{"type":"track","messageId":"m","properties":{"a":"\\ud83d"}},{"type":"track","messageId":"n"}]}'
    )
    (result,) = await ingest.append_many(ingest.item(body, source_id=source_id, traceparent=TRACEPARENT))
    assert counts(result) == (1, 0, 2)
    listed = await ingest.quarantine.ListQuarantinedRecords(
        quarantine_pb2.ListQuarantinedRecordsRequest(), **ingest.called()
    )
    ids = [each.quarantine_id for each in reversed(listed.quarantined_records)]
    request = quarantine_pb2.GetQuarantinedRecordRequest(quarantine_id=ids[1])
    record = await ingest.quarantine.GetQuarantinedRecord(request, **ingest.called())
    assert record.raw == b'{"type":"track","messageId":"m","properties":{"a":"\\ud83d"}}'
    assert [each.reason for each in record.findings] == ["BAD_JSON"]
    assert (record.source_id, record.trace_id) == (source_id, TRACE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.quarantine.GetQuarantinedRecord(request, **ingest.called("zeta"))
    assert failure_of(caught.value).reason == "QUARANTINED_RECORD_NOT_FOUND"


@pytest.mark.sqlite
async def test_a_record_in_the_log_continues_the_trace_of_its_request(ingest: IngestService, source_id: str) -> None:
    items = [
        ingest.item(events("a"), source_id=source_id, traceparent=TRACEPARENT),
        ingest.item(events("b"), source_id=source_id, traceparent=TRACEPARENT.replace("4bf9", "aaaa")),
    ]
    await ingest.append_many(*items)
    with closing(sqlite3.connect(ingest.folder / "ingest.db")) as connection, connection:
        stored = connection.execute("SELECT headers FROM log_block").fetchall()
    connection.close()
    headers = [header for (each,) in stored for header in blocks.decode_headers(each)]
    assert {header.traceparent[3:35] for header in headers} == {TRACE, TRACE.replace("4bf9", "aaaa")}
    assert {header.source_id for header in headers} == {source_id}


async def test_quarantine_is_listed_newest_first_and_filtered(ingest: IngestService) -> None:
    bad = ingest.item(b"5\n{\n7\n{}", protocol="records", dataset="unplanned", request_id="r")
    (result,) = await ingest.append_many(bad)
    made = [each.quarantine_id for each in result.verdicts if each.quarantine_id]
    assert len(made) == 3

    async def listed(workspace: str = "acme", **fields: object) -> list[str]:
        found, token = [], ""
        while True:
            request = quarantine_pb2.ListQuarantinedRecordsRequest(page_size=2, page_token=token, **fields)
            page = await ingest.quarantine.ListQuarantinedRecords(request, **ingest.called(workspace))
            assert not any(each.raw for each in page.quarantined_records)
            found += [each.quarantine_id for each in page.quarantined_records]
            token = page.next_page_token
            if not token:
                return found

    assert await listed() == sorted(made, reverse=True)
    assert await listed(reason="BAD_JSON") == [made[1]]
    assert await listed(reason="BAD") == []
    assert await listed(reason="%") == []
    assert await listed(dataset="events") == []
    assert await listed("zeta") == []


async def test_a_restarted_service_knows_what_it_has(tmp_path: Path) -> None:
    async with ingest_in(tmp_path) as first:
        item = first.item(b'[{"message_id":"m"}]', protocol="records", dataset="unplanned")
        assert outcomes((await first.append_many(item))[0]) == ["ACCEPTED"]
    async with ingest_in(tmp_path) as second:
        item = second.item(b'[{"message_id":"m"}]', protocol="records", dataset="unplanned")
        assert outcomes((await second.append_many(item))[0]) == ["DUPLICATE"]
