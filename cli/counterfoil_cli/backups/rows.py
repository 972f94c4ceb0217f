"""Rows of a table on either engine, in batches, and a digest of them that does not depend on their order."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from counterfoil_chassis.postgresql import PgConnection
from sqlalchemy import Boolean, Table

BATCH_ROWS = 5_000
BATCH_BYTES = 4 << 20
_LONG = 64
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Shape:
    """A table's name, columns and key, in the words of SQL; `truths` are the places of its boolean columns."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    truths: tuple[int, ...]

    @classmethod
    def of(cls, table: Table) -> Shape:
        """Read the shape of a declared table."""
        return cls(
            table.name,
            tuple(column.name for column in table.columns),
            tuple(column.name for column in table.primary_key.columns),
            tuple(place for place, column in enumerate(table.columns) if isinstance(column.type, Boolean)),
        )

    @property
    def select(self) -> str:
        """The query for every column."""
        return f"SELECT {', '.join(map(quoted, self.columns))} FROM {quoted(self.name)}"  # noqa: S608  (quoted names)

    @property
    def in_order(self) -> str:
        """The query for every column, by key."""
        return f"{self.select} ORDER BY {', '.join(map(quoted, self.key))}"

    @property
    def insert(self) -> str:
        """SQLite's statement for one row."""
        places = ", ".join("?" for _ in self.columns)
        return f"INSERT INTO {quoted(self.name)} ({', '.join(map(quoted, self.columns))}) VALUES ({places})"  # noqa: S608

    @property
    def count(self) -> str:
        """The query for the number of rows."""
        return f"SELECT count(*) FROM {quoted(self.name)}"  # noqa: S608  (quoted names)


@dataclass
class Digest:
    """How many rows were seen, and the sum of their hashes: equal for the same rows in any order."""

    rows: int = 0
    _sum: int = field(default=0)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in rows as SQLite gives them: a truth is 0 or 1."""
        for row in rows:
            plain = tuple(_short(value) for value in row)
            hashed = blake2b(repr(plain).encode("utf-8", "surrogatepass"), digest_size=32).digest()
            self._sum = (self._sum + int.from_bytes(hashed)) & ((1 << 256) - 1)
            self.rows += 1

    @property
    def text(self) -> str:
        """The digest in hexadecimal digits."""
        return f"{self._sum:064x}"


def sqlite_rows(connection: sqlite3.Connection, shape: Shape, *, skip: int = 0) -> Iterator[list[Row]]:
    """Yield the rows by key, in batches, from the one after the first `skip` on."""
    rows = connection.execute(f"{shape.in_order} LIMIT -1 OFFSET {skip:d}")
    yield from _batches(iter(rows.fetchone, None))


async def postgresql_rows(connection: PgConnection, shape: Shape) -> AsyncIterator[list[Row]]:
    """Yield the rows, in batches, as SQLite would give them; the caller has begun a transaction."""
    batch = _Batch()
    async for record in connection.cursor(shape.select, prefetch=500):
        if batch.is_full_with(as_sqlite(tuple(record))):
            yield batch.rows
            batch = _Batch()
    if batch.rows:
        yield batch.rows


def as_sqlite(row: Row) -> Row:
    """Return a row of PostgreSQL as SQLite keeps it."""
    return tuple(int(value) if isinstance(value, bool) else value for value in row)


def as_postgresql(rows: Sequence[Row], shape: Shape) -> Sequence[Row]:
    """Return rows of SQLite as PostgreSQL takes them."""
    if not shape.truths:
        return rows
    truths = frozenset(shape.truths)
    return [
        tuple(bool(value) if place in truths and value is not None else value for place, value in enumerate(row))
        for row in rows
    ]


def quoted(name: str) -> str:
    """Return a name of a table or column for either engine."""
    return '"' + name.replace('"', '""') + '"'


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch = _Batch()
    for row in rows:
        if batch.is_full_with(row):
            yield batch.rows
            batch = _Batch()
    if batch.rows:
        yield batch.rows


class _Batch:
    """Rows that go together: at most so many, and no more once they have so many bytes."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._room = BATCH_BYTES

    def is_full_with(self, row: Row) -> bool:
        """Take a row, and tell whether the batch is full now."""
        self.rows.append(row)
        self._room -= sum(len(value) for value in row if isinstance(value, bytes | str))
        return self._room <= 0 or len(self.rows) >= BATCH_ROWS


def _short(value: Any) -> Any:
    """Return long bytes as their hash: to write them out costs more than to hash them."""
    return blake2b(value).digest() if isinstance(value, bytes) and len(value) > _LONG else value
