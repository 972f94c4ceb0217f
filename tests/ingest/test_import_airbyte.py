"""Airbyte: what a source writes lands in the datasets of its streams, and its states come back when all of it is in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from counterfoil_ingest.airbyte import dataset_of
from counterfoil_ingest.entities import MAX_RECORD_BYTES
from counterfoil_ingest.import_jobs import Format, State
from counterfoil_ingest.registry import ColumnType

from tests.ingest.read_rig import contract, read_side

FAKER = (Path(__file__).parent / "airbyte" / "faker.jsonl").read_bytes()
"""The output of a real source, see the README beside it."""

ID = {"id": ColumnType.BIGINT}


def line(kind: str, **members: Any) -> bytes:
    return orjson.dumps({"type": kind, **members}) + b"\n"


def record(stream: str, **data: Any) -> bytes:
    return line("RECORD", record={"stream": stream, "data": data, "emitted_at": 1})


def state(stream: str, **cursor: Any) -> bytes:
    told = {"stream_descriptor": {"name": stream}, "stream_state": cursor}
    return line("STATE", state={"type": "STREAM", "stream": told})


async def test_takes_the_run_of_a_real_source_and_returns_its_states(rig: Any) -> None:
    for name in ("products", "users", "purchases"):
        rig.contracts.put(contract(name, ID))
    sent = [orjson.loads(text) for text in FAKER.splitlines()]
    records = [each["record"] for each in sent if each["type"] == "RECORD"]
    async with read_side(rig) as side:
        done = await side.import_file("", FAKER, Format.AIRBYTE)
        assert (done.state, done.rows_read, done.rows_accepted) == (State.SUCCEEDED, len(records), len(records))
        for name, count in Counter(each["stream"] for each in records).items():
            rows = await side.rows(name, ["id", "_extra"])
            expected = [each["data"] for each in records if each["stream"] == name]
            assert len(rows) == count
            assert [{"id": row["id"], **orjson.loads(row["_extra"])} for row in rows] == expected
        again = await side.import_file("", FAKER, Format.AIRBYTE)
    assert (again.rows_accepted, again.rows_duplicate) == (0, len(records))
    newest = {each["state"]["stream"]["stream_descriptor"]["name"]: each["state"] for each in sent if "state" in each}
    assert orjson.loads(done.source_state) == list(newest.values())


async def test_a_source_that_fails_leaves_what_it_sent_and_the_states_of_that(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    trace = {
        "type": "ERROR",
        "emitted_at": 1.5,
        "error": {"message": "401 from the API", "failure_type": "config_error"},
    }
    data = record("users", id=1) + state("users", at=1) + line("TRACE", trace=trace) + b"Traceback: no message\n"
    async with read_side(rig) as side:
        done = await side.import_file("", data, Format.AIRBYTE)
    assert (done.state, done.error_reason, done.rows_accepted) == (State.FAILED, "SOURCE_FAILED", 1)
    assert "401 from the API" in done.error_detail
    assert orjson.loads(done.source_state)[0]["stream"]["stream_state"] == {"at": 1}


async def test_quarantines_what_was_a_record_and_cannot_be_read(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    cut = record("users", id=2)[:-9] + b"\n"
    large = record("users", id=3, text="x" * MAX_RECORD_BYTES)
    deep = b'{"type":"RECORD","record":{"stream":"users","data":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}}\n"
    data = (
        record("users", id=1)
        + cut
        + large
        + deep
        + record("ghosts", id=1)
        + record("users", id="x")
        + record("users", id=4)
    )
    async with read_side(rig) as side:
        done = await side.import_file("", data, Format.AIRBYTE)
        assert [row["id"] for row in await side.rows("users", ["id"])] == [1, 4]
    assert (done.state, done.rows_read, done.rows_accepted, done.rows_quarantined) == (State.SUCCEEDED, 7, 2, 5)


async def test_one_dataset_takes_every_stream_when_it_is_named(rig: Any) -> None:
    rig.contracts.put(contract("all_of_it", ID))
    async with read_side(rig) as side:
        done = await side.import_file("all_of_it", record("a", id=1) + record("b", id=2), Format.AIRBYTE)
        assert [row["id"] for row in await side.rows("all_of_it", ["id"])] == [1, 2]
    assert done.snapshot_offset == 2
    assert done.source_state == ""


async def test_goes_on_where_it_was_with_streams_in_turns(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.airbyte.BATCH_ROWS", 10)
    for name in ("a", "b"):
        rig.contracts.put(contract(name, ID))
    data = b"".join(record("ab"[n % 2], id=n) + state("ab"[n % 2], at=n) for n in range(95))
    async with read_side(rig, run=False) as side:
        import_id = await side.upload("", data, Format.AIRBYTE)
        count, calls = side.imports.count, []

        def dying(*args: Any) -> None:
            calls.append(args)
            if len(calls) == 4:
                raise RuntimeError("killed")
            count(*args)

        monkeypatch.setattr(side.imports, "count", dying)
        with pytest.raises(RuntimeError, match="killed"):
            await side.worker._read(await side.imports.get("acme", import_id))
    async with read_side(rig) as side:
        done = await side.ended(import_id)
        assert [row["id"] for row in await side.rows("b", ["id"])] == list(range(1, 95, 2))
    assert (done.rows_read, done.rows_accepted, done.rows_duplicate) == (95, 95, 0)
    assert [each["stream"]["stream_state"]["at"] for each in orjson.loads(done.source_state)] == [94, 93]


async def test_states_that_are_too_large_or_unreadable_fail_the_import(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    async with read_side(rig) as side:
        large = await side.import_file("", state("users", text="x" * (2 << 20)), Format.AIRBYTE)
        many = b"".join(state(f"s{n}", text="x" * 60_000) for n in range(20))
        for data, reason in ((many, "STATE_TOO_LARGE"), (b'{"type": "STATE", "state": \n', "STATE_UNREADABLE")):
            assert (await side.import_file("", data, Format.AIRBYTE)).error_reason == reason
    assert large.error_reason == "STATE_TOO_LARGE"


async def test_more_streams_than_any_source_has_are_refused(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.airbyte.MOST_STREAMS", 3)
    async with read_side(rig) as side:
        for count, reason in ((3, ""), (4, "TOO_MANY_STREAMS")):
            data = b"".join(record(f"s{n % count}", id=n) for n in range(20))
            assert (await side.import_file("", data, Format.AIRBYTE)).error_reason == reason


@pytest.mark.parametrize(
    ("stream", "dataset"),
    [("Users", "users"), ("ad-group/ads", "ad_group_ads"), ("1x", "s_1x"), ("", "s_"), ("ä" * 99, "s_" + "_" * 61)],
)
def test_a_stream_goes_to_the_dataset_of_its_name(stream: str, dataset: str) -> None:
    assert dataset_of(stream) == dataset
