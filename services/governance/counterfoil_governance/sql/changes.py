"""Changes and votes in SQL, and their feed; triggers refuse any edit of what was asked for and of votes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.errors import AbortedError
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy import ColumnElement, Row, and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Change, ChangeState, Standing, Verdict, Vote
from counterfoil_governance.errors import ChangeNotFoundError, VoteExistsError
from counterfoil_governance.messages import change_message
from counterfoil_governance.sql.tables import CHANGES, VOTES

TOPIC: Final = "changes"
_UNPUBLISHED_AT_ONCE: Final = 100
_columns = CHANGES.c


class SqlChanges:
    """Changes of one open connection."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def get(self, workspace: str, change_id: str) -> Change:
        """Return one change with its votes; raise ChangeNotFoundError when absent or in another workspace."""
        found = await self._changes(_columns.workspace == workspace, _columns.change_id == change_id)
        if not found:
            raise ChangeNotFoundError(
                f"There is no change {change_id!r} in this workspace.", metadata={"change_id": change_id}
            )
        return found[0]

    async def find(self, workspace: str, *, service: str, request_id: str) -> Change | None:
        """Return the change that a service made with a request id, or None."""
        found = await self._changes(
            _columns.workspace == workspace, _columns.service == service, _columns.request_id == request_id
        )
        return found[0] if found else None

    async def list(
        self, workspace: str, *, outcome: ChangeState | None, unsettled: bool, before: str, limit: int
    ) -> Sequence[Change]:
        """Return at most `limit` changes with ids below `before` ("" = from the newest), newest first.

        Only those settled in one way when `outcome` is given, only those that are not settled when `unsettled` is.
        """
        wanted = [_columns.workspace == workspace]
        if outcome is not None:
            wanted.append(_columns.outcome == outcome.value)
        if unsettled:
            wanted.append(_columns.outcome == "")
        if before:
            wanted.append(_columns.change_id < before)
        return await self._changes(*wanted, limit=limit)

    async def add(self, change: Change) -> None:
        """Keep a new change."""
        values = {
            "workspace": change.workspace,
            "change_id": change.change_id,
            "service": change.service,
            "request_id": change.request_id,
            "kind": change.kind,
            "resource": change.resource,
            "payload": change.payload,
            "requester": change.requester,
            "reason": change.reason,
            "policy_id": change.policy_id,
            "quorum": change.quorum,
            "created_at": to_micros(change.created_at),
            "pending_until": to_micros(change.pending_until),
            "outcome": "",
            "detail": "",
        }
        await self._connection.execute(insert(CHANGES).values(values))

    async def add_vote(self, change: Change, vote: Vote) -> None:
        """Append a vote; raise VoteExistsError when this voter has voted."""
        values = {
            "workspace": change.workspace,
            "change_id": change.change_id,
            "voter": vote.voter,
            "requester": change.requester,
            "verdict": vote.verdict.value,
            "reason": vote.reason,
            "payload_sha256": vote.payload_sha256,
            "voted_at": to_micros(vote.voted_at),
            "mac": vote.mac,
        }
        try:
            await self._connection.execute(insert(VOTES).values(values))
        except IntegrityError as error:
            raise VoteExistsError(
                "You voted on this change already.", metadata={"change_id": change.change_id}
            ) from error

    async def settle(self, change: Change) -> None:
        """Keep how a change ended; raise AbortedError when somebody else has settled it meanwhile."""
        if change.outcome is None or change.settled_at is None:
            raise ValueError("the change is not settled")
        values = {
            "outcome": change.outcome.value,
            "settled_at": to_micros(change.settled_at),
            "detail": change.detail,
        }
        done = await self._connection.execute(update(CHANGES).where(_is(change), _columns.outcome == "").values(values))
        if done.rowcount != 1:
            raise AbortedError("Somebody else settled this change at the same moment. Read it again.")

    async def publish(self, change: Change, standing: Standing, *, until: datetime) -> None:
        """Put a change in the feed as it is now, to stay there until a time."""
        resource = change_message(change, standing, for_service=True)
        await record_put(self._connection, topic=TOPIC, key=_key(change.workspace, change.change_id), resource=resource)
        await self._connection.execute(update(CHANGES).where(_is(change)).values(watched_until=to_micros(until)))
        self._feed.changed(self._connection)

    async def unpublish(self, *, at: datetime) -> None:
        """Take the changes whose time is over out of the feed."""
        over = select(_columns.workspace, _columns.change_id).where(_columns.watched_until <= to_micros(at))
        rows = (await self._connection.execute(over.order_by(_columns.watched_until).limit(_UNPUBLISHED_AT_ONCE))).all()
        for row in rows:
            await record_delete(self._connection, topic=TOPIC, key=_key(row.workspace, row.change_id))
            place = and_(_columns.workspace == row.workspace, _columns.change_id == row.change_id)
            await self._connection.execute(update(CHANGES).where(place).values(watched_until=None))

    async def _changes(self, *wanted: ColumnElement[bool], limit: int = 1) -> Sequence[Change]:
        query = select(CHANGES).where(*wanted).order_by(_columns.change_id.desc()).limit(limit)
        rows = (await self._connection.execute(query)).all()
        if not rows:
            return []
        votes: dict[str, list[Vote]] = {row.change_id: [] for row in rows}
        cast = select(VOTES).where(VOTES.c.workspace == rows[0].workspace, VOTES.c.change_id.in_(votes))
        for row in await self._connection.execute(cast.order_by(VOTES.c.voted_at, VOTES.c.voter)):
            votes[row.change_id].append(_vote(row))
        return [_change(row, votes[row.change_id]) for row in rows]


def _is(change: Change) -> ColumnElement[bool]:
    return and_(_columns.workspace == change.workspace, _columns.change_id == change.change_id)


def _key(workspace: str, change_id: str) -> str:
    return f"{workspace}/{change_id}"


def _vote(row: Row[Any]) -> Vote:
    return Vote(
        voter=row.voter,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        payload_sha256=row.payload_sha256,
        voted_at=from_micros(row.voted_at),
        mac=row.mac,
    )


def _change(row: Row[Any], votes: Sequence[Vote]) -> Change:
    return Change(
        workspace=row.workspace,
        change_id=row.change_id,
        service=row.service,
        request_id=row.request_id,
        kind=row.kind,
        resource=row.resource,
        payload=row.payload,
        requester=row.requester,
        reason=row.reason,
        policy_id=row.policy_id,
        quorum=row.quorum,
        created_at=from_micros(row.created_at),
        pending_until=from_micros(row.pending_until),
        outcome=ChangeState(row.outcome) if row.outcome else None,
        settled_at=None if row.settled_at is None else from_micros(row.settled_at),
        detail=row.detail,
        votes=tuple(votes),
    )
