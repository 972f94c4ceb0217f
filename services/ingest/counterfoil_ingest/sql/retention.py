"""Quarantined records that are old, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil_chassis.database import Database
from counterfoil_chassis.texts import WholeTexts
from sqlalchemy import select

from counterfoil_ingest.sql.quarantine import SqlQuarantine
from counterfoil_ingest.sql.tables import QUARANTINE


class SqlExpiredQuarantine:
    """See `retention.ExpiredQuarantine`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._quarantine = SqlQuarantine(database)

    async def received_before(self, workspace: str, dataset: str, before_us: int) -> Sequence[str]:
        """Return the ids of those of a dataset that were received before a time, microseconds UTC."""
        wanted = select(QUARANTINE.c.quarantine_id).where(
            QUARANTINE.c.workspace == workspace,
            QUARANTINE.c.dataset == dataset,
            QUARANTINE.c.received_at < before_us,
        )
        async with self._database.read() as connection:
            return list((await connection.execute(wanted.order_by(QUARANTINE.c.quarantine_id))).scalars())

    async def holding(self, workspace: str, texts: WholeTexts) -> Sequence[str]:
        """Return the ids of those that hold any of some texts."""
        return await self._quarantine.holding(workspace, texts)
