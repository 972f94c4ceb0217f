"""Monitors, their last results, what they hold, and what waits to be told to governance, in SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import orjson
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.database import Database
from counterfoil_chassis.outbox import OutboxRelay, enqueue
from counterfoil_chassis.watch import Feed, record_delete, record_put
from google.protobuf.message import Message
from sqlalchemy import Row, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.monitors import MOST_RESULTS, Monitor, Result, Setting, State, Step
from counterfoil_ingest.sql.tables import MONITOR, MONITOR_RESULT, MONITOR_SETTING

TOPIC: Final = "holds"
"""The feed of held datasets."""

INCIDENTS: Final = "incidents"
"""The outbox topic of what governance is told."""

_TIMES: Final = frozenset({"since", "evaluated_at", "failing_since", "opened_at", "recovered_at"})
_FIELDS: Final = tuple(each.name for each in fields(Monitor))
_SETTING: Final = tuple(each.name for each in fields(Setting) if each.name != "origin")
_results = MONITOR_RESULT.c

ToHold = Callable[[Monitor], Message]
ToReport = Callable[[Step, datetime], Message]
ToDisowned = Callable[[str, str, datetime], Message]


class SqlMonitorTransactions:
    """Transactions on monitors; what they tell goes to the holds' watchers and to governance once they commit."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        *,
        relay: OutboxRelay,
        trail: AuditTrail,
        to_hold: ToHold,
        to_report: ToReport,
        to_disowned: ToDisowned,
    ) -> None:
        self._database = database
        self._feed = feed
        self._relay = relay
        self._trail = trail
        self._to_hold = to_hold
        self._to_report = to_report
        self._to_disowned = to_disowned

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlMonitors]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield SqlMonitors(connection, self)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlMonitors]:
        """Open one that reads."""
        async with self._database.read() as connection:
            yield SqlMonitors(connection, self)

    async def hold(self, connection: AsyncConnection, monitor: Monitor) -> None:
        """Put a hold in the feed."""
        await record_put(connection, topic=TOPIC, key=_key(monitor), resource=self._to_hold(monitor))
        self._feed.changed(connection)

    async def release(self, connection: AsyncConnection, monitor: Monitor) -> None:
        """Take a hold out of the feed."""
        await record_delete(connection, topic=TOPIC, key=_key(monitor))
        self._feed.changed(connection)

    async def report(self, connection: AsyncConnection, step: Step, *, now: datetime) -> None:
        """Have governance told what became of an incident."""
        await self._tell(connection, self._to_report(step, now), now=now)

    async def disown(self, connection: AsyncConnection, workspace: str, incident_id: str, *, now: datetime) -> None:
        """Have governance told that an incident is over, which nobody here knows."""
        await self._tell(connection, self._to_disowned(workspace, incident_id, now), now=now)

    async def record(
        self,
        connection: AsyncConnection,
        workspace: str,
        *,
        principal: str,
        action: str,
        dataset: str,
        details: Mapping[str, Any],
    ) -> None:
        """Write an audit entry of what was done to a dataset."""
        await self._trail.record(
            connection,
            workspace=workspace,
            principal=principal,
            action=action,
            resource=f"datasets/{dataset}",
            details=details,
        )

    def after_commit(self, connection: AsyncConnection, callback: Callable[[], None]) -> None:
        """Do this once the connection's transaction has committed."""
        self._database.after_commit(connection, callback)

    async def _tell(self, connection: AsyncConnection, report: Message, *, now: datetime) -> None:
        await enqueue(connection, topic=INCIDENTS, payload=report.SerializeToString(), now=now)
        self._database.after_commit(connection, self._relay.wake)


