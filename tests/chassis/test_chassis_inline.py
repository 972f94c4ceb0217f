"""Reads in the event loop itself: one state, short, and never in the way of whoever writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from counterfoil_chassis import inline
from counterfoil_chassis.database import Database, StoreUnavailableError
from counterfoil_chassis.inline import InlineReads, NotInlineError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "notes.db")) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE note (number INTEGER)")
        database.executemany("INSERT INTO note VALUES (?)", [(n,) for n in range(3)])
    return tmp_path / "notes.db"


@pytest.fixture
def reads(path: Path) -> Iterator[InlineReads]:
    reads = InlineReads(str(path))
    yield reads
    reads.close()


COUNT = "SELECT COUNT(*) FROM note WHERE number < :below"


def test_a_block_sees_one_state_and_the_next_block_what_was_written_meanwhile(path: Path, reads: InlineReads) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        with reads.read() as read:
            assert read.rows(COUNT, {"below": 10}) == [(3,)]
            other.execute("INSERT INTO note VALUES (3)")
            assert read.rows(COUNT, {"below": 10}) == [(3,)]
        with reads.read() as read:
            assert read.rows(COUNT, {"below": 10}) == [(4,)]
        # nothing is held after a block: what was erased can be overwritten on disk
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def test_what_is_more_than_the_loop_can_wait_for_is_not_read(
    reads: InlineReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "MOST_ROWS", 2)
    with pytest.raises(NotInlineError), reads.read() as read:
        read.rows("SELECT number FROM note", {})
    with reads.read() as read:
        assert read.rows("SELECT number FROM note WHERE number < :below", {"below": 2}) == [(0,), (1,)]


def test_nothing_is_written_and_no_block_is_within_another(reads: InlineReads) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"), reads.read() as read:
        read.rows("DELETE FROM note", {})
    with reads.read(), pytest.raises(RuntimeError, match="came between"), reads.read():
        pass
    with reads.read() as read:
        assert read.rows(COUNT, {"below": 10}) == [(3,)]


def test_a_file_that_somebody_keeps_to_himself_is_not_waited_for(path: Path, reads: InlineReads) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("COMMIT")
        with pytest.raises(NotInlineError), reads.read() as read:
            read.rows(COUNT, {"below": 10})


async def test_a_database_that_is_unwell_is_told_as_such(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'notes.db'}")
    with pytest.raises(StoreUnavailableError), database.read_inline():
        pass
    await database.close()
