"""Opens transactions on governance's database with every store bound to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from counterfoil_chassis.database import Database
from counterfoil_chassis.watch import Feed
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.sql.audit import SqlAudit
from counterfoil_governance.sql.changes import SqlChanges
from counterfoil_governance.sql.consents import SqlConsents
from counterfoil_governance.sql.credentials import SqlCredentialFeed
from counterfoil_governance.sql.incidents import SqlIncidents
from counterfoil_governance.sql.keys import SqlKeys
from counterfoil_governance.sql.legal_holds import SqlLegalHolds
from counterfoil_governance.sql.policy_bundles import SqlPolicyBundles
from counterfoil_governance.sql.principals import SqlPrincipals
from counterfoil_governance.sql.privacy_requests import SqlPrivacyRequests
from counterfoil_governance.sql.receipts import SqlReceipts
from counterfoil_governance.sql.retention_policies import SqlRetentionPolicies
from counterfoil_governance.sql.workspaces import SqlWorkspaces
from counterfoil_governance.store import Stores


@dataclass(frozen=True)
class Feeds:
    """What others watch of governance."""

    credentials: Feed
    policy_bundles: Feed
    changes: Feed
    erasures: Feed
    legal_holds: Feed
    retention_policies: Feed
    workspaces: Feed
    incidents: Feed


class SqlTransactions:
    """Transactions whose news, of credentials or of incidents, reach the watchers once they commit.

    `checkpoint_due` gets the workspaces whose audit logs want a checkpoint.
    """

    def __init__(self, database: Database, feeds: Feeds) -> None:
        self._database = database
        self._feeds = feeds
        self.checkpoint_due: asyncio.Queue[str] = asyncio.Queue()

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
            workspaces=SqlWorkspaces(connection, self._feeds.workspaces),
            principals=SqlPrincipals(connection),
            keys=SqlKeys(connection),
            credentials=SqlCredentialFeed(connection, self._feeds.credentials),
            receipts=SqlReceipts(connection),
            audit=SqlAudit(connection, self._database, self.checkpoint_due),
            bundles=SqlPolicyBundles(connection, self._feeds.policy_bundles),
            changes=SqlChanges(connection, self._feeds.changes),
            consents=SqlConsents(connection),
            privacy_requests=SqlPrivacyRequests(connection, self._feeds.erasures),
            legal_holds=SqlLegalHolds(connection, self._feeds.legal_holds),
            retention_policies=SqlRetentionPolicies(connection, self._feeds.retention_policies),
            incidents=SqlIncidents(connection, self._feeds.incidents),
            connection=connection,
        )
