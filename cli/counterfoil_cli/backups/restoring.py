"""Restore a backup into an empty folder: a new life of the log, and erasures carried out again before it is served."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from counterfoil_chassis.clock import SystemClock, SystemIds, to_micros
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.migrate import create, upgrade
from counterfoil_chassis.postgresql import is_postgresql
from counterfoil_chassis.stores import Restored, stores

from counterfoil_cli.backups import copying, erasing, manifest
from counterfoil_cli.backups.cut import opened
from counterfoil_cli.backups.databases import SERVER, Place, connected, places
from counterfoil_cli.backups.manifest import Manifest
from counterfoil_cli.backups.taking import ADMIN_KEY, KEYS, STORES, Telling
from counterfoil_cli.folder import RESTORING, hold

_ALLOWED = frozenset({KEYS, ADMIN_KEY, "lock"})


@dataclass(frozen=True)
class Done:
    """What a restore made: of which backup, the log's new life, erasures carried out again by workspace, from where."""

    backup: Manifest
    log_epoch: str
    erasures: Mapping[str, int]
    newer: Sequence[str]


def restore(
    backup: Path, data: Path, environment: Mapping[str, str], *, erasures_from: Sequence[str], telling: Telling
) -> Done:
    """Restore into a folder that holds nothing but keys, and into empty databases where the settings name a server.

    Raises StartError. What is broken off leaves a folder that cannot be started.
    """
    backup, data = backup.absolute(), data.absolute()
    made = manifest.read(backup)
    telling.step("verify", made.size)
    manifest.verify(backup, made, on_bytes=telling.advance)
    found = places(data, environment)
    newer = list(erasures_from) or [str(folder) for folder in newer_beside(backup, made)]
    _make_empty(data)
    lock = hold(data / "lock")
    try:
        mark = data / RESTORING
        mark.write_text("This folder is being restored. It is complete, and can be started, once this file is gone.\n")
        manifest.sync_folder(data)
        _copy_files(backup, data, made, telling=telling)
        # Beside the data, not in /tmp: that is often small, and whoever may read here may read it.
        with TemporaryDirectory(prefix=".restoring-", dir=data) as folder:
            done = _restore_stores(backup, found, made, newer=newer, telling=telling, passing=Path(folder))
        _erase(data, found, environment, telling=telling)
        mark.unlink()
        manifest.sync_folder(data)
    finally:
        os.close(lock)
    return done


def newer_beside(backup: Path, made: Manifest) -> list[Path]:
    """Return the backups in the same folder that were taken later of the same installation, the oldest first."""
    found: list[tuple[str, Path]] = []
    for file in backup.parent.glob(f"*/{manifest.NAME}"):
        if file.parent == backup:
            continue
        other = manifest.read(file.parent)
        lives = {other.log["log_epoch"], *other.log["predecessors"]}
        if other.taken_at > made.taken_at and made.log["log_epoch"] in lives:
            found.append((other.taken_at, file.parent))
    return [folder for _, folder in sorted(found)]


