"""Rows of which several processes may make one each: the first stays."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


async def insert_first(
    connection: AsyncConnection, table: Table, values: Mapping[str, Any], *, unless: Sequence[Any]
) -> bool:
    """Insert a row unless one has the same values in the columns `unless`, which are unique, and tell.

    PostgreSQL waits for another process's transaction that is inserting such a row. After a False the next statement
    sees that row.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing(index_elements=unless)
    return (await connection.execute(statement)).rowcount == 1
