"""Reverting: an import is as if it had not been, except for its offsets, and what it brought may come again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counterfoil_ingest import blocks
from counterfoil_ingest.dedup import boot_id, load_table
from counterfoil_ingest.import_jobs import Format, Import, State
from counterfoil_ingest.read_errors import (
    ImportNotFoundError,
    ImportNotRevertibleError,
    LakeUnavailableError,
    SnapshotErasedError,
)

from tests.ingest.read_rig import SALES, contract, read_side, sale

HEADER = b"sale_id,shop,amount\n"


def csv(first: int, number: int, mark: str = "reverted") -> bytes:
    """Return so many sales, every tenth of them with an amount that is none."""
    rows = (f"{n},{mark} {n},{'x' if n % 10 == 9 else n}\n" for n in range(first, first + number))
    return HEADER + "".join(rows).encode()


def holding(folder: Path, text: bytes) -> list[str]:
    """Return the files of the lake that hold a text anywhere."""
    return [path.name for path in (folder / "lake").rglob("*") if path.is_file() and text in path.read_bytes()]


async def numbers(side: Any) -> tuple[list[int], int]:
    """Return the sales in the lake, and how many are in quarantine."""
    counts = {each.dataset: each for each in side.log.counts("acme")}
    rows = await side.rows("sales", ["sale_id"])
    assert counts["sales"].records == len(rows)
    return [row["sale_id"] for row in rows], counts["sales"].quarantined


async def test_every_count_is_as_before_and_offsets_stay(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        await side.append(sale(1), sale(2))
        kept = await side.import_file("sales", csv(100, 20, "kept"), Format.CSV)
        before = await numbers(side)
        snapshot = side.snapshots.at_head("acme", "sales")
        done = await side.import_file("sales", csv(200, 40), Format.CSV)
        await side.append(sale(3))
        later = side.snapshots.at_head("acme", "sales")
        assert (done.rows_accepted, done.rows_quarantined) == (36, 4)
        head = side.log.head("acme")
        reverted = await side.revert(done.import_id)
        assert (reverted.state, reverted.reverted_records, reverted.reverted_quarantined) == (State.REVERTED, 36, 4)
        assert (reverted.revert_reason, reverted.reverted_by, reverted.rows_accepted) == ("wrong", "ada", 36)
        numbers_after, quarantined = await numbers(side)
        assert (numbers_after, quarantined) == ([*before[0], 3], before[1])
        assert side.log.head("acme") == head
        side.snapshots.check("acme", snapshot)
        with pytest.raises(SnapshotErasedError):
            side.snapshots.check("acme", later)
        assert holding(rig.folder, b"reverted 200") == []
        assert holding(rig.folder, b"kept 100") != []
        again = await side.revert(done.import_id)
        assert again == reverted
        assert (await side.imports.get("acme", kept.import_id)).state is State.SUCCEEDED


async def test_the_same_file_may_come_again_and_then_once(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = csv(0, 40)
    async with read_side(rig) as side:
        for _ in range(2):
            first = await side.import_file("sales", data, Format.CSV)
            assert (first.rows_accepted, first.rows_duplicate, first.rows_quarantined) == (36, 0, 4)
            second = await side.import_file("sales", data, Format.CSV)
            assert (second.rows_accepted, second.rows_duplicate) == (0, 36)
            assert (await side.revert(second.import_id)).reverted_records == 0
            assert len((await numbers(side))[0]) == 36
            await side.revert(first.import_id)
            assert await numbers(side) == ([], 0)


async def test_a_table_made_anew_knows_what_was_reverted(rig: Any, tmp_path: Path) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", csv(0, 8), Format.CSV)
        await side.revert(done.import_id)
    table = load_table(tmp_path / "dedup.table", rig.log, boot_id=boot_id())
    (block,) = rig.log.read("acme", 0, 0)
    hashes = [each.hash for each in blocks.names(block)]  # type: ignore[union-attr]
    assert table.contains(np.array(hashes, np.uint64)).tolist() == [True] * 8
    table.close()


async def test_what_a_person_had_erased_does_not_come_again(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = csv(0, 8)
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.CSV)
        await side.eraser.erase("acme", 0, [3], texts=())
        reverted = await side.revert(done.import_id)
        assert reverted.reverted_records == 7
        again = await side.import_file("sales", data, Format.CSV)
        assert (again.rows_accepted, again.rows_duplicate) == (7, 1)
        assert (await numbers(side))[0] == [0, 1, 2, 4, 5, 6, 7]


async def test_records_of_others_in_between_stay(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.files.BATCH_ROWS", 10)
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        append, others = rig.appender.append_judged, count(1000)

        async def with_neighbours(*args: Any, **kwargs: Any) -> Any:
            verdicts = await append(*args, **kwargs)
            if kwargs["effect"] is not None:
                await side.append(sale(next(others)))
            return verdicts

        monkeypatch.setattr(rig.appender, "append_judged", with_neighbours)
        done = await side.import_file("sales", b"sale_id\n" + b"".join(b"%d\n" % n for n in range(50)), Format.CSV)
        monkeypatch.setattr(rig.appender, "append_judged", append)
        assert len(await side.imports.records(done)) == 5
        await side.revert(done.import_id)
        left, _ = await numbers(side)
    assert left == [1000, 1001, 1002, 1003, 1004]


async def test_goes_on_with_a_revert_after_a_stop(open_log: Callable[..., Any], monkeypatch: Any) -> None:
    rig = await open_log()
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", csv(0, 40), Format.CSV)

        async def away(*_: Any) -> int:
            raise LakeUnavailableError("the disk is full")

        monkeypatch.setattr(side.lake, "erase", away)
        monkeypatch.setattr("counterfoil_ingest.imports._PAUSE_SECONDS", 0.01)
        begun = await begin(side, done)
        assert begun.state is State.REVERTING
        other = await side.import_file("sales", b"sale_id\n77\n", Format.CSV)  # not held up by it
        assert other.state is State.SUCCEEDED
    rig = await open_log()
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        reverted = await side.ended(done.import_id)
        assert (reverted.state, reverted.reverted_records, reverted.reverted_quarantined) == (State.REVERTED, 36, 4)
        assert await numbers(side) == ([77], 0)
        assert holding(rig.folder, b"reverted 20") == []


async def begin(side: Any, done: Import) -> Import:
    async def tell(_connection: Any) -> None:
        """Nobody is told."""

    begun: Import = await side.imports.revert("acme", done.import_id, reason="r", by="ada", at=1, tell=tell)
    side.worker.wake()
    return begun


async def test_a_failed_import_can_be_reverted_and_one_under_way_cannot(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, run=False) as side:
        waiting = await side.upload("sales", csv(0, 5), Format.CSV)
        with pytest.raises(ImportNotRevertibleError):
            await side.revert(waiting)
        with pytest.raises(ImportNotFoundError):
            await side.revert(waiting, workspace="other")
    async with read_side(rig) as side:
        assert (await side.ended(waiting)).rows_accepted == 5
        trace = b'{"type":"TRACE","trace":{"type":"ERROR","error":{"message":"away"}}}\n'
        line = b'{"type":"RECORD","record":{"stream":"sales","data":{"sale_id":9}}}\n'
        failed = await side.import_file("", line + trace, Format.AIRBYTE)
        assert (failed.state, failed.rows_accepted) == (State.FAILED, 1)
        assert (await side.revert(failed.import_id)).state is State.REVERTED
        assert len((await numbers(side))[0]) == 5


async def test_who_is_not_told_of_reverts_nothing(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", csv(0, 5), Format.CSV)

        async def failing(_connection: Any) -> None:
            raise RuntimeError("no audit log")

        with pytest.raises(RuntimeError, match="no audit log"):
            await side.imports.revert("acme", done.import_id, reason="r", by="ada", at=1, tell=failing)
        assert (await side.imports.get("acme", done.import_id)).state is State.SUCCEEDED


async def test_an_import_of_which_no_places_are_known_is_not_reverted(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, run=False) as side:
        old = await side.upload("sales", HEADER, Format.CSV, state=State.SUCCEEDED, rows_accepted=3)
        with pytest.raises(ImportNotRevertibleError):
            await side.revert(old)


async def test_a_hundred_thousand_rows_are_reverted_by_runs(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = b"sale_id\n" + b"".join(b"%d\n" % n for n in range(100_000))
    async with read_side(rig, commit_rows=1_000_000) as side:
        await side.append(sale(1))
        done = await side.import_file("sales", data, Format.CSV)
        assert done.rows_accepted == 100_000
        assert len(await side.imports.records(done)) == 1
        reverted = await side.revert(done.import_id)
        assert reverted.reverted_records == 100_000
        assert await numbers(side) == ([1], 0)
