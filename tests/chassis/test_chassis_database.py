from __future__ import annotations

import asyncio
import gc
import itertools
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from counterfoil_chassis.database import Database, StoreUnavailableError
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.migrate import prepare, require_newest, upgrade
from sqlalchemy import event, text

pytestmark = pytest.mark.both_engines


async def notes(database: Database) -> list[str]:
    async with database.read() as connection:
        return [row.text for row in await connection.execute(text("SELECT text FROM note ORDER BY text"))]


async def write(database: Database, note: str) -> None:
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO note VALUES (:note)"), {"note": note})


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_error(database: Database) -> None:
    await write(database, "kept")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the transaction is the statement
        async with database.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES ('lost')"))
            raise ZeroDivisionError
    assert await notes(database) == ["kept"]


@pytest.mark.sqlite
async def test_callbacks_run_after_the_commit_and_only_then(database: Database) -> None:
    seen: list[list[str]] = []
    with closing(sqlite3.connect(str(database.url).split("///")[1])) as other:

        def look() -> None:
            seen.append([row[0] for row in other.execute("SELECT text FROM note")])

        async with database.begin() as connection:
            database.after_commit(connection, look)
            await connection.execute(text("INSERT INTO note VALUES ('a')"))
            assert seen == []
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the transaction is the statement
            async with database.begin() as connection:
                database.after_commit(connection, look)
                raise ZeroDivisionError
    assert seen == [["a"]]
    async with database.read() as connection:
        with pytest.raises(LookupError):
            database.after_commit(connection, look)


