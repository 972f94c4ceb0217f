"""Which datasets are held, in SQL."""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.entities import Hold
from counterfoil_models.sql.tables import HOLD


class SqlHoldStore:
    """See `store.HoldStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self) -> Sequence[Hold]:
        """Return every workspace's holds."""
        return [_hold(row) for row in await self._connection.execute(select(HOLD))]

    async def of(self, workspace: str, datasets: Collection[str]) -> Sequence[Hold]:
        """Return the holds of some datasets, the oldest first."""
        some = select(HOLD).where(HOLD.c.workspace == workspace, HOLD.c.dataset.in_(datasets))
        rows = await self._connection.execute(some.order_by(HOLD.c.since, HOLD.c.monitor_id))
        return [_hold(row) for row in rows]

    async def put(self, hold: Hold) -> None:
        """Keep a hold as it now is."""
        await self.delete(*hold.key)
        await self._connection.execute(
            insert(HOLD).values(
                workspace=hold.workspace,
                monitor_id=hold.monitor_id,
                dataset=hold.dataset,
                incident_id=hold.incident_id,
                detail=hold.detail,
                since=to_micros(hold.since),
                recovered_at=None if hold.recovered_at is None else to_micros(hold.recovered_at),
                held=hold.held,
                metric=hold.metric,
                days=orjson.dumps(hold.days).decode(),
            )
        )

    async def delete(self, workspace: str, monitor_id: str) -> None:
        """Forget what a monitor held."""
        await self._connection.execute(
            delete(HOLD).where(HOLD.c.workspace == workspace, HOLD.c.monitor_id == monitor_id)
        )


def _hold(row: Row[Any]) -> Hold:
    return Hold(
        workspace=row.workspace,
        dataset=row.dataset,
        monitor_id=row.monitor_id,
        incident_id=row.incident_id,
        detail=row.detail,
        since=from_micros(row.since),
        recovered_at=None if row.recovered_at is None else from_micros(row.recovered_at),
        held=row.held,
        metric=row.metric,
        days=tuple(orjson.loads(row.days)),
    )
