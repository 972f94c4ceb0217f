"""Reported totals in SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import orjson
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.database import Database
from sqlalchemy import Row, and_, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.errors import ReconciliationNotFoundError
from counterfoil_ingest.sql.tables import QUARANTINE, RECONCILIATION
from counterfoil_ingest.totals import Reconciliation, State, Total

_table: Final = RECONCILIATION.c
_FIELDS: Final = tuple(each.name for each in fields(Total))


class SqlReconciliationTransactions:
    """Transactions on reported totals."""

    def __init__(self, database: Database, *, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlReconciliations]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield SqlReconciliations(connection, self._trail)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlReconciliations]:
        """Open one that reads."""
        async with self._database.read() as connection:
            yield SqlReconciliations(connection, self._trail)


class SqlReconciliations:
    """Reported totals of one transaction."""

    def __init__(self, connection: AsyncConnection, trail: AuditTrail) -> None:
        self._connection = connection
        self._trail = trail

    async def put(self, reconciliations: Sequence[Reconciliation]) -> None:
        """Keep totals as they now compare; one with the same id is replaced."""
        if not reconciliations:
            return
        insert = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        row = insert(RECONCILIATION)
        key = [column.name for column in RECONCILIATION.primary_key]
        changed = {each.name: row.excluded[each.name] for each in RECONCILIATION.columns if each.name not in key}
        await self._connection.execute(
            row.on_conflict_do_update(index_elements=key, set_=changed), [_row(each) for each in reconciliations]
        )

    async def get(self, workspace: str, ids: Sequence[str]) -> Sequence[Reconciliation]:
        """Return those of some ids that there are, by id."""
        query = select(RECONCILIATION).where(_table.workspace == workspace, _table.reconciliation_id.in_(ids))
        rows = await self._connection.execute(query.order_by(_table.reconciliation_id))
        return [_reconciliation(row) for row in rows]

    async def open(self, workspace: str, dataset: str, *, since: str) -> Sequence[Reconciliation]:
        """Return a dataset's totals of the days since one, and older ones that do not match."""
        query = select(RECONCILIATION).where(_table.workspace == workspace, _table.dataset == dataset)
        query = query.where(or_(_table.day >= since, _table.state != State.MATCHED.value))
        rows = await self._connection.execute(query.order_by(_table.day, _table.reconciliation_id))
        return [_reconciliation(row) for row in rows]

    async def number(self, workspace: str, dataset: str) -> int:
        """Return how many totals of a dataset are kept."""
        query = select(func.count()).where(_table.workspace == workspace, _table.dataset == dataset)
        return (await self._connection.execute(query)).scalar_one()

    async def list(
        self, workspace: str, *, dataset: str, state: State | None, after: tuple[str, str], limit: int
    ) -> Sequence[Reconciliation]:
        """Return totals, the newest day first, after a (day, id); ("", "") = from the first."""
        query = select(RECONCILIATION).where(_table.workspace == workspace)
        if dataset:
            query = query.where(_table.dataset == dataset)
        if state is not None:
            query = query.where(_table.state == state.value)
        day, last = after
        if day:
            query = query.where(or_(_table.day < day, and_(_table.day == day, _table.reconciliation_id > last)))
        query = query.order_by(_table.day.desc(), _table.reconciliation_id).limit(limit)
        return [_reconciliation(row) for row in await self._connection.execute(query)]

    async def delete(self, workspace: str, reconciliation_id: str) -> Reconciliation:
        """Forget one and return it; raise ReconciliationNotFoundError when absent or in another workspace."""
        known = await self.get(workspace, [reconciliation_id])
        if not known:
            raise ReconciliationNotFoundError(
                f"No reported total {reconciliation_id!r} in this workspace. List the reconciliations for their ids.",
                metadata={"reconciliation_id": reconciliation_id},
            )
        place = and_(_table.workspace == workspace, _table.reconciliation_id == reconciliation_id)
        await self._connection.execute(delete(RECONCILIATION).where(place))
        return known[0]

    async def forget_before(self, workspace: str, dataset: str, *, day: str) -> None:
        """Forget the totals of older days."""
        older = and_(_table.workspace == workspace, _table.dataset == dataset, _table.day < day)
        await self._connection.execute(delete(RECONCILIATION).where(older))

    async def places(self) -> Sequence[tuple[str, str]]:
        """Return each (workspace, dataset) that has totals."""
        rows = await self._connection.execute(select(_table.workspace, _table.dataset).distinct())
        return [(row.workspace, row.dataset) for row in rows]

    async def quarantined(self, workspace: str, dataset: str, source_id: str, *, since: int, until: int) -> int:
        """Return how many records were quarantined in a time, microseconds; source "" = of any."""
        kept = QUARANTINE.c
        query = select(func.count()).where(kept.workspace == workspace, kept.dataset == dataset)
        query = query.where(kept.received_at >= since, kept.received_at < until)
        if source_id:
            query = query.where(kept.source_id == source_id)
        return (await self._connection.execute(query)).scalar_one()

    async def record(
        self, workspace: str, *, principal: str, action: str, dataset: str, details: Mapping[str, Any]
    ) -> None:
        """Write an audit entry of what was done to a dataset's totals."""
        await self._trail.record(
            self._connection,
            workspace=workspace,
            principal=principal,
            action=action,
            resource=f"datasets/{dataset}",
            details=details,
        )


def _row(each: Reconciliation) -> Mapping[str, Any]:
    total = {name: getattr(each.total, name) for name in _FIELDS}
    return {
        "workspace": each.workspace,
        "reconciliation_id": each.reconciliation_id,
        "dataset": each.total.dataset,
        "day": each.total.day,
        "total": orjson.dumps(total).decode(),
        "state": each.state.value,
        "received": each.received,
        "detail": each.detail,
        "reported_at": to_micros(each.reported_at),
        "compared_at": None if each.compared_at is None else to_micros(each.compared_at),
    }


def _reconciliation(row: Row[Any]) -> Reconciliation:
    total = orjson.loads(row.total)
    total["match"] = tuple((name, value) for name, value in total["match"])
    if total["judge_after"] is not None:
        total["judge_after"] = datetime.fromisoformat(total["judge_after"])
    return Reconciliation(
        workspace=row.workspace,
        reconciliation_id=row.reconciliation_id,
        total=Total(**total),
        reported_at=from_micros(row.reported_at),
        state=State(row.state),
        received=row.received,
        detail=row.detail,
        compared_at=None if row.compared_at is None else from_micros(row.compared_at),
    )
