"""Many rows at once: statements compiled once and fed tuples, and lists of values as one parameter.

SQLAlchemy prepares every row of an executemany from a dictionary, and every value of an IN list as a parameter: for the
consumer, which writes and looks up thousands of rows per block, that would cost more than the database itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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


def upsert(connection: AsyncConnection, table: Table) -> Any:
    """Return the dialect's INSERT that knows ON CONFLICT."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


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


async def execute_rows(
    connection: AsyncConnection, statement: Executable, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Execute a statement for each row; `names` are the parameters that a row's values stand for."""
    if not rows:
        return
    compiled: Any = statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
    fixed = compiled.params
    index = {name: place for place, name in enumerate(names)}
    order = [(index.get(name), fixed.get(name)) for name in compiled.positiontup]
    values = [tuple(value if place is None else row[place] for place, value in order) for row in rows]
    await connection.exec_driver_sql(str(compiled), values)


@cache
def _insert(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))
