"""Consumers in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.errors import ConsumerNotFoundError
from counterfoil_contracts.evolution import Consumer
from counterfoil_contracts.sql.tables import CONSUMERS

_ORDER = (CONSUMERS.c.name, CONSUMERS.c.dataset, CONSUMERS.c.consumer_id)


class SqlConsumers:
    """Consumers of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, workspace: str, consumer_id: str) -> Consumer:
        """Return one consumer; raise ConsumerNotFoundError when absent or in another workspace."""
        found = await self._all(CONSUMERS.c.workspace == workspace, CONSUMERS.c.consumer_id == consumer_id)
        if not found:
            raise ConsumerNotFoundError(
                f"There is no consumer {consumer_id!r} in this workspace.", metadata={"consumer_id": consumer_id}
            )
        return found[0]

    async def find(self, workspace: str, *, service: str, name: str, dataset: str) -> Consumer | None:
        """Return the consumer of a service (`""`: registered by somebody) with this name and dataset, or None."""
        columns = CONSUMERS.c
        found = await self._all(
            columns.workspace == workspace,
            columns.service == service,
            columns.name == name,
            columns.dataset == dataset,
        )
        return found[0] if found else None

    async def list(
        self, workspace: str, *, dataset: str, after: tuple[str, str, str], limit: int
    ) -> Sequence[Consumer]:
        """Return at most `limit` consumers above (name, dataset, id) `after`, in order; an empty dataset means all."""
        wanted = [CONSUMERS.c.workspace == workspace, tuple_(*_ORDER) > tuple_(*after)]
        if dataset:
            wanted.append(CONSUMERS.c.dataset == dataset)
        return await self._all(*wanted, limit=limit)

    async def readers(self, workspace: str, datasets: Sequence[str]) -> Sequence[Consumer]:
        """Return all that read one of the datasets, by name, dataset and id."""
        return await self._all(CONSUMERS.c.workspace == workspace, CONSUMERS.c.dataset.in_(datasets))

    async def of_service(self, workspace: str, service: str) -> Sequence[Consumer]:
        """Return all that a service reads."""
        return await self._all(CONSUMERS.c.workspace == workspace, CONSUMERS.c.service == service)

    async def count(self, workspace: str) -> int:
        """Return how many somebody registered."""
        mine = and_(CONSUMERS.c.workspace == workspace, CONSUMERS.c.service == "")
        return (await self._connection.execute(select(func.count()).select_from(CONSUMERS).where(mine))).scalar_one()

    async def put(self, consumer: Consumer) -> None:
        """Keep a consumer, in place of the one with its id."""
        await self.remove(consumer)
        await self._connection.execute(
            insert(CONSUMERS).values(
                workspace=consumer.workspace,
                consumer_id=consumer.consumer_id,
                service=consumer.service,
                name=consumer.name,
                dataset=consumer.dataset,
                fields=orjson.dumps(consumer.fields),
                version_range=consumer.version_range,
                owner=consumer.owner,
                contact=consumer.contact,
                registered_by=consumer.registered_by,
                created_at=to_micros(consumer.created_at),
                updated_at=to_micros(consumer.updated_at),
            )
        )

    async def remove(self, consumer: Consumer) -> None:
        """Forget a consumer."""
        place = and_(CONSUMERS.c.workspace == consumer.workspace, CONSUMERS.c.consumer_id == consumer.consumer_id)
        await self._connection.execute(delete(CONSUMERS).where(place))

    async def _all(self, *where: ColumnElement[bool], limit: int | None = None) -> Sequence[Consumer]:
        query = select(CONSUMERS).where(*where).order_by(*_ORDER).limit(limit)
        return [_consumer(row) for row in await self._connection.execute(query)]


def _consumer(row: Row[Any]) -> Consumer:
    return Consumer(
        workspace=row.workspace,
        consumer_id=row.consumer_id,
        name=row.name,
        dataset=row.dataset,
        fields=tuple(orjson.loads(row.fields)),
        version_range=row.version_range,
        owner=row.owner,
        contact=row.contact,
        service=row.service,
        registered_by=row.registered_by,
        created_at=from_micros(row.created_at),
        updated_at=from_micros(row.updated_at),
    )
