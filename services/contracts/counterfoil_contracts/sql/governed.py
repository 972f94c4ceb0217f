"""Which contract version governs each dataset, in SQL, and the feed that ingest watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from counterfoil_chassis.watch import Feed, record_delete, record_put
from google.protobuf.message import Message
from sqlalchemy import and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.entities import CompiledDataset, ContractVersion, GovernedDataset
from counterfoil_contracts.sql.compiled import to_compiled
from counterfoil_contracts.sql.tables import COMPILED, GOVERNED

TOPIC: Final = "compiled"

ToResource = Callable[[GovernedDataset], Message]


class SqlGovernedDatasets:
    """Governed datasets of one open connection; the feed's keys are `<workspace>/<dataset>`."""

    def __init__(self, connection: AsyncConnection, feed: Feed, to_resource: ToResource) -> None:
        self._connection = connection
        self._feed = feed
        self._to_resource = to_resource

    async def find(self, workspace: str, dataset: str) -> GovernedDataset | None:
        """Return what governs a dataset, or None."""
        same_version = and_(
            COMPILED.c.workspace == GOVERNED.c.workspace,
            COMPILED.c.contract_id == GOVERNED.c.contract_id,
            COMPILED.c.version == GOVERNED.c.version,
            COMPILED.c.dataset == GOVERNED.c.dataset,
        )
        query = (
            select(COMPILED)
            .join(GOVERNED, same_version)
            .where(GOVERNED.c.workspace == workspace, GOVERNED.c.dataset == dataset)
        )
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else GovernedDataset(workspace, row.contract_id, row.version, to_compiled(row))

    async def put(self, version: ContractVersion, compiled: CompiledDataset) -> None:
        """Let a version govern one of its datasets from now on."""
        await self._forget(version.workspace, compiled.dataset)
        await self._connection.execute(
            insert(GOVERNED).values(
                workspace=version.workspace,
                dataset=compiled.dataset,
                contract_id=version.contract_id,
                version=version.version,
            )
        )
        governed = GovernedDataset(version.workspace, version.contract_id, version.version, compiled)
        key = f"{version.workspace}/{compiled.dataset}"
        await record_put(self._connection, topic=TOPIC, key=key, resource=self._to_resource(governed))
        self._feed.changed(self._connection)

    async def delete(self, workspace: str, dataset: str) -> None:
        """Let nothing govern a dataset any more."""
        await self._forget(workspace, dataset)
        await record_delete(self._connection, topic=TOPIC, key=f"{workspace}/{dataset}")
        self._feed.changed(self._connection)

    async def _forget(self, workspace: str, dataset: str) -> None:
        place = and_(GOVERNED.c.workspace == workspace, GOVERNED.c.dataset == dataset)
        await self._connection.execute(delete(GOVERNED).where(place))
