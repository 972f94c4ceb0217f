"""Transactions with their stores."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from counterfoil_chassis.database import Database
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.sql.artifacts import SqlArtifactStore
from counterfoil_models.sql.forecasts import SqlForecastStore
from counterfoil_models.sql.holds import SqlHoldStore
from counterfoil_models.sql.models import SqlModelStore
from counterfoil_models.sql.outputs import SqlOutputStore
from counterfoil_models.sql.receipts import SqlReceiptStore
from counterfoil_models.store import (
    ArtifactStore,
    EarlierArtifacts,
    ForecastStore,
    HoldStore,
    ModelStore,
    OutputStore,
    ReceiptStore,
    Transaction,
)


class SqlTransaction:
    """The stores of one open transaction."""

    def __init__(self, connection: AsyncConnection, files: EarlierArtifacts | None) -> None:
        self.connection: Any = connection
        self.artifacts: ArtifactStore = SqlArtifactStore(connection, files)
        self.models: ModelStore = SqlModelStore(connection)
        self.forecasts: ForecastStore = SqlForecastStore(connection)
        self.outputs: OutputStore = SqlOutputStore(connection)
        self.receipts: ReceiptStore = SqlReceiptStore(connection)
        self.holds: HoldStore = SqlHoldStore(connection)


class SqlStores:
    """See `store.Stores`; `files` are artifacts of an earlier release, None = out of this process's reach."""

    def __init__(self, database: Database, *, files: EarlierArtifacts | None) -> None:
        self._database = database
        self._files = files

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Open a write transaction: commits at exit, rolls back on error."""
        async with self._database.begin() as connection:
            yield SqlTransaction(connection, self._files)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Open a read transaction."""
        async with self._database.read() as connection:
            yield SqlTransaction(connection, self._files)
