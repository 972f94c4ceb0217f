"""A record that comes again is dropped; another one under the same id waits in quarantine, told whose id it has."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from counterfoil.ingest.v1 import quarantine_pb2, sources_pb2
from counterfoil_ingest.entities import SourceMapping
from counterfoil_ingest.protocols import Request, segment, snowplow
from counterfoil_ingest.reused_ids import differing, fingerprint
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from tests.ingest.ingest_service import READ, IngestService

pytestmark = pytest.mark.both_engines("contracts", "ingest")

FIRST, AGAIN = 1_767_323_045_000_000, 1_767_323_105_000_000
"""When the first request arrived, and the same a minute later."""


def stored(protocol: Any, body: Any, received_at: int, route: str = "batch") -> bytes:
    request = Request(route, "", "r", received_at, (SourceMapping("", "", "unplanned"),), lambda: "new")
    (candidate,) = protocol.parse(orjson.dumps(body), request)
    return bytes(candidate.data)


def differ(first: bytes, second: bytes) -> list[str]:
    return differing(second, first, received_at=AGAIN, older_received_at=FIRST)


EVENTS = st.fixed_dictionaries(
    {"messageId": st.just("m"), "type": st.sampled_from(["track", "page", "identify"])},
    optional={
        "timestamp": st.sampled_from(["2026-01-02T03:04:00Z", "2026-01-02T01:00:00Z", "2031-01-01T00:00:00Z", "then"]),
        "originalTimestamp": st.sampled_from(["2026-01-02T03:04:01Z", "2026-01-02T01:00:00Z"]),
        "event": st.sampled_from(["Order Completed", "Seen"]),
        "context": st.sampled_from([{"page": {"url": "https://a.test/?gclid=1"}}, {"traits": {"a": 1}}, None, 5]),
        "properties": st.sampled_from([{"total": 12.5}, {}, None]),
        "userId": st.sampled_from([7, "ada"]),
    },
)
SENT = st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z", "2026-01-02T01:00:09Z", "2031-01-01T00:00:09Z"])


@given(EVENTS, st.one_of(st.none(), SENT), st.one_of(st.none(), SENT), st.booleans())
@example({"messageId": "m", "type": "track"}, "2031-01-01T00:00:09Z", None, False)
def test_an_event_that_is_sent_again_is_the_same_whatever_its_sender_says_of_sending(
    event: dict[str, Any], first: str | None, again: str | None, each: bool
) -> None:
    def body(sent: str | None, attempt: int) -> Any:
        told = {"sentAt": sent} if sent else {}
        tries = {"_metadata": {"retryCount": attempt}}
        return {"batch": [event | told | tries]} if each else {"batch": [event | tries], **told}

    one, two = body(first, 0), body(again, 1)
    assert differ(stored(segment, one, FIRST), stored(segment, two, AGAIN)) == []
    assert fingerprint(orjson.dumps(one["batch"][0])) == fingerprint(orjson.dumps(two["batch"][0]))


def test_what_a_tracker_of_snowplow_sends_again_is_the_same() -> None:
    event = {"e": "pv", "eid": "m", "dtm": "1767319445000", "url": "https://a.test/"}
    one, two = (
        stored(snowplow, {"data": [event | {"stm": stm}]}, FIRST, "tp2") for stm in ("1767319455000", "1767319515000")
    )
    assert differ(one, two) == []
    other = stored(snowplow, {"data": [event | {"url": "https://b.test/", "stm": "1767319455000"}]}, AGAIN, "tp2")
    assert differ(one, other) == ["context"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"event": "Other"}, ["event"]),
        ({"timestamp": "2026-01-02T03:04:01Z"}, ["timestamp"]),
        ({"properties": {"total": 2}}, ["properties"]),
        ({"userId": "bob", "more": 1}, ["more", "user_id"]),
    ],
)
def test_another_event_under_the_same_id_is_told_apart(change: dict[str, Any], names: list[str]) -> None:
    event = {"messageId": "m", "type": "track", "event": "Seen", "userId": "ada", "timestamp": "2026-01-02T03:04:00Z"}
    one, two = (stored(segment, {"batch": [each]}, FIRST) for each in (event, event | change))
    assert differ(one, two) == names


@pytest.mark.parametrize("raw", [b"no json", b"[1]", b'{"a":' * 900 + b"1" + b"}" * 900])
def test_bytes_that_are_no_record_are_told_apart_by_themselves(raw: bytes) -> None:
    assert fingerprint(raw) == fingerprint(bytes(raw)) != fingerprint(raw + b" ")
    assert differ(b"{}", raw) == (["$"] if raw[:1] != b"{" else ["a"])


def test_what_an_older_release_did_not_add_makes_no_difference() -> None:
    older = orjson.dumps({"message_id": "m", "context": {"page": {}}, "properties": {"total": 1}, "timestamp": "t"})
    newer = orjson.dumps(
        {
            "message_id": "m",
            "context": {"page": {}, "click_ids": {"gclid": "1"}},
            "properties": {"total": 1, "revenue": 1.0},
            "timestamp": "t2",
            "original_timestamp": "t",
        }
    )
    assert differ(older, newer) == []


async def test_the_second_event_under_an_id_waits_in_quarantine_once_with_its_bytes(ingest: IngestService) -> None:
    request = sources_pb2.CreateSourceRequest(
        display_name="Shop", mappings=[sources_pb2.SourceMapping(type="track", event="Planned", dataset="events")]
    )
    source_id = (await ingest.sources.CreateSource(request, **ingest.called())).source.source_id

    async def send(*events: dict[str, Any], second: int) -> tuple[int, int, int]:
        body = orjson.dumps({"sentAt": f"2026-01-02T03:04:{second:02}Z", "batch": events})
        item = ingest.item(body, source_id=source_id, received_at=Timestamp(seconds=1_767_323_040 + second))
        (result,) = await ingest.append_many(item)
        assert result.code == 0, result
        return result.accepted, result.duplicates, result.quarantined

    def event(message_id: str, name: str = "Seen", **fields: Any) -> dict[str, Any]:
        return {"type": "track", "event": name, "messageId": message_id, "timestamp": "2026-01-02T03:04:00Z", **fields}

    assert await send(event("a"), event("b"), second=1) == (2, 0, 0)
    assert await send(event("a"), event("b", "Bought"), event("c"), second=2) == (1, 1, 1)
    assert await send(event("a"), event("b", "Bought"), event("c"), second=3) == (0, 2, 1)  # sent again
    assert await send(event("d"), event("d", userId="ada"), event("d"), second=4) == (1, 1, 1)  # within one request
    listing = quarantine_pb2.ListQuarantinedRecordsRequest(reason="MESSAGE_ID_REUSED")
    listed = (
        await ingest.quarantine.ListQuarantinedRecords(listing, **ingest.called(scopes=(READ,)))
    ).quarantined_records
    assert [each.record_id for each in listed] == ["d", "b"]
    (finding,) = listed[1].findings
    assert (finding.path, "offset 1 " in finding.detail, "`event`" in finding.detail) == ("$.message_id", True, True)
    asked = quarantine_pb2.GetQuarantinedRecordRequest(quarantine_id=listed[1].quarantine_id)
    found = await ingest.quarantine.GetQuarantinedRecord(asked, **ingest.called(scopes=(READ,)))
    assert orjson.loads(found.raw)["event"] == "Bought"
