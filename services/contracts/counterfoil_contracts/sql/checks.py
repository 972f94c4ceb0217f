"""Checks in SQL, and the feed of those that wait, which ingest watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.database import Database
from counterfoil_chassis.watch import Feed, record_delete, record_put
from google.protobuf.message import Message
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.check_entities import Check, CheckState, ProfileSubject, TrialSubject, Wanted
from counterfoil_contracts.check_errors import CheckNotFoundError
from counterfoil_contracts.sql.tables import CHECKS

TOPIC: Final = "checks"

ToPending = Callable[[Wanted], Message]
_LIGHT: Final = [column for column in CHECKS.c if column.name != "result"]


class SqlCheckTransactions:
    """Transactions on checks whose changes reach the feed's watchers once they commit."""

    def __init__(self, database: Database, feed: Feed, to_pending: ToPending) -> None:
        self._database = database
        self._feed = feed
        self._to_pending = to_pending

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlChecks]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield SqlChecks(connection, self._feed, self._to_pending)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlChecks]:
        """Open one that reads one state."""
        async with self._database.read() as connection:
            yield SqlChecks(connection, self._feed, self._to_pending)


class SqlChecks:
    """Checks of one open connection; the feed's keys are `<workspace>/<check_id>`."""

    def __init__(self, connection: AsyncConnection, feed: Feed, to_pending: ToPending) -> None:
        self.connection = connection
        self._feed = feed
        self._to_pending = to_pending

    async def add(self, wanted: Wanted) -> None:
        """Keep a new check and have ingest told of it once the transaction commits."""
        check = wanted.check
        kind = "trial" if isinstance(check.subject, TrialSubject) else "profile"
        await self.connection.execute(
            insert(CHECKS).values(
                workspace=check.workspace,
                check_id=check.check_id,
                state=check.state.value,
                records=check.records,
                subject=orjson.dumps({kind: asdict(check.subject)}),
                created_by=check.created_by,
                created_at=to_micros(check.created_at),
            )
        )
        await record_put(self.connection, topic=TOPIC, key=_key(check), resource=self._to_pending(wanted))
        self._feed.changed(self.connection)

    async def get(self, workspace: str, check_id: str) -> Check:
        """Return one check with its result; raise CheckNotFoundError when absent or in another workspace."""
        row = (await self.connection.execute(select(CHECKS).where(_is(workspace, check_id)))).one_or_none()
        if row is None:
            raise CheckNotFoundError(
                f"There is no check {check_id!r} in this workspace. List the checks to find it.",
                metadata={"check_id": check_id},
            )
        return _check(row, result=row.result or b"")

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[Check]:
        """Return at most `limit` checks with ids below `before` (empty = the newest), newest first, without results."""
        query = select(*_LIGHT).where(CHECKS.c.workspace == workspace).order_by(CHECKS.c.check_id.desc()).limit(limit)
        if before:
            query = query.where(CHECKS.c.check_id < before)
        return [_check(row, result=b"") for row in await self.connection.execute(query)]

    async def pending(self, workspace: str) -> int:
        """Return how many wait."""
        waits = and_(CHECKS.c.workspace == workspace, CHECKS.c.state == CheckState.PENDING.value)
        return (await self.connection.execute(select(func.count()).select_from(CHECKS).where(waits))).scalar_one()

    async def finish(self, check: Check) -> None:
        """Keep a check that is no longer pending; ingest hears that it need not run it."""
        values = {
            "state": check.state.value,
            "finished_at": None if check.finished_at is None else to_micros(check.finished_at),
            "result": check.result,
        }
        await self.connection.execute(update(CHECKS).where(_is(check.workspace, check.check_id)).values(values))
        await record_delete(self.connection, topic=TOPIC, key=_key(check))
        self._feed.changed(self.connection)

    async def forget_older(self, workspace: str, *, kept: int) -> None:
        """Forget all but the newest checks."""
        for check in (await self.list(workspace, before="", limit=2 * kept))[kept:]:
            await self.connection.execute(delete(CHECKS).where(_is(workspace, check.check_id)))
            if check.state is CheckState.PENDING:
                await record_delete(self.connection, topic=TOPIC, key=_key(check))
                self._feed.changed(self.connection)


def _key(check: Check) -> str:
    return f"{check.workspace}/{check.check_id}"


def _is(workspace: str, check_id: str) -> ColumnElement[bool]:
    return and_(CHECKS.c.workspace == workspace, CHECKS.c.check_id == check_id)


def _check(row: Row[Any], *, result: bytes) -> Check:
    ((kind, values),) = orjson.loads(row.subject).items()
    return Check(
        workspace=row.workspace,
        check_id=row.check_id,
        state=CheckState(row.state),
        subject=TrialSubject(**values) if kind == "trial" else ProfileSubject(**values),
        records=row.records,
        created_by=row.created_by,
        created_at=from_micros(row.created_at),
        finished_at=None if row.finished_at is None else from_micros(row.finished_at),
        result=result,
    )
