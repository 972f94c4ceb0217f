"""Many rows at once: statements compiled once and fed tuples, and lists of values as one parameter.

SQLAlchemy prepares every row of an executemany from a dictionary, and every value of an IN list as a parameter: for the
consumer, which writes and looks up thousands of rows per block, that would cost more than the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import orjson
from sqlalchemy import BindParameter, ColumnElement, Executable, Table, TextClause, bindparam, insert, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

_AT_ONCE = 5_000
"""Values of one question; PostgreSQL takes 32,767 parameters."""

T = TypeVar("T")


def parts(values: Iterable[T], size: int = _AT_ONCE) -> Iterator[list[T]]:
    """Cut values into lists that one statement takes."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def upsert(dialect: str, table: Table) -> Any:
    """Return the dialect's INSERT that knows ON CONFLICT."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def among(connection: AsyncConnection, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """Return the condition that a column has one of some values, at most 5,000."""
    if connection.dialect.name != "sqlite":
        return column.in_(values)
    return column.bool_op("IN")(_listed("value", values))


def pair_among(
    connection: AsyncConnection, columns: tuple[ColumnElement[Any], ColumnElement[Any]], pairs: Collection[Any]
) -> ColumnElement[bool]:
    """Return the condition that two columns have one of some pairs of values, at most 5,000."""
    if connection.dialect.name != "sqlite":
        return tuple_(*columns).in_(pairs)
    return tuple_(*columns).bool_op("IN")(_listed("json_extract(value, '$[0]'), json_extract(value, '$[1]')", pairs))


def _listed(columns: str, values: Collection[Any]) -> TextClause:
    """Return the query of values that travel as one parameter; as text, since building it takes longer than asking."""
    values_json: BindParameter[str] = bindparam("listed", orjson.dumps(list(values)).decode(), unique=True)
    return text(f"(SELECT {columns} FROM json_each(:listed))").bindparams(values_json)  # noqa: S608 - constants only


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows whose values stand in the order of the table's columns."""
    if rows:
        await connection.exec_driver_sql(_insert(table, connection.dialect), list(rows))


class Rows:
    """A statement that is executed for many rows; `names` are the parameters that a row's values stand for."""

    def __init__(self, make: Callable[[str], Executable], names: Sequence[str]) -> None:
        self._make = make
        self._names = tuple(names)
        self._compiled: dict[str, tuple[str, list[tuple[int | None, Any]]]] = {}

    async def execute(self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute it for each row."""
        if not rows:
            return
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = self._compile(dialect)
        sql, order = self._compiled[dialect.name]
        values = [tuple(value if place is None else row[place] for place, value in order) for row in rows]
        await connection.exec_driver_sql(sql, values)

    def _compile(self, dialect: Dialect) -> tuple[str, list[tuple[int | None, Any]]]:
        compiled: Any = self._make(dialect.name).compile(dialect=dialect)  # type: ignore[attr-defined]
        index = {name: place for place, name in enumerate(self._names)}
        return str(compiled), [(index.get(name), compiled.params.get(name)) for name in compiled.positiontup]


@cache
def _insert(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))
