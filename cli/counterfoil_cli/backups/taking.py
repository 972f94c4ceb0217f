"""Take a backup: one moment of every store, copied while the installation goes on."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.migrate import require_newest

from counterfoil_cli.backups import copying, manifest
from counterfoil_cli.backups.cut import Cut, cut, opened
from counterfoil_cli.backups.databases import REBUILT, Place, places
from counterfoil_cli.backups.manifest import Kept, Manifest

STORES = "stores"
KEYS = "keys"
ADMIN_KEY = "admin.key"
SPOOL = "imports"
_PAGES = 2_048  # copied before the progress is told: 8 MiB


@dataclass(frozen=True)
class Telling:
    """How a long copy is told: what is done now, and bytes or rows of it."""

    step: Callable[[str, int | None], None]
    advance: Callable[[int], None]

    @classmethod
    def nothing(cls) -> Telling:
        """Return one that tells nothing."""
        return cls(lambda _name, _total: None, lambda _count: None)


def take(data: Path, to: Path, environment: Mapping[str, str], *, keys: bool, telling: Telling) -> Manifest:
    """Write a backup into a new or empty folder; raise StartError when that cannot be done.

    What is broken off leaves a folder without a manifest, which nothing takes for a backup.
    """
    found = places(data, environment)
    for place in found.values():
        if place.file is not None and not place.file.exists():
            raise StartError(f"{place.file} is not there: is {data} the data folder, and {place.service} there, too?")
    _make_empty(to)
    return asyncio.run(_take(data, to, found, keys=keys, telling=telling))


async def _take(data: Path, to: Path, found: Mapping[str, Place], *, keys: bool, telling: Telling) -> Manifest:
    files: dict[str, Kept] = {}
    services: dict[str, dict[str, Any]] = {}
    async with cut(found, spool=data / SPOOL) as moment:
        taken_at = datetime.now(UTC)
        for name, place in found.items():
            file = to / STORES / f"{name}.db"
            file.parent.mkdir(mode=0o700, exist_ok=True)
            await _copy_store(moment, place, file, telling=telling)
            files[f"{STORES}/{name}.db"] = _made_durable(file, telling=telling)
            services[name] = _described(place, file)
        for name, spooled in moment.spooled.items():
            inside = f"{SPOOL}/{name}"
            telling.step(inside, None)
            files[inside] = manifest.copy(spooled, to / inside, on_bytes=telling.advance)
    # Content-addressed files are only ever added, so that those of the moment are still there.
    for file in _others(data, found, keys=keys):
        inside = str(file.relative_to(data))
        telling.step(inside, None)
        with file.open("rb") as source:
            files[inside] = manifest.copy(source, to / inside, on_bytes=telling.advance)
    for folder in sorted({(to / name).parent for name in files}):
        manifest.sync_folder(folder)
    made = Manifest(
        taken_at=taken_at.isoformat(timespec="milliseconds"),
        release=importlib.metadata.version("counterfoil-chassis"),
        held_seconds=moment.held_seconds,
        keys=keys,
        services=services,
        files=files,
    )
    made.write(to)
    return made


async def _copy_store(moment: Cut, place: Place, file: Path, *, telling: Telling) -> None:
    if place.service in moment.servers:
        await asyncio.to_thread(require_newest, place.url, place.store.migrations)
        telling.step(f"{place.service} (rows)", None)
        connection = moment.servers[place.service]
        await copying.to_sqlite(connection, file, place.store, on_rows=lambda _table, rows: telling.advance(rows))
        return
    reader = moment.files[place.service]
    page = reader.execute("PRAGMA page_size").fetchone()[0]
    telling.step(f"{place.service}.db", reader.execute("PRAGMA page_count").fetchone()[0] * page)
    done = 0

    def progress(_status: int, left: int, total: int) -> None:
        nonlocal done
        telling.advance((total - left) * page - done)
        done = (total - left) * page

    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        reader.backup(writer, pages=_PAGES, progress=progress, sleep=0)
        writer.execute("PRAGMA journal_mode = DELETE")  # so that to read it needs no file beside it


def _made_durable(file: Path, *, telling: Telling) -> Kept:
    file.chmod(0o600)
    telling.step(f"{file.name} (hash)", file.stat().st_size)
    with file.open("rb") as whole:
        os.fsync(whole.fileno())
        return manifest.hashed(whole, on_bytes=telling.advance)


def _described(place: Place, file: Path) -> dict[str, Any]:
    """Return what the manifest says of a service's copy."""
    with closing(opened(file)) as reader:
        [[revision]] = reader.execute("SELECT version_num FROM alembic_version").fetchall()
        said = importlib.import_module(place.store.restoring).describe(reader) if place.store.restoring else {}
        rows = copying.counts(reader)
    return {
        "engine": "sqlite" if place.file is not None else "postgresql",
        "revision": revision,
        "tables": rows,
        "described": said,
    }


def _others(data: Path, found: Mapping[str, Place], *, keys: bool) -> Iterator[Path]:
    """Yield what else belongs to it and lies in the backup as it does in the data folder."""
    folders = sorted({name for place in found.values() for name in place.store.files} - REBUILT - {SPOOL})
    for name in folders:
        yield from manifest.files_below(data / name)
    if keys:
        yield from manifest.files_below(data / KEYS)
        yield from data.glob(ADMIN_KEY)


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = next(folder.iterdir(), None)
    except OSError as error:
        raise StartError(f"{folder} cannot be used: {error.strerror or error}; name another one with --to.") from error
    if found is not None:
        broken = "" if (folder / manifest.NAME).exists() else ", maybe of a backup that was broken off: delete it,"
        raise StartError(f"{folder} holds files{broken} or name a new folder with --to.")