def _make_empty(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = sorted(each.name for each in data.iterdir() if each.name not in _ALLOWED)
    except OSError as error:
        raise StartError(f"{data} cannot be used: {error.strerror or error}; choose another --data.") from error
    if there:
        broken = "; a restore into it was broken off: delete it" if RESTORING in there else ""
        raise StartError(
            f"{data} is not empty (it has {there[0]}){broken}. Name an empty folder with --data; only {KEYS}/ and "
            f"{ADMIN_KEY} may lie in it."
        )


def _copy_files(backup: Path, data: Path, made: Manifest, *, telling: Telling) -> None:
    """Copy what lies in the backup as it does in a data folder; keys that are there already are kept."""
    for name in made.files:
        to = data / name
        if name.startswith(f"{STORES}/") or to.exists():
            continue
        telling.step(name, None)
        with (backup / name).open("rb") as file:
            manifest.copy(file, to, on_bytes=telling.advance)
    missing = [name for name in (f"{KEYS}/governance.pem", ADMIN_KEY) if not (data / name).exists()]
    if missing:
        raise StartError(
            f"The backup was taken without keys: put {KEYS}/ and {ADMIN_KEY} of the installation into an empty {data}, "
            "then restore again. Pseudonyms, votes and checkpoints are made with those keys."
        )


def _restore_stores(
    backup: Path,
    found: Mapping[str, Place],
    made: Manifest,
    *,
    newer: Sequence[str],
    telling: Telling,
    passing: Path,
) -> Done:
    clock = SystemClock()
    ids = SystemIds(clock)
    # On PostgreSQL a file is only the way there.
    files = {name: place.file or passing / f"{name}.db" for name, place in found.items()}
    for name, file in files.items():
        telling.step(f"{name}.db", made.files[f"{STORES}/{name}.db"].size)
        with (backup / STORES / f"{name}.db").open("rb") as source:
            manifest.copy(source, file, on_bytes=telling.advance)
        upgrade(f"sqlite+aiosqlite:///{file}", found[name].store.migrations)
    erasures = _take_over(files["governance"], newer, passing)
    restored = Restored(
        log_epoch=ids.new(),
        now_us=to_micros(clock.now()),
        new_id=ids.new,
        backup_taken_at=made.taken_at,
        workspaces=made.workspaces,
        erasures=erasures,
    )
    with closing(sqlite3.connect(files["ingest"])) as connection, connection:
        importlib.import_module(found["ingest"].store.restoring).restore(connection, restored)
    for name, place in found.items():
        if place.file is None:
            origin = f"the backup of {made.taken_at}, life {restored.log_epoch}"
            _fill(files[name], place, source=origin, telling=telling)
    return Done(made, restored.log_epoch, erasures, newer)


def _fill(file: Path, place: Place, *, source: str, telling: Telling) -> None:
    """Make a service's database on the server where it is missing, and fill it from a SQLite file."""
    create(place.url)
    upgrade(place.url, place.store.migrations)
    telling.step(f"{place.service} (rows)", None)
    asyncio.run(copying.to_postgresql(file, place, source=source, on_rows=lambda _table, rows: telling.advance(rows)))


def _take_over(file: Path, newer: Sequence[str], passing: Path) -> Mapping[str, int]:
    """Merge the erasures of newer data into governance; return how many there are by workspace."""
    governance = importlib.import_module(stores()["governance"].restoring)
    taken: dict[str, int] = {}
    for place in newer:
        with _governance_of(place, passing) as source, closing(sqlite3.connect(file)) as connection, connection:
            for workspace, count in governance.merge(connection, source).items():
                taken[workspace] = max(taken.get(workspace, 0), count)
    return taken


@contextmanager
def _governance_of(place: str, passing: Path) -> Iterator[sqlite3.Connection]:
    """Open governance's database of a backup, of a data folder, or on a server, to be read."""
    with ExitStack() as stack:
        if is_postgresql_url(place):
            file = Path(stack.enter_context(TemporaryDirectory(dir=passing))) / "newer.db"
            asyncio.run(_dumped(places(file.parent, {SERVER: place})["governance"], file))
        else:
            folders = (Path(place) / STORES, Path(place))
            file = next((each / "governance.db" for each in folders if (each / "governance.db").exists()), Path())
            if not file.name:
                raise StartError(f"{place} is neither a backup nor a data folder: it has no governance.db.")
        yield stack.enter_context(closing(opened(file)))


async def _dumped(place: Place, file: Path) -> None:
    connection = await connected(place)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await copying.to_sqlite(connection, file, place.store, on_rows=lambda _table, _rows: None)
    finally:
        await connection.close()


def is_postgresql_url(text: str) -> bool:
    """Tell whether a text is a URL of PostgreSQL, and not a folder."""
    return "://" in text and is_postgresql(text)


def _erase(data: Path, found: Mapping[str, Place], environment: Mapping[str, str], *, telling: Telling) -> None:
    """Have every erasure carried out that is not reported."""
    place = found["governance"]
    query = importlib.import_module(place.store.restoring).OUTSTANDING
    with outstanding(place, query) as counts:
        left = next(counts)
        if not left:
            return
        telling.step("erasures", left)
        key = hashlib.sha256((data / ADMIN_KEY).read_text().strip().encode()).hexdigest()
        with erasing.running(data, environment, admin_key_sha256=key) as started:
            erasing.wait_until_none(counts, started)


@contextmanager
def outstanding(place: Place, query: str) -> Iterator[Iterator[int]]:
    """Give a count as often as it is asked for."""
    if place.file is not None:
        with closing(opened(place.file)) as reader:
            yield iter(lambda: int(reader.execute(query).fetchone()[0]), None)
        return
    with asyncio.Runner() as runner:
        connection = runner.run(connected(place))
        try:
            yield iter(lambda: int(runner.run(connection.fetchval(query))), None)
        finally:
            runner.run(connection.close())