class SqlMonitors:
    """The monitors of one transaction."""

    def __init__(self, connection: AsyncConnection, transactions: SqlMonitorTransactions) -> None:
        self.connection = connection
        self._transactions = transactions

    async def settings(self) -> Sequence[Setting]:
        """Return what people have set to be watched, of every workspace."""
        rows = await self.connection.execute(select(MONITOR_SETTING))
        return [Setting(**{name: getattr(row, name) for name in _SETTING}) for row in rows]

    async def put_setting(self, setting: Setting) -> None:
        """Keep how something is watched."""
        await self._upsert(MONITOR_SETTING, [{name: getattr(setting, name) for name in _SETTING}])

    async def delete_setting(self, setting: Setting) -> None:
        """Forget how something is watched."""
        kept = MONITOR_SETTING.c
        place = (kept.workspace == setting.workspace, kept.dataset == setting.dataset, kept.name == setting.name)
        await self.connection.execute(delete(MONITOR_SETTING).where(*place))

    async def all(self) -> Sequence[Monitor]:
        """Return every monitor of every workspace."""
        return [_monitor(row) for row in await self.connection.execute(select(MONITOR))]

    async def put(self, monitors: Sequence[Monitor]) -> None:
        """Keep monitors as they now are."""
        if monitors:
            rows = [{name: _written(name, getattr(each, name)) for name in _FIELDS} for each in monitors]
            await self._upsert(MONITOR, rows)

    async def delete(self, monitor: Monitor) -> None:
        """Forget a monitor and its results."""
        for table in (MONITOR, MONITOR_RESULT):
            place = (table.c.workspace == monitor.workspace, table.c.monitor_id == monitor.monitor_id)
            await self.connection.execute(delete(table).where(*place))

    async def add_results(self, monitors: Sequence[Monitor]) -> None:
        """Keep what was just found of monitors of one workspace, and of each monitor's results the newest only."""
        rows = [
            {
                "workspace": each.workspace,
                "monitor_id": each.monitor_id,
                "evaluated_at": to_micros(each.evaluated_at),
                "state": int(each.state),
                "measured": each.measured,
                "detail": each.detail,
            }
            for each in monitors
            if each.evaluated_at is not None
        ]
        await self._upsert(MONITOR_RESULT, rows)
        kept = MONITOR_RESULT.alias()
        oldest = select(kept.c.evaluated_at).where(
            kept.c.workspace == _results.workspace, kept.c.monitor_id == _results.monitor_id
        )
        oldest = oldest.order_by(kept.c.evaluated_at.desc()).offset(MOST_RESULTS - 1).limit(1)
        await self.connection.execute(
            delete(MONITOR_RESULT).where(
                _results.workspace == monitors[0].workspace,
                _results.monitor_id.in_([each.monitor_id for each in monitors]),
                _results.evaluated_at < oldest.scalar_subquery(),
            )
        )

    async def _upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        row = insert(table)
        key = [column.name for column in table.primary_key]
        changed = {name: row.excluded[name] for name in rows[0] if name not in key}
        await self.connection.execute(row.on_conflict_do_update(index_elements=key, set_=changed), list(rows))

    async def results(self, workspace: str, monitor_id: str) -> Sequence[Result]:
        """Return a monitor's results, newest first."""
        some = select(MONITOR_RESULT).where(_results.workspace == workspace, _results.monitor_id == monitor_id)
        rows = await self.connection.execute(some.order_by(_results.evaluated_at.desc()).limit(MOST_RESULTS))
        return [Result(from_micros(row.evaluated_at), State(row.state), row.measured, row.detail) for row in rows]

    async def hold(self, monitor: Monitor) -> None:
        """Let the watchers know that a promise of a dataset is broken, whether it is held, and may be resumed."""
        await self._transactions.hold(self.connection, monitor)

    async def release(self, monitor: Monitor) -> None:
        """Let the watchers know that a monitor neither holds its dataset nor finds its promise broken."""
        await self._transactions.release(self.connection, monitor)

    async def report(self, step: Step, *, now: datetime) -> None:
        """Tell governance what became of a monitor's incident, once the transaction commits."""
        await self._transactions.report(self.connection, step, now=now)

    async def disown(self, workspace: str, incident_id: str, *, now: datetime) -> None:
        """Tell governance that an incident is none of any monitor here, once the transaction commits."""
        await self._transactions.disown(self.connection, workspace, incident_id, now=now)

    async def record(
        self, workspace: str, *, principal: str, action: str, dataset: str, details: Mapping[str, Any]
    ) -> None:
        """Write an audit entry of what was done to a dataset."""
        await self._transactions.record(
            self.connection, workspace, principal=principal, action=action, dataset=dataset, details=details
        )

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Do this once the transaction has committed."""
        self._transactions.after_commit(self.connection, callback)


def _key(monitor: Monitor) -> str:
    return f"{monitor.workspace}/{monitor.monitor_id}"


def _written(name: str, value: Any) -> Any:
    if name in _TIMES:
        return None if value is None else to_micros(value)
    if name == "uptime":
        return orjson.dumps(dict(value), option=orjson.OPT_NON_STR_KEYS).decode()
    if name == "days":
        return orjson.dumps(value).decode()
    return int(value) if name == "state" else value


def _read(name: str, value: Any) -> Any:
    if name in _TIMES:
        return None if value is None else from_micros(value)
    if name == "uptime":
        return {int(day): seconds for day, seconds in orjson.loads(value).items()}
    if name == "days":
        return tuple(orjson.loads(value))
    return State(value) if name == "state" else value


def _monitor(row: Row[Any]) -> Monitor:
    return Monitor(**{name: _read(name, getattr(row, name)) for name in _FIELDS})
