"""One moment of every store: all writers are held while a reading transaction is opened on each database.

The databases are held in the order of calls, callers first: whoever writes while it calls another service is waited for
before that service is held, so nobody waits for somebody who waits for us.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.postgresql import NO_TABLE, PgConnection, sqlstate

from counterfoil_cli.backups.databases import Place, connected

ORDER = ("models", "graph", "ingest", "contracts", "governance")
_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.0002
_HOLD = "SELECT 1 FROM lease WHERE name = $1 FOR UPDATE"


@dataclass(frozen=True)
class Cut:
    """Open reading transactions, all of one moment: of SQLite files and of PostgreSQL servers, by service.

    `spooled` are the files that were uploaded and not yet read to their end: open, so that they stay readable even when
    they are deleted meanwhile.
    """

    files: Mapping[str, sqlite3.Connection]
    servers: Mapping[str, PgConnection]
    spooled: Mapping[str, IO[bytes]]
    held_seconds: float


@asynccontextmanager
async def cut(places: Mapping[str, Place], *, spool: Path) -> AsyncIterator[Cut]:
    """Hold every writer for a moment and open the cut; the spool's files are opened then, too.

    Raises StartError when a writer does not end its transaction within half a minute.
    """
    files: dict[str, sqlite3.Connection] = {}
    servers: dict[str, PgConnection] = {}
    async with AsyncExitStack() as stack:
        readers = {name: await _reader(stack, places[name]) for name in ORDER}
        async with AsyncExitStack() as held:
            began = 0.0
            for name in ORDER:
                await _hold(held, places[name])
                began = began or time.monotonic()
            for name, reader in readers.items():
                if isinstance(reader, sqlite3.Connection):
                    reader.execute("BEGIN")
                    reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # now it has its snapshot
                    files[name] = reader
                else:
                    transaction = reader.transaction(isolation="repeatable_read", readonly=True)
                    await transaction.start()
                    await reader.fetchval("SELECT 1")  # now it has its snapshot
                    servers[name] = reader
            spooled = {file.name: stack.enter_context(file.open("rb")) for file in _spooled(spool)}
        yield Cut(files, servers, spooled, time.monotonic() - began)


async def _reader(stack: AsyncExitStack, place: Place) -> sqlite3.Connection | PgConnection:
    if place.file is None:
        connection = await connected(place)
        stack.push_async_callback(connection.close)
        return connection
    return stack.enter_context(closing(opened(place.file)))


def opened(file: Path) -> sqlite3.Connection:
    """Open a SQLite file that exists, without changing it; raise StartError."""
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise StartError(f"{file} cannot be read as a database: {error}; is --data the right folder?") from error
    return connection


async def _hold(held: AsyncExitStack, place: Place) -> None:
    """Keep every writer of a database waiting until the stack is left."""
    if place.file is not None:
        # Not with SQLite's own patience, which looks ever more seldom: a busy writer's pauses are short.
        writer = held.enter_context(
            closing(sqlite3.connect(f"{place.file.absolute().as_uri()}?mode=rw", uri=True, timeout=0))
        )
        writer.isolation_level = None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                writer.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise StartError(f"{place.file} cannot be held for a moment: {error}; try again.") from error
                await asyncio.sleep(_PAUSE_SECONDS)  # nothing tells when the writer is done
            else:
                return
    connection = await connected(place)
    held.push_async_callback(connection.close)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.fetchval(_HOLD, place.service, timeout=_PATIENCE_SECONDS)
    except TimeoutError:
        raise StartError(f"{place.shown} cannot be held for a moment: a transaction goes on; try again.") from None
    except Exception as error:
        if sqlstate(error) != NO_TABLE:
            raise
        raise StartError(f"{place.shown} is not set up: run `counterfoil migrate`, or name another database.") from None


def _spooled(spool: Path) -> list[Path]:
    return sorted(file for file in spool.glob("*") if file.is_file() and file.suffix != ".part")
