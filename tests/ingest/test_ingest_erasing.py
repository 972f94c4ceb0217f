"""Erasure in ingest: what is erased is in no file any more, what is not stays as it was, and nothing brings it back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from counterfoil_chassis.database import Database
from counterfoil_ingest import blocks
from counterfoil_ingest.dedup import erased_name
from counterfoil_ingest.entities import Erased as ErasedName
from counterfoil_ingest.entities import Outcome, QuarantineFilter
from counterfoil_ingest.erasing import Eraser
from counterfoil_ingest.errors import ErasureAheadError
from counterfoil_ingest.lake_writer import LakeWriter
from counterfoil_ingest.read_errors import SnapshotErasedError
from counterfoil_ingest.reading import LogReader
from counterfoil_ingest.registry import ColumnType
from counterfoil_ingest.sql.quarantine import SqlQuarantine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.byte_scan import holding
from tests.ingest.conftest import LogRig, batch
from tests.ingest.read_rig import ReadSide, contract, read_side, record

PEOPLE = {"name": ColumnType.VARCHAR, "note": ColumnType.VARCHAR}
SECRET = "ada-lovelace-1815"


@asynccontextmanager
async def erasing(rig: Any) -> AsyncIterator[tuple[ReadSide, Eraser]]:
    """Open the read side and what erases in it."""
    rig.contracts.put(contract("people", PEOPLE, required=["name"]))
    rig.contracts.put(contract("other", PEOPLE))
    async with read_side(rig) as side:
        yield side, side.eraser


def person(number: int, name: str = "", **more: Any) -> Any:
    return record("people", f"p{number}", {"name": name or f"name {number}", **more})


async def test_no_file_holds_an_erased_record_and_its_neighbours_are_what_they_were(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(*(person(n) for n in range(10)), record("other", "o1", {"name": "x"}))
        await side.append(record("people", f"{SECRET}-id", {"name": SECRET, "note": "n" * 9000}), person(11))
        await side.flush()
        assert holding(rig.folder, SECRET)
        before = await side.rows("people", ["name", "_offset"])
        erased = await eraser.erase("acme", 0, [11], texts=[])
        assert (erased.records, erased.quarantined, erased.revision, erased.remaining) == (1, 0, 1, 0)
        assert holding(rig.folder, SECRET) == []
        assert await side.rows("people", ["name", "_offset"]) == [row for row in before if row["_offset"] != 11]
        assert [each.records for each in rig.log.counts("acme")] == [1, 11]
        assert rig.log.head("acme") == 13
        reader = LogReader(rig.log, contracts=rig.contracts)
        page = await reader.page("acme", "people", partition=0, from_offset=9, limit=50)
        assert [each.offset for each in page.records] == [9, 12]


@pytest.mark.both_engines("ingest")
async def test_the_newest_block_is_at_hand_until_one_of_its_records_is_erased(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(*(person(n) for n in range(3)))
        await side.append(person(3), person(4))
        assert [rig.log.at_hand("acme", 0, offset) for offset in (0, 2, 5)] == [[], [], []]
        assert rig.log.at_hand("zeta", 0, 0) == []
        assert rig.log.at_hand("acme", 0, 3) == rig.log.at_hand("acme", 0, 4) == rig.log.read("acme", 0, 3)
        await eraser.erase("acme", 0, [4], texts=[])
        assert rig.log.at_hand("acme", 0, 3) == []
        assert [each.offset for block in rig.log.read("acme", 0, 3) for each in blocks.decode(block)] == [3]
        await side.append(person(5))
        assert rig.log.at_hand("acme", 0, 5) == rig.log.read("acme", 0, 5)


@pytest.mark.both_engines("ingest")
async def test_erasing_again_changes_nothing(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(*(person(n) for n in range(5)))
        first = await eraser.erase("acme", 0, [1, 3], texts=[])
        bytes_of = [block.payload for block in rig.log.read("acme", 0, 0)]
        again = await eraser.erase("acme", 0, [3, 1, 1], texts=[])
        assert (first.records, again.records, again.revision) == (2, 0, first.revision)
        assert [block.payload for block in rig.log.read("acme", 0, 0)] == bytes_of
        assert [each.records for each in rig.log.counts("acme")] == [3]


@pytest.mark.both_engines("ingest")
async def test_the_same_record_sent_again_stays_erased(open_log: Callable[..., Any]) -> None:
    rig = await open_log()
    async with erasing(rig) as (side, eraser):
        await side.append(person(1), person(2))
        await eraser.erase("acme", 0, [0], texts=[])
        (again,) = await rig.appender.append(batch("acme", person(1, SECRET), source_id="api"))
        assert (again.outcome, again.offset) == (Outcome.DUPLICATE, 0)
    (rig.folder / "dedup.table").unlink()
    rig = await open_log()  # the table is made anew from the log, tombstones included
    rig.contracts.put(contract("people", PEOPLE, required=["name"]))
    (again,) = await rig.appender.append(batch("acme", person(1, SECRET), source_id="api"))
    (other,) = await rig.appender.append(batch("acme", person(1, "another's"), source_id="web"))
    assert (again.outcome, other.outcome) == (Outcome.DUPLICATE, Outcome.ACCEPTED)
    assert rig.log.erasure_revision == 1


async def test_one_erasure_after_the_other_rewrites_the_lake(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        for number in range(4):
            await side.append(person(number, f"{SECRET}-{number}"), record("other", f"o{number}", {"name": "x"}))
            await side.flush()
        for number in range(4):
            assert (await eraser.erase("acme", 0, [2 * number], texts=[])).remaining == 0
            assert holding(rig.folder, f"{SECRET}-{number}") == []
        await side.append(person(9))
        await side.flush()
        assert [row["name"] for row in await side.rows("people", ["name"])] == ["name 9"]
        assert len(await side.rows("other", ["name"])) == 4


async def test_another_record_whose_hash_is_that_of_an_erased_one_is_taken(rig: LogRig, monkeypatch: Any) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(person(1))
        await eraser.erase("acme", 0, [0], texts=[])
        hash_ = erased_name("acme", "api", "people", "p1").hash
        monkeypatch.setattr(
            "counterfoil_ingest.placing.hashes_of", lambda _seeds, ids: np.full(len(ids), hash_, np.uint64)
        )
        (other,) = await rig.appender.append(batch("acme", person(2), source_id="api"))
        assert other.outcome is Outcome.ACCEPTED


@pytest.mark.both_engines("ingest")
async def test_quarantined_namesakes_go_and_so_does_what_holds_an_identifier(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(
            record("people", "same", {"note": "first try"}),
            record("people", "same id elsewhere", {"note": 'see "Ada@Example.com", she said'}),
            record("people", "url", {"note": "https://x/?e=ada%40example.com&y=1"}),
            record("people", "not her", {"note": "xada@example.com ada@example.com.au"}),
        )
        await side.append(person(1, "ada"), record("people", "same", {"name": "ada"}))
        before = {each.dataset: each.quarantined for each in rig.log.counts("acme")}
        erased = await eraser.erase("acme", 0, [1], texts=["ada@example.com"])
        after = {each.dataset: each.quarantined for each in rig.log.counts("acme")}
        assert (before["people"], erased.quarantined, after["people"]) == (4, 3, 1)
        database = Database(rig.url)
        (left,) = await SqlQuarantine(database).list("acme", QuarantineFilter(), before="", limit=9)
        await database.close()
        assert left.record_id == "not her"


@pytest.mark.both_engines("ingest")
async def test_a_snapshot_is_erased_when_its_own_records_are(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(person(1), record("other", "o1", {"name": "x"}), person(2))
        people, other = [await side.snapshots.create("acme", name) for name in ("people", "other")]
        early = replace(people, offsets={0: 1})
        await eraser.erase("acme", 0, [2], texts=[])
        with pytest.raises(SnapshotErasedError):
            side.snapshots.check("acme", people)
        for untouched in (other, early, await side.snapshots.create("acme", "people")):
            side.snapshots.check("acme", untouched)
        with pytest.raises(SnapshotErasedError):
            side.snapshots.check("acme", replace(other, erasure_revision=2))
        await side.append(person(3))
        assert len(await side.rows("people", ["name"])) == 2


async def test_offsets_that_the_log_does_not_have_are_refused(rig: LogRig) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(person(1))
        for offsets in ([1], [-1], [0, 7]):
            with pytest.raises(ErasureAheadError):
                await eraser.erase("acme", 0, offsets, texts=[])
        with pytest.raises(ErasureAheadError):
            await eraser.erase("zeta", 0, [0], texts=[])
        assert rig.log.erasure_revision == 0


@pytest.mark.both_engines("ingest")
async def test_appending_and_reading_go_on_meanwhile(rig: LogRig, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.sql.erasing._BLOCKS", 3)  # many transactions
    async with erasing(rig) as (side, eraser):
        for n in range(60):
            await side.append(person(n), person(1000 + n))
        await side.flush()
        task = asyncio.create_task(eraser.erase("acme", 0, range(0, 120, 2), texts=[]))
        appended = 0
        while not task.done():
            await side.append(person(5000 + appended))
            appended += 1
            await side.flush()
            try:
                assert len(await side.rows("people", ["_offset"])) >= 60
            except SnapshotErasedError:
                continue  # it was taken just before: a reader takes another
        erased = await task
        assert (erased.records, erased.remaining) == (60, 0)
        assert erased.revision > 10
        rows = [row["_offset"] for row in await side.rows("people", ["_offset"])]
        assert rows == [*range(1, 120, 2), *range(120, 120 + appended)]


async def test_a_round_of_the_lake_that_read_the_log_before_brings_nothing_back(rig: LogRig, monkeypatch: Any) -> None:
    async with erasing(rig) as (side, eraser):
        await side.append(person(1, SECRET), person(2))
        reading, going_on = threading.Event(), threading.Event()
        write = LakeWriter.write

        def halted(*read: Any) -> int:
            reading.set()
            assert going_on.wait(10)
            return write(*read)

        monkeypatch.setattr(LakeWriter, "write", halted)
        flushing = asyncio.create_task(side.flush())
        assert await asyncio.to_thread(reading.wait, 10)
        task = asyncio.create_task(eraser.erase("acme", 0, [0], texts=[]))
        while rig.log.erasure_revision == 0:
            await asyncio.sleep(0.01)
        going_on.set()
        await flushing
        assert (await task).remaining == 0
        monkeypatch.undo()
        assert [row["name"] for row in await side.rows("people", ["name"])] == ["name 2"]
        assert holding(rig.folder, SECRET) == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    data=st.data(),
)
async def test_blocks_keep_count_offsets_and_everybody_else(sizes: list[int], data: Any) -> None:
    first = data.draw(st.integers(0, 1 << 40))
    ids = [f'r"{n}\n' for n in range(sum(sizes))]
    raw = [orjson.dumps({"n": n, "text": "\n" * (n % 3)}) for n in range(len(ids))]
    datasets = [f"d{n % 3}" for n in range(len(ids))]
    lines = blocks.lines(first, [0] * len(raw), datasets, ids, raw)
    header = blocks.decode_headers(b'[["s",1,"",{}]]')
    block = blocks.Block("acme", 0, first, len(ids), blocks.LAYOUT, blocks.encode([lines]), header)
    gone = data.draw(st.sets(st.integers(0, len(ids) - 1)))
    erased, names = blocks.erase(block, {first + n for n in gone}, lambda *name: erased_name("acme", *name))
    assert names == [(first + n, "s", datasets[n], ids[n]) for n in sorted(gone)]
    assert [each.offset - first for each in blocks.decode(erased)] == [n for n in range(len(ids)) if n not in gone]
    for n, name in enumerate(blocks.names(erased)):
        assert isinstance(name, ErasedName) if n in gone else name == ("s", datasets[n], ids[n])
    assert blocks.erase(erased, {first + n for n in gone}, lambda *name: erased_name("acme", *name)) == (erased, [])
