"""Retention policies with what was reported of each, and the feed of them, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy import Row, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import RetentionPolicy, RetentionReport
from counterfoil_governance.messages import retention_policy_message
from counterfoil_governance.sql.tables import RETENTION_POLICIES

TOPIC: Final = "retention_policies"
_policies = RETENTION_POLICIES.c


class SqlRetentionPolicies:
    """Retention policies of one open connection; the feed's keys are `<workspace>/<dataset>`."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def find(self, workspace: str, dataset: str) -> RetentionPolicy | None:
        """Return the policy of a dataset, or None."""
        one = select(RETENTION_POLICIES).where(_policies.workspace == workspace, _policies.dataset == dataset)
        row = (await self._connection.execute(one)).first()
        return None if row is None else _policy(row)

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[RetentionPolicy]:
        """Return at most `limit` policies of datasets after one, by dataset."""
        some = select(RETENTION_POLICIES).where(_policies.workspace == workspace, _policies.dataset > after)
        rows = await self._connection.execute(some.order_by(_policies.dataset).limit(limit))
        return [_policy(row) for row in rows]

    async def put(self, policy: RetentionPolicy) -> None:
        """Keep a policy as it now is; the watchers are told what was set, not what was reported."""
        known = await self.find(policy.workspace, policy.dataset)
        report = policy.report
        values = {
            "workspace": policy.workspace,
            "dataset": policy.dataset,
            "days": policy.days,
            "purpose": policy.purpose,
            "owner": policy.owner,
            "set_by": policy.set_by,
            "set_at": to_micros(policy.set_at),
            "received_before": None if report is None else to_micros(report.received_before),
            "records": 0 if report is None else report.records,
            "quarantined": 0 if report is None else report.quarantined,
            "held": 0 if report is None else report.held,
            "completed_at": None if report is None else to_micros(report.completed_at),
            "waiting_for": "" if report is None else report.waiting_for,
        }
        if known is None:
            await self._connection.execute(insert(RETENTION_POLICIES).values(values))
        else:
            await self._connection.execute(update(RETENTION_POLICIES).where(_place(policy)).values(values))
        if known is None or known.etag != policy.etag:
            told = retention_policy_message(policy, for_service=True)
            await record_put(self._connection, topic=TOPIC, key=_key(policy), resource=told)
            self._feed.changed(self._connection)

    async def delete(self, policy: RetentionPolicy) -> None:
        """Forget a policy, and let the watchers know."""
        await self._connection.execute(delete(RETENTION_POLICIES).where(_place(policy)))
        await record_delete(self._connection, topic=TOPIC, key=_key(policy))
        self._feed.changed(self._connection)


def _key(policy: RetentionPolicy) -> str:
    return f"{policy.workspace}/{policy.dataset}"


def _place(policy: RetentionPolicy) -> Any:
    return and_(_policies.workspace == policy.workspace, _policies.dataset == policy.dataset)


def _policy(row: Row[Any]) -> RetentionPolicy:
    report = None
    if row.received_before is not None:
        report = RetentionReport(
            received_before=from_micros(row.received_before),
            records=row.records,
            quarantined=row.quarantined,
            held=row.held,
            completed_at=from_micros(row.completed_at),
            waiting_for=row.waiting_for,
        )
    return RetentionPolicy(
        workspace=row.workspace,
        dataset=row.dataset,
        days=row.days,
        purpose=row.purpose,
        owner=row.owner,
        set_by=row.set_by,
        set_at=from_micros(row.set_at),
        report=report,
    )
