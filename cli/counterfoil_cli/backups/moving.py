"""Move a stopped installation's databases from SQLite files to PostgreSQL; the files are only read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.lease import FileLease, TableLease, held, lease_of
from counterfoil_chassis.migrate import create, newest_revisions, upgrade

from counterfoil_cli.backups import copying
from counterfoil_cli.backups.cut import ORDER, opened
from counterfoil_cli.backups.databases import Place, places
from counterfoil_cli.backups.taking import Telling
from counterfoil_cli.folder import RESTORING, hold

_LEASE_SECONDS = 30.0


def move(data: Path, to: Mapping[str, str], *, telling: Telling) -> Mapping[str, Sequence[copying.Copied]]:
    """Copy every service's database to the server that the settings `to` name, or go on where that was broken off.

    Raises StartError when the installation runs, when a file is of another revision than this release's, when a
    database has other rows, or when in the end a table does not have the very rows of its file.
    """
    data = data.absolute()
    sources, targets = places(data, {}), places(data, to)
    if (data / RESTORING).exists():
        raise StartError(f"{data} is being restored, or that was broken off: restore the backup again.")
    for place in sources.values():
        if not _file(place).exists():
            raise StartError(f"{place.shown} is not there: is {data} the data folder?")
    lock = hold(data / "lock")
    try:
        return asyncio.run(_move(sources, targets, telling=telling))
    finally:
        os.close(lock)


async def _move(
    sources: Mapping[str, Place], targets: Mapping[str, Place], *, telling: Telling
) -> Mapping[str, Sequence[copying.Copied]]:
    copied: dict[str, Sequence[copying.Copied]] = {}
    async with AsyncExitStack() as stack:
        for place in sources.values():
            await _hold(stack, place, FileLease(_file(place)))
            _require_newest(place)
        with closing(opened(_file(sources["ingest"]))) as reader:
            [[life]] = reader.execute("SELECT value FROM log_state WHERE name = 'epoch'").fetchall() or [[""]]
        for name in ORDER:
            target = targets[name]
            await asyncio.to_thread(create, target.url)
            await asyncio.to_thread(upgrade, target.url, target.store.migrations)
            await _hold(stack, target, lease_of(name, target.url, seconds=_LEASE_SECONDS))
            telling.step(f"{name} (rows)", None)
            copied[name] = await copying.to_postgresql(
                _file(sources[name]),
                target,
                source=f"the life {life} of the log",
                on_rows=lambda _table, rows: telling.advance(rows),
            )
    return copied


async def _hold(stack: AsyncExitStack, place: Place, lease: FileLease | TableLease) -> None:
    """Have the right to write a service's database, and renew it, until the stack is left."""
    if not await lease.taken():
        raise StartError(f"{place.service} runs and writes {place.shown}: stop it, then try again.")
    await stack.enter_async_context(held(lease))
    renewing = asyncio.create_task(lease.keep())
    stack.callback(renewing.cancel)


def _require_newest(place: Place) -> None:
    """Refuse a file that another release wrote: to upgrade it would write it."""
    with closing(opened(_file(place))) as reader:
        found = [row[0] for row in reader.execute("SELECT version_num FROM alembic_version")]
    newest = newest_revisions(place.store.migrations)
    if found != newest:
        raise StartError(
            f"{place.shown} is at revision {', '.join(found)}, this release's is {', '.join(newest)}: start the "
            "installation once with this release, which upgrades its files, stop it, then try again."
        )


def _file(place: Place) -> Path:
    if place.file is None:
        raise StartError(f"{place.service} keeps its data in {place.shown} already.")
    return place.file
