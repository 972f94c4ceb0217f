"""The dedup table: exact, durable as far as the log is, and never trusted further than that."""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from counterfoil_ingest import append as append_module
from counterfoil_ingest import dedup, placing
from counterfoil_ingest.dedup import DedupTable, UntrustedTableError, hashes_of, new_table, open_table, seed_of
from counterfoil_ingest.entities import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.conftest import LogRig, batch, event

Reopen = Callable[[], Awaitable[LogRig]]
BOOT = "boot-1"


@pytest.fixture
def table(tmp_path: Path) -> DedupTable:
    return new_table(tmp_path / "t", epoch="e", entries=0, boot_id=BOOT)


def numbers(values: Iterable[int]) -> npt.NDArray[np.uint64]:
    return np.fromiter(values, np.uint64)


def entries(table: DedupTable, hashes: list[int]) -> dict[int, set[int]]:
    return {each: set(table.matches(each)) for each in hashes}


# Few distinct hashes in few rows: full rows, shared hashes, wrap-around at the table's end.
HASHES = st.tuples(st.integers(8_189, 8_193), st.integers(0, 5)).map(lambda at: (at[0] % 8_192 << 51) + at[1] or 1)


@pytest.mark.parametrize("few", [1, 1000], ids=["by numpy", "by loop"])
@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(st.tuples(HASHES, st.integers(0, 40)), max_size=60, unique=True), max_size=4))
def test_holds_exactly_what_was_entered(
    tmp_path_factory: pytest.TempPathFactory, few: int, batches: list[list[tuple[int, int]]]
) -> None:
    path = tmp_path_factory.mktemp("dedup") / "t"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_FEW", few)
        _hold(path, batches)


def _hold(path: Path, batches: list[list[tuple[int, int]]]) -> None:
    table = new_table(path, epoch="e", entries=0, boot_id=BOOT)
    expected: dict[int, set[int]] = {}
    for sequence, pairs in enumerate(batches):
        hashes, offsets = numbers(each[0] for each in pairs), numbers(each[1] for each in pairs)
        assert table.contains(hashes).tolist() == [each in expected for each, _ in pairs]
        table.enter(hashes, offsets, watermark=sequence)
        for hash_, offset in pairs:
            expected.setdefault(hash_, set()).add(offset)
    assert entries(table, list(expected)) == expected
    assert table.entries == sum(map(len, expected.values()))
    table.close()
    reopened = open_table(path, epoch="e", boot_id="another")
    assert entries(reopened, list(expected)) == expected
    reopened.close()


def test_grows_and_keeps_everything(table: DedupTable) -> None:
    ids = [b"id%d" % n for n in range(100_000)]
    hashes = hashes_of([seed_of("acme", "s", "events")] * 100_000, ids)
    for start in range(0, len(hashes), 7_000):
        part = hashes[start : start + 7_000]
        table.enter(part, numbers(range(start, start + len(part))), watermark=start)
    assert table.contains(hashes).all()
    assert [next(table.matches(each)) for each in hashes[::997].tolist()] == list(range(0, 100_000, 997))
    assert not table.contains(hashes_of([seed_of("acme", "other", "events")] * 1000, ids[:1000])).any()
    assert table.watermark == 98_000
    table.close()


