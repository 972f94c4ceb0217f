"""Transactions with their stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from counterfoil_chassis.database import Database
from counterfoil_chassis.inline import NotInlineError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_graph.sql.erasing import SqlErasureStore
from counterfoil_graph.sql.exports import SqlExportStore
from counterfoil_graph.sql.inline import InlinePersonReader
from counterfoil_graph.sql.mappings import SqlMappingStore
from counterfoil_graph.sql.reading import SqlGraphReader
from counterfoil_graph.sql.tables import GRAPH
from counterfoil_graph.sql.writing import SqlGraphWriter
from counterfoil_graph.store import (
    ErasureStore,
    ExportStore,
    GraphReader,
    GraphWriter,
    MappingStore,
    PersonReader,
    Transaction,
)

T = TypeVar("T")


class SqlTransaction:
    """The stores of one open transaction."""

    def __init__(self, connection: AsyncConnection, database: Database) -> None:
        self._database = database
        self.connection: Any = connection
        self.exports: ExportStore = SqlExportStore(connection)

    def reader(self, workspace: str) -> GraphReader:
        """Return one workspace's graph to read."""
        return SqlGraphReader(self.connection, workspace)

    def mappings(self, workspace: str) -> MappingStore:
        """Return one workspace's mappings."""
        return SqlMappingStore(self.connection, workspace)

    def erasures(self, workspace: str) -> ErasureStore:
        """Return one workspace's erasures."""
        return SqlErasureStore(self.connection, workspace)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have a callback run once a write transaction has committed."""
        self._database.after_commit(self.connection, callback)


class SqlStores:
    """See `store.Stores`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Open a write transaction: commits at exit, rolls back on error."""
        async with self._database.begin() as connection:
            yield SqlTransaction(connection, self._database)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Open a read transaction."""
        async with self._database.read() as connection:
            yield SqlTransaction(connection, self._database)

    async def read_person(self, workspace: str, work: Callable[[PersonReader], Awaitable[T]]) -> T:
        """Return what work makes of what it reads in one state: on SQLite in the loop itself, unless it is a lot."""
        try:
            with self._database.read_inline() as inline:
                return await work(InlinePersonReader(inline, workspace))
        except NotInlineError:
            async with self._database.read() as connection:
                return await work(SqlGraphReader(connection, workspace))

    async def workspaces(self) -> list[str]:
        """Return the workspaces that have a graph."""
        async with self._database.read() as connection:
            return list((await connection.execute(select(GRAPH.c.workspace))).scalars())


def writer(connection: AsyncConnection, workspace: str, tx: int) -> GraphWriter:
    """Return a workspace's graph to change in a consumer's transaction."""
    return SqlGraphWriter(connection, workspace, tx=tx)
