"""Backups of one moment, what is refused to be one, and rows that are compared in any order."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from counterfoil_chassis import migrate
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.stores import stores
from counterfoil_cli.backups import erasing, manifest
from counterfoil_cli.backups.cut import cut
from counterfoil_cli.backups.databases import SERVER, Place, places
from counterfoil_cli.backups.moving import move
from counterfoil_cli.backups.restoring import restore
from counterfoil_cli.backups.rows import Digest, Shape, sqlite_rows
from counterfoil_cli.backups.taking import Telling, take
from counterfoil_cli.folder import RESTORING, hold, open_folder
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, Text

from tests.postgres import Server, direct
from tests.system import golden_folder

QUIET = Telling.nothing()


@pytest.fixture(autouse=True)
def _no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no process: nothing here asks for an erasure."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a service was started")

    monkeypatch.setattr("counterfoil_cli.backups.erasing.Running.start", refuse)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped installation's folder, at this release's revisions."""
    data = tmp_path_factory.mktemp("original")
    golden_folder.unpack(data)
    for service, store in stores().items():
        migrate.upgrade(f"sqlite+aiosqlite:///{data / f'{service}.db'}", store.migrations)
    return data


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(original, tmp_path / "data"))


@pytest.fixture(scope="module")
def backup(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    to = tmp_path_factory.mktemp("backups") / "backup"
    take(original, to, {}, keys=True, telling=QUIET)
    return to


def test_a_copy_of_sqlite_stays_at_the_moment_its_reader_began(tmp_path: Path):
    file = tmp_path / "busy.db"
    with (
        closing(sqlite3.connect(file, isolation_level=None)) as writer,
        closing(sqlite3.connect(file, isolation_level=None)) as reader,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE n (n INTEGER PRIMARY KEY, filling BLOB)")
        writer.executemany("INSERT INTO n VALUES (?, zeroblob(3000))", ((n,) for n in range(1000)))
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM n").fetchone() == (1000,)
        steps = 0

        def write_between(_status: int, _left: int, _total: int) -> None:
            nonlocal steps
            steps += 1
            writer.execute("INSERT INTO n VALUES (?, zeroblob(3000))", (1000 + steps,))
            writer.execute("UPDATE n SET filling = zeroblob(2000) WHERE n = ?", (steps,))
            writer.execute("PRAGMA wal_checkpoint(PASSIVE)")

        reader.backup(copy, pages=20, progress=write_between, sleep=0)
        assert steps > 10
        assert copy.execute("SELECT count(*), min(length(filling)) FROM n").fetchone() == (1000, 3000)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_cut_is_one_moment_of_all_databases_under_writers(data: Path):
    found = places(data, {})
    stopped = threading.Event()
    written = 0

    def write() -> None:
        """Write to one service, then to the one that it calls, for ever: never is the second ahead of the first."""
        nonlocal written
        with (
            closing(sqlite3.connect(data / "models.db", isolation_level=None, timeout=20)) as caller,
            closing(sqlite3.connect(data / "governance.db", isolation_level=None, timeout=20)) as callee,
        ):
            for connection in (caller, callee):
                connection.execute("CREATE TABLE probe (n INTEGER PRIMARY KEY)")
            while not stopped.is_set():
                written += 1
                for connection in (caller, callee):
                    connection.execute("INSERT INTO probe VALUES (?)", (written,))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while written < 50:
            await asyncio.sleep(0.01)
        for _ in range(20):
            before = written
            async with cut(found, spool=data / "imports") as moment:
                while written < before + 5:  # nobody is held any more
                    await asyncio.sleep(0.001)
                [caller], [callee] = (
                    moment.files[name].execute("SELECT count(*) FROM probe").fetchone()
                    for name in ("models", "governance")
                )
            assert callee <= caller <= callee + 1
            assert caller >= before - 1
            assert moment.held_seconds < 5
    finally:
        stopped.set()
        thread.join()


def test_a_file_of_the_spool_is_read_though_it_is_deleted_after_the_cut(data: Path, tmp_path: Path, monkeypatch: Any):
    spooled = data / "imports" / "pending"
    spooled.write_bytes(b"rows")
    (data / "imports" / "half.part").write_bytes(b"ro")

    def imported(*_: object) -> None:
        spooled.unlink(missing_ok=True)

    made = take(data, tmp_path / "backup", {}, keys=True, telling=Telling(imported, lambda _count: None))
    assert (tmp_path / "backup" / "imports" / "pending").read_bytes() == b"rows"
    assert "imports/half.part" not in made.files
    assert not any(name.startswith(("lake/", "logs/")) for name in made.files)


def test_a_backup_that_was_broken_off_is_none(data: Path, tmp_path: Path):
    class Killed(BaseException):
        pass

    def kill(name: str, _total: int | None) -> None:
        if name == "graph.db":
            raise Killed

    with pytest.raises(Killed):
        take(data, tmp_path / "backup", {}, keys=True, telling=Telling(kill, lambda _count: None))
    with pytest.raises(StartError, match="broken off: it has no manifest"):
        manifest.read(tmp_path / "backup")
    with pytest.raises(StartError, match="maybe of a backup that was broken off"):
        take(data, tmp_path / "backup", {}, keys=True, telling=QUIET)


def test_a_damaged_file_is_named_and_nothing_is_restored(backup: Path, tmp_path: Path):
    spoiled = Path(shutil.copytree(backup, tmp_path / "backup"))
    for name, spoil in (("stores/graph.db", _flip), ("keys/gateway.pem", Path.unlink)):
        spoil(spoiled / name)
        with pytest.raises(StartError, match=name):
            restore(spoiled, tmp_path / "restored", {}, erasures_from=[], telling=QUIET)
        assert not (tmp_path / "restored").exists()
        shutil.copy(backup / name, spoiled / name)
    restore(spoiled, tmp_path / "restored", {}, erasures_from=[], telling=QUIET)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_keys_are_private_and_can_be_kept_elsewhere(original: Path, backup: Path, tmp_path: Path):
    assert all(file.stat().st_mode & 0o077 == 0 for file in (backup / "keys").glob("*.pem"))
    assert (backup / "admin.key").stat().st_mode & 0o077 == 0
    without = tmp_path / "without"
    take(original, without, {}, keys=False, telling=QUIET)
    assert not [name for name in manifest.read(without).files if "key" in name]
    with pytest.raises(StartError, match=r"put keys/ and admin\.key"):
        restore(without, tmp_path / "data", {}, erasures_from=[], telling=QUIET)
    with pytest.raises(StartError, match="is being restored, or that was broken off"):
        open_folder(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(original / "keys", tmp_path / "data" / "keys")
    shutil.copy(original / "admin.key", tmp_path / "data")
    restore(without, tmp_path / "data", {}, erasures_from=[], telling=QUIET)
    assert not (tmp_path / "data" / RESTORING).exists()


def test_a_backup_goes_to_postgresql_and_comes_back_with_what_was_erased_there(
    backup: Path, postgres: Server, tmp_path: Path
):
    server = f"{postgres.url}/restored"
    done = restore(backup, tmp_path / "data", {SERVER: server}, erasures_from=[], telling=QUIET)
    assert not list((tmp_path / "data").glob("*.db"))
    with pytest.raises(StartError, match="was filled from another source"):
        restore(backup, tmp_path / "other", {SERVER: server}, erasures_from=[], telling=QUIET)

    take(tmp_path / "data", tmp_path / "again", {SERVER: server}, keys=True, telling=QUIET)
    before, after = manifest.read(backup), manifest.read(tmp_path / "again")
    assert (after.log["heads"], after.workspaces) == (before.log["heads"], before.workspaces)
    assert (after.log["log_epoch"], after.log["predecessors"]) == (done.log_epoch, [before.log["log_epoch"]])
    for service, said in before.services.items():
        expected = dict(said["tables"])
        if service == "ingest":
            expected["outbox"] += len(before.workspaces)
            expected["log_state"] += 1
        assert after.services[service]["tables"] == expected

    request = "'golden', '01a2', 'erasure', 'email', '\\x00', '', 'admin', 1, 2"
    with direct(f"{server}_governance") as governance:
        governance.execute(f"INSERT INTO privacy_requests VALUES ({request})")
        for number, released in (("01a3", "NULL"), ("01a4", "3")):
            hold = f"'golden', '{number}', 'visits', '', '\\x', 'case', 'legal', NULL, 'admin', 1, '', {released}, ''"
            governance.execute(f"INSERT INTO legal_holds VALUES ({hold})")
    with pytest.raises(AssertionError, match="a service was started"):  # it is to be carried out
        restore(backup, tmp_path / "later", {}, erasures_from=[server], telling=QUIET)
    with closing(sqlite3.connect(tmp_path / "later" / "governance.db")) as governance:
        assert governance.execute("SELECT privacy_request_id FROM privacy_requests").fetchall() == [("01a2",)]
        assert governance.execute("SELECT legal_hold_id FROM legal_holds").fetchall() == [("01a3",)]
    with pytest.raises(StartError, match="is being restored, or that was broken off"):
        open_folder(tmp_path / "later")


def test_a_restore_takes_an_empty_folder_only(backup: Path, data: Path):
    with pytest.raises(StartError, match="is not empty"):
        restore(backup, data, {}, erasures_from=[], telling=QUIET)


def test_to_move_a_running_installation_or_one_of_another_revision_is_refused(data: Path, tmp_path: Path):
    nowhere = {"COUNTERFOIL_DATABASE_URL": "postgresql://nobody@127.0.0.1:9"}
    lock = hold(data / "lock")
    with pytest.raises(StartError, match="in use by another start"):
        move(data, nowhere, telling=QUIET)
    os.close(lock)
    with closing(sqlite3.connect(data / "graph.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(StartError, match=r"is at revision 0001, .* start the installation once with this release"):
        move(data, nowhere, telling=QUIET)


def test_erasures_are_carried_out_in_the_restored_folder_whatever_the_environment_names(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    started: dict[str, Mapping[str, str]] = {}
    monkeypatch.setattr(erasing.Running, "start", lambda _self, name, variables: started.update({name: variables}))
    user = {"COUNTERFOIL_DATA_DIR": "/elsewhere", "COUNTERFOIL_INGEST_LISTEN": "127.0.0.1:7101", "PATH": "/bin"}
    with erasing.running(data, user, admin_key_sha256="00"):
        pass
    assert list(started) == ["governance", "contracts", "ingest", "graph"]
    for variables in started.values():
        assert variables["COUNTERFOIL_DATA_DIR"] == str(data)
        assert (
            variables["COUNTERFOIL_INGEST_LISTEN"] == variables["COUNTERFOIL_GRAPH_INGEST_TARGET"] != "127.0.0.1:7101"
        )
        assert variables["PATH"] == "/bin"


Rows = list[tuple[int, str | None, bytes | None]]


@given(st.lists(st.tuples(st.integers(), st.none() | st.text(), st.none() | st.binary(max_size=200)), unique=True))
def test_a_digest_is_of_the_rows_whatever_their_order(rows: Rows):
    straight, shuffled, fewer = Digest(), Digest(), Digest()
    straight.add(rows)
    mixed = random.Random(1).sample(rows, len(rows))
    shuffled.add(mixed[:2])
    shuffled.add(mixed[2:])
    assert straight == shuffled
    fewer.add(rows[1:])
    assert (straight == fewer) is (not rows)
    for place, row in enumerate(rows):
        changed = Digest()
        changed.add([*rows[:place], (row[0] + 1, *row[1:]), *rows[place + 1 :]])
        assert changed.text != straight.text


def test_rows_come_by_key_and_go_on_after_those_that_are_there(tmp_path: Path):
    table = Table("order", MetaData(), Column("a", Text, primary_key=True), Column("index", Integer, primary_key=True))
    shape = Shape.of(table)
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
        connection.execute('CREATE TABLE "order" (a TEXT, "index" INTEGER, PRIMARY KEY (a, "index"))')
        rows = [(f"é{n % 7}", n) for n in range(12_000)]
        connection.executemany(shape.insert, rows)
        all_of_them = [row for batch in sqlite_rows(connection, shape) for row in batch]
        assert len(all_of_them) == 12_000
        assert all_of_them == sorted(rows, key=lambda row: (row[0].encode(), row[1]))
        for there in (0, 1, 5_000, 12_000):
            assert [row for batch in sqlite_rows(connection, shape, skip=there) for row in batch] == all_of_them[there:]


def test_a_place_is_shown_without_its_password():
    place = Place(stores()["graph"], "postgresql+asyncpg://me:secret@somewhere/counterfoil_graph")
    assert "secret" not in place.shown
