"""Opens transactions on the database of contracts with every store bound to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.database import Database
from counterfoil_chassis.watch import Feed
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.sql.audit import SqlAudit
from counterfoil_contracts.sql.changelog import SqlChangelog
from counterfoil_contracts.sql.consumers import SqlConsumers
from counterfoil_contracts.sql.contracts import SqlContracts
from counterfoil_contracts.sql.governed import SqlGovernedDatasets, ToResource
from counterfoil_contracts.store import Stores


class SqlTransactions:
    """Transactions whose changes of governed datasets reach the feed's watchers once they commit."""

    def __init__(self, database: Database, feed: Feed, to_resource: ToResource, trail: AuditTrail) -> None:
        self._database = database
        self._feed = feed
        self._to_resource = to_resource
        self._trail = trail

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Stores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield self._stores(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Stores]:
        """Open a transaction that reads one state."""
        async with self._database.read() as connection:
            yield self._stores(connection)

    def _stores(self, connection: AsyncConnection) -> Stores:
        return Stores(
            contracts=SqlContracts(connection),
            governed=SqlGovernedDatasets(connection, self._feed, self._to_resource),
            audit=SqlAudit(connection, self._trail),
            consumers=SqlConsumers(connection),
            changelog=SqlChangelog(connection),
        )