def test_places_never_run_together() -> None:
    places = [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd"), ("1:a", "bc", "d"), ("a", "bcd", "")]
    assert len({seed_of(*each) for each in places}) == len(places)


@pytest.mark.parametrize(
    ("damage", "boot_id", "epoch"),
    [
        ("none", "another boot", "e"),
        ("none", "", "e"),
        ("none", BOOT, "another log"),
        ("head", BOOT, "e"),
        ("format", BOOT, "e"),
        ("cut", BOOT, "e"),
        ("empty", BOOT, "e"),
        ("gone", BOOT, "e"),
    ],
)
def test_a_file_that_may_have_lost_something_is_not_trusted(
    tmp_path: Path, damage: str, boot_id: str, epoch: str
) -> None:
    path = tmp_path / "t"
    table = new_table(path, epoch="e", entries=0, boot_id=BOOT)
    table.enter(numbers([7]), numbers([1]), watermark=3)  # and never closed
    if damage == "head":
        with path.open("r+b") as file:
            file.seek(20)
            file.write(struct.pack("<Q", 99))
    elif damage == "format":  # as an older release wrote it, as whole as this one
        with path.open("r+b") as file:
            head = b"cfdedup2" + file.read(dedup._HEAD.size)[8:]
            file.seek(0)
            file.write(head + struct.pack("<I", zlib.crc32(head)))
    elif damage == "cut":
        os.truncate(path, 10_000)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gone":
        path.unlink()
    with pytest.raises(UntrustedTableError):
        open_table(path, epoch=epoch, boot_id=boot_id)


def test_a_file_left_open_by_a_killed_process_is_trusted_while_the_machine_runs(tmp_path: Path) -> None:
    table = new_table(tmp_path / "t", epoch="e", entries=0, boot_id=BOOT)
    table.enter(numbers([7]), numbers([1]), watermark=3)
    again = open_table(tmp_path / "t", epoch="e", boot_id=BOOT)
    assert (again.watermark, again.entries, list(again.matches(7))) == (3, 1, [1])
    again.close()


async def test_records_are_known_after_a_restart_with_or_without_the_file(open_log: Reopen) -> None:
    rig = await open_log()
    await rig.appender.append(batch("acme", *(event(f"m{n}") for n in range(50))))
    rig = await open_log()
    (verdict,) = await rig.appender.append(batch("acme", event("m7")))
    assert (verdict.outcome, verdict.offset) == (Outcome.DUPLICATE, 7)
    path = rig.folder / "dedup.table"
    await rig.appender.close()
    path.unlink()
    rig.appender = await append_module.open_appender(rig.log, path, contracts=rig.contracts, ids=rig.ids)
    verdicts = await rig.appender.append(batch("acme", event("m49"), event("m50")))
    assert [(each.outcome, each.offset) for each in verdicts] == [(Outcome.DUPLICATE, 49), (Outcome.ACCEPTED, 50)]


async def test_a_table_behind_the_log_catches_up(open_log: Reopen, tmp_path: Path) -> None:
    rig = await open_log()
    await rig.appender.append(batch("acme", event("a")))
    path = rig.folder / "dedup.table"
    await rig.appender.close()
    behind = path.read_bytes()
    rig.appender = await append_module.open_appender(rig.log, path, contracts=rig.contracts, ids=rig.ids)
    await rig.appender.append(batch("zeta", event("a"), event("b"), source_id="s9"))
    await rig.appender.close()
    path.write_bytes(behind)
    rig.appender = await append_module.open_appender(rig.log, path, contracts=rig.contracts, ids=rig.ids)
    verdicts = await rig.appender.append(batch("zeta", event("b"), event("a"), source_id="s9"))
    assert [(each.outcome, each.offset) for each in verdicts] == [(Outcome.DUPLICATE, 1), (Outcome.DUPLICATE, 0)]


async def test_ids_are_known_for_so_many_days_and_then_forgotten(open_log: Reopen) -> None:
    rig = await open_log()
    path, day, start = rig.folder / "dedup.table", 86_400_000_000, 1_767_323_045_000_000

    async def open_again(*, anew: bool = False) -> None:
        await rig.appender.close()
        if anew:
            path.unlink()
        rig.appender = await append_module.open_appender(
            rig.log, path, contracts=rig.contracts, ids=rig.ids, keep=timedelta(days=30)
        )

    async def known(name: str, *, on: int) -> bool:
        (verdict,) = await rig.appender.append(batch("acme", event(name), received_at=start + on * day))
        return verdict.outcome is Outcome.DUPLICATE

    await open_again()
    assert not await known("a", on=0)
    assert not await known("b", on=29)
    assert not await known("c", on=31)  # another table is begun
    assert [await known(name, on=32) for name in "abc"] == [True, True, True]
    await open_again()
    assert [await known(name, on=33) for name in "abc"] == [True, True, True]
    assert not await known("d", on=62)  # and a third: the first is forgotten
    assert [await known(name, on=63) for name in "cd"] == [True, True]
    assert not await known("a", on=63)
    await open_again(anew=True)  # from the log, as far back as ids are kept
    assert [await known(name, on=64) for name in "acd"] == [True, False, True]
    assert rig.log.before(start + 31 * day) == (2, 4)
    assert rig.log.before(start) == (0, 6)
    assert rig.log.newest_at() == start + 64 * day


async def test_ids_that_share_a_hash_are_different_records(rig: LogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "hashes_of", lambda _seeds, ids: numbers([42] * len(ids)))
    await rig.appender.append(batch("acme", event("a"), event("b")))
    await rig.appender.append(batch("zeta", event("z")))
    first = await rig.appender.append(batch("acme", event("c"), event("b"), event("a"), source_id="s1"))
    assert [(each.outcome, each.offset) for each in first] == [
        (Outcome.ACCEPTED, 2),
        (Outcome.DUPLICATE, 1),
        (Outcome.DUPLICATE, 0),
    ]
    (other,) = await rig.appender.append(batch("acme", event("a"), source_id="s2"))
    assert other.outcome is Outcome.ACCEPTED
    together = (batch("acme", event("d"), event("e"), event("d")), batch("acme", event("e"), event("f")))
    told = await asyncio.gather(*map(rig.appender.append, together))
    assert [[(each.outcome.name, each.offset) for each in verdicts] for verdicts in told] == [
        [("ACCEPTED", 4), ("ACCEPTED", 5), ("DUPLICATE", 4)],
        [("DUPLICATE", 5), ("ACCEPTED", 6)],
    ]


def test_a_new_table_has_room_for_the_log_it_is_made_from() -> None:
    for count in (0, 1, 39_000, 40_000, 1_000_000):
        assert count <= 0.6 * dedup.capacity_for(count)