async def test_many_writers_that_read_first_lose_no_update(database: Database) -> None:
    async def count_up() -> None:
        async with database.begin() as connection:
            present = (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one()
            await connection.execute(text("INSERT INTO note VALUES (:n)"), {"n": f"{present:04}"})

    await asyncio.gather(*(count_up() for _ in range(100)))
    assert await notes(database) == [f"{n:04}" for n in range(100)]


@pytest.mark.sqlite
async def test_writers_of_two_processes_wait_for_each_other(database: Database, url: str) -> None:
    other = Database(url)  # its own lock and connections, as another process has

    async def count_up(one: Database) -> None:
        async with one.begin() as connection:
            present = (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one()
            await connection.execute(text("INSERT INTO note VALUES (:n)"), {"n": f"{present:04}"})

    await asyncio.gather(*(count_up(each) for each in (database, other) for _ in range(10)))
    await other.close()
    assert await notes(database) == [f"{n:04}" for n in range(20)]


async def test_a_nested_transaction_is_refused_instead_of_waiting_for_itself(database: Database) -> None:
    async with database.begin():
        with pytest.raises(RuntimeError, match="inside"):
            async with database.begin():
                pass
    await write(database, "after")
    assert await notes(database) == ["after"]


async def test_a_read_sees_one_state_while_others_write(database: Database) -> None:
    await write(database, "a")
    async with database.read() as connection:
        count = text("SELECT count(*) FROM note")
        before = (await connection.execute(count)).scalar_one()
        await write(database, "b")
        assert (await connection.execute(count)).scalar_one() == before == 1
    assert len(await notes(database)) == 2


async def test_a_cancelled_transaction_is_rolled_back_and_the_next_one_works(database: Database) -> None:
    inside = asyncio.Event()

    async def waits() -> None:
        async with database.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES ('lost')"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await write(database, "kept")
    assert await notes(database) == ["kept"]


async def test_a_cancellation_at_any_moment_leaves_all_or_nothing(database: Database) -> None:
    outcome: dict[str, bool] = {}

    async def writes(note: str) -> None:
        async with database.begin() as connection:
            database.after_commit(connection, lambda: outcome.__setitem__(note, True))
            await connection.execute(text("INSERT INTO note VALUES (:note)"), {"note": note})

    for turns in range(60):
        task = asyncio.create_task(writes(f"{turns:02}"))
        await asyncio.sleep(turns * 0.0002)  # sweeps over the whole transaction
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await write(database, "zz")
    found = set(await notes(database))
    assert {"zz", *outcome} == found


async def test_a_cancelled_statement_keeps_nobody_from_writing_until_the_collector_finds_it(database: Database) -> None:
    beginning = asyncio.Event()

    async def writes() -> None:
        async with database.begin() as connection:
            for number in itertools.count():
                new = {"note": f"broken off {number}"}
                await connection.execute(text("INSERT INTO note VALUES (:note) RETURNING text"), new)
                beginning.set()
                await connection.execute(text("SELECT text FROM note"))

    kept: list[BaseException] = []  # as logs and tasks do for a while, with the frames that hold the statement
    gc.disable()
    try:
        for turns in range(40):
            beginning.clear()
            task = asyncio.create_task(writes())
            await beginning.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as broken:
                await task
            kept.append(broken.value)
            async with asyncio.timeout(5):
                await write(database, f"kept {turns:02}")
    finally:
        gc.enable()
    assert await notes(database) == [f"kept {turns:02}" for turns in range(len(kept))]


async def test_a_cancellation_during_the_commit_waits_for_its_end_and_its_callbacks(database: Database) -> None:
    told: list[str] = []

    async def writes() -> None:
        async with database.begin() as connection:
            database.after_commit(connection, lambda: told.append("committed"))
            await connection.execute(text("INSERT INTO note VALUES ('kept')"))

    task = asyncio.create_task(writes())
    event.listen(database._writes.sync_engine, "commit", lambda _connection: task.cancel())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["committed"]
    assert await notes(database) == ["kept"]


@pytest.mark.sqlite
async def test_the_file_is_durable_and_checked(database: Database) -> None:
    async with database.read() as connection:
        found = {
            name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10000}


def test_upgrading_twice_changes_nothing(url: str, package: str) -> None:
    upgrade(url, package)
    prepare(url, package)
    require_newest(url, package)


@pytest.mark.sqlite
def test_a_database_of_a_newer_release_is_refused(url: str, package: str) -> None:
    with closing(sqlite3.connect(url.split("///")[1])) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
        connection.commit()
    for check in (upgrade, prepare, require_newest):
        with pytest.raises(StartError, match="newer release"):
            check(url, package)


def test_an_older_database_is_refused_with_the_command_to_run(url: str, package: str, tmp_path: Path) -> None:
    newer = "revision = '0002'\ndown_revision = '0001'\n\n\ndef upgrade():\n    pass\n"
    (tmp_path / "code" / package / "migrations" / "0002_more.py").write_text(newer)
    with pytest.raises(StartError, match=f"python -m {package} migrate"):
        require_newest(url, package)
    upgrade(url, package)
    require_newest(url, package)


@pytest.mark.sqlite
def test_a_migration_that_fails_leaves_nothing_behind(url: str, package: str, tmp_path: Path) -> None:
    broken = (
        "from alembic import op\n\nrevision = '0002'\ndown_revision = '0001'\n\n\n"
        "def upgrade():\n    op.execute('CREATE TABLE half (a INT)')\n    raise ValueError('broken')\n"
    )
    path = tmp_path / "code" / package / "migrations" / "0002_broken.py"
    path.write_text(broken)
    with pytest.raises(ValueError, match="broken"):
        upgrade(url, package)
    with closing(sqlite3.connect(url.split("///")[1])) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert "half" not in tables
    assert revision == ("0001",)


@pytest.mark.sqlite
def test_a_database_that_cannot_be_opened_is_one_clear_line(tmp_path: Path, package: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "noise.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StartError, match="cannot be created"):
        upgrade(f"sqlite+aiosqlite:///{tmp_path}/file/x.db", package)
    with pytest.raises(StartError, match="cannot be opened"):
        upgrade(f"sqlite+aiosqlite:///{tmp_path}/noise.db", package)


@pytest.mark.sqlite
async def test_a_file_that_cannot_be_opened_leaves_no_thread_that_speaks_to_a_closed_loop(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'probe.db'}")
    try:
        with pytest.raises(StoreUnavailableError):
            await notes(database)
        assert not [thread for thread in set(threading.enumerate()) - before if thread.daemon]
    finally:
        await database.close()
