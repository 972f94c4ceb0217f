"""Tables from one engine to the other: SQLite files into PostgreSQL, resumable, and PostgreSQL into SQLite files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.migrate import upgrade
from counterfoil_chassis.postgresql import PgConnection, sqlstate
from counterfoil_chassis.stores import Store

from counterfoil_cli.backups.cut import opened
from counterfoil_cli.backups.databases import Place, connected, tables
from counterfoil_cli.backups.rows import Digest, Shape, as_postgresql, postgresql_rows, quoted, sqlite_rows

MARK = "counterfoil_copy"
"""A table of a database that was filled from another: it says from what, and whether that was done to the end."""

_IDENTITIES = (
    "SELECT c.relname AS table, a.attname AS column, pg_get_serial_sequence(quote_ident(c.relname), a.attname) AS name"
    " FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
    " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
    " AND (a.attidentity <> '' OR pg_get_serial_sequence(quote_ident(c.relname), a.attname) IS NOT NULL)"
)
OnRows = Callable[[str, int], None]


@dataclass(frozen=True)
class Copied:
    """One table on both sides: how many rows, and the digest that they share."""

    table: str
    rows: int
    digest: str


def shapes(store: Store) -> list[Shape]:
    """Return the shapes of a store's tables, each after those that it refers to."""
    return [Shape.of(table) for table in tables(store)]


async def to_postgresql(file: Path, place: Place, *, source: str, on_rows: OnRows) -> list[Copied]:
    """Fill a migrated, empty database from a SQLite file of the same revision, or go on where that was broken off.

    `source` tells one source from another. A database that is filled already is only compared. Raises StartError when
    the database has other rows, or when in the end a table does not have the very rows of the file.
    """
    connection = await connected(place)
    try:
        with closing(opened(file)) as reader:
            reader.execute("BEGIN")
            if not await _is_full(connection, place, source=source):
                for shape in _referred_first(shapes(place.store), await _references(connection)):
                    await _fill(reader, connection, shape, place=place, on_rows=on_rows)
                await _count_on(connection)
            copied = [
                await _compared(reader, connection, shape, place=place, on_rows=on_rows)
                for shape in shapes(place.store)
            ]
            await connection.execute(f"UPDATE {MARK} SET complete = true")  # noqa: S608  (a constant)
            return copied
    finally:
        await connection.close()


async def to_sqlite(connection: PgConnection, file: Path, store: Store, *, on_rows: OnRows) -> None:
    """Write a database, as an open transaction sees it, into a new SQLite file."""
    await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{file}", store.migrations)
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("PRAGMA synchronous = OFF")  # the file is made durable as a whole
        writer.execute("BEGIN")
        for shape in reversed(shapes(store)):
            writer.execute(f"DELETE FROM {quoted(shape.name)}")  # noqa: S608  (what the migrations put there)
        for shape in shapes(store):
            async for batch in postgresql_rows(connection, shape):
                writer.executemany(shape.insert, batch)
                on_rows(shape.name, len(batch))
        writer.execute("COMMIT")


def counts(reader: sqlite3.Connection) -> dict[str, int]:
    """Return how many rows each table of a SQLite file has, whatever release wrote it."""
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    tables = [name for (name,) in reader.execute(names)]
    return {name: reader.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0] for name in tables}  # noqa: S608


async def _is_full(connection: PgConnection, place: Place, *, source: str) -> bool:
    """Note what the database is filled from, or tell whether that was done; refuse one that has anything else."""
    if await connection.fetchval("SELECT to_regclass($1)", MARK):
        found = await connection.fetchrow(f"SELECT source, complete FROM {MARK}")  # noqa: S608  (a constant)
        if found is not None and found["source"] == source:
            return bool(found["complete"])
        raise StartError(f"{place.shown} was filled from another source: drop that database, or name another one.")
    for shape in shapes(place.store):
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {quoted(shape.name)})"):  # noqa: S608  (quoted)
            raise StartError(f"{place.shown} has data already (table {shape.name}): name empty databases.")
    await connection.execute(f"CREATE TABLE {MARK} AS SELECT '{source}'::text AS source, false AS complete")
    return False


async def _fill(
    reader: sqlite3.Connection, connection: PgConnection, shape: Shape, *, place: Place, on_rows: OnRows
) -> None:
    # A batch commits whole and batches go by key: so many rows as are there are the first ones.
    there = await connection.fetchval(shape.count)
    on_rows(shape.name, there)
    for batch in sqlite_rows(reader, shape, skip=there):
        try:
            await connection.copy_records_to_table(
                shape.name, records=as_postgresql(batch, shape), columns=shape.columns
            )
        except Exception as error:
            if not sqlstate(error):
                raise
            raise StartError(
                f"PostgreSQL refuses rows of the table {shape.name} of {place.service}: {error}"
            ) from error
        on_rows(shape.name, len(batch))


async def _compared(
    reader: sqlite3.Connection, connection: PgConnection, shape: Shape, *, place: Place, on_rows: OnRows
) -> Copied:
    """Read a table on both sides; raise StartError unless the rows are the same."""
    ours, theirs = Digest(), Digest()
    for batch in sqlite_rows(reader, shape):
        ours.add(batch)
        on_rows(shape.name, len(batch))
    async with connection.transaction(readonly=True):
        async for batch in postgresql_rows(connection, shape):
            theirs.add(batch)
    if ours != theirs:
        raise StartError(
            f"the table {shape.name} of {place.service} differs: {ours.rows} rows here, {theirs.rows} in "
            f"{place.shown}. Was the source written meanwhile? Drop the database and begin anew."
        )
    return Copied(shape.name, ours.rows, ours.text)


async def _count_on(connection: PgConnection) -> None:
    """Have identity columns go on after the rows there are."""
    for found in await connection.fetch(_IDENTITIES):
        table, column = quoted(found["table"]), quoted(found["column"])
        await connection.execute(
            f"SELECT setval($1::regclass, coalesce((SELECT max({column}) FROM {table}), 0) + 1, false)",  # noqa: S608
            found["name"],
        )


async def _references(connection: PgConnection) -> Mapping[str, set[str]]:
    """Return, by table, the tables that its foreign keys name."""
    found: dict[str, set[str]] = {}
    query = "SELECT conrelid::regclass::text AS own, confrelid::regclass::text AS other FROM pg_constraint"
    for row in await connection.fetch(f"{query} WHERE contype = 'f'"):
        found.setdefault(row["own"], set()).add(row["other"])
    return found


def _referred_first(all_shapes: list[Shape], references: Mapping[str, set[str]]) -> list[Shape]:
    done: dict[str, Shape] = {}
    left = list(all_shapes)
    while left:
        free = [shape for shape in left if references.get(shape.name, set()) - {shape.name} <= done.keys()]
        if not free:
            raise StartError(f"the tables {', '.join(shape.name for shape in left)} refer to each other in a circle")
        done.update((shape.name, shape) for shape in free)
        left = [shape for shape in left if shape.name not in done]
    return list(done.values())
