"""Legal holds and the feed of those that are not released, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from counterfoil.governance.v1 import legal_holds_pb2 as pb
from counterfoil_chassis.clock import from_micros, to_micros, to_timestamp
from counterfoil_chassis.tables import TABLES
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy import Row, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import LegalHold
from counterfoil_governance.sql.tables import LEGAL_HOLDS

TOPIC: Final = "legal_holds"
_DIGEST_BYTES: Final = 32
_TIMES: Final = ("expires_at", "created_at", "released_at")
_holds = LEGAL_HOLDS.c


class SqlLegalHolds:
    """Legal holds of one open connection; the feed's keys are `<workspace>/<legal_hold_id>`."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def find(self, workspace: str, legal_hold_id: str) -> LegalHold | None:
        """Return one hold, or None when it is not of this workspace."""
        one = select(LEGAL_HOLDS).where(_holds.workspace == workspace, _holds.legal_hold_id == legal_hold_id)
        row = (await self._connection.execute(one)).first()
        return None if row is None else _hold(row)

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[LegalHold]:
        """Return at most `limit` holds with ids below `before` ("" = from the newest), newest first."""
        some = select(LEGAL_HOLDS).where(_holds.workspace == workspace)
        if before:
            some = some.where(_holds.legal_hold_id < before)
        rows = await self._connection.execute(some.order_by(_holds.legal_hold_id.desc()).limit(limit))
        return [_hold(row) for row in rows]

    async def unreleased(self, workspace: str) -> Sequence[LegalHold]:
        """Return the holds that nobody has released, some of which may have ended by themselves."""
        some = select(LEGAL_HOLDS).where(_holds.workspace == workspace, _holds.released_at.is_(None))
        return [_hold(row) for row in await self._connection.execute(some.order_by(_holds.legal_hold_id))]

    async def put(self, hold: LegalHold) -> None:
        """Keep a hold as it now is, and let the watchers know; one that is released leaves the feed.

        The key of the hashes is not stored beside them: whoever streams the feed adds it.
        """
        values: dict[str, Any] = asdict(hold)
        for name in _TIMES:
            values[name] = None if values[name] is None else to_micros(values[name])
        values["identifier_types"] = " ".join(hold.identifier_types)
        values["identifier_hashes"] = b"".join(hold.identifier_hashes)
        place = and_(_holds.workspace == hold.workspace, _holds.legal_hold_id == hold.legal_hold_id)
        updated = await self._connection.execute(update(LEGAL_HOLDS).where(place).values(values))
        if not updated.rowcount:
            await self._connection.execute(insert(LEGAL_HOLDS).values(values))
        key = f"{hold.workspace}/{hold.legal_hold_id}"
        if hold.released_at is None:
            await record_put(self._connection, topic=TOPIC, key=key, resource=_held(hold))
        else:
            await record_delete(self._connection, topic=TOPIC, key=key)
        self._feed.changed(self._connection)

    async def unpublished(self) -> Sequence[LegalHold]:
        """Return the unreleased holds of every workspace that the feed knows nothing of."""
        changes = TABLES.change.c
        told = select(changes.key).where(changes.topic == TOPIC, changes.deleted.is_(False))
        keys = {key for (key,) in await self._connection.execute(told)}
        rows = await self._connection.execute(select(LEGAL_HOLDS).where(_holds.released_at.is_(None)))
        return [_hold(row) for row in rows if f"{row.workspace}/{row.legal_hold_id}" not in keys]


def _held(hold: LegalHold) -> pb.HeldData:
    return pb.HeldData(
        workspace=hold.workspace,
        legal_hold_id=hold.legal_hold_id,
        dataset=hold.dataset,
        identifier_hashes=hold.identifier_hashes,
        expires_at=None if hold.expires_at is None else to_timestamp(hold.expires_at),
    )


def _hold(row: Row[Any]) -> LegalHold:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public accessor, its underscore avoids column names)
    for name in _TIMES:
        values[name] = None if values[name] is None else from_micros(values[name])
    hashes: bytes = values["identifier_hashes"]
    values["identifier_hashes"] = tuple(hashes[at : at + _DIGEST_BYTES] for at in range(0, len(hashes), _DIGEST_BYTES))
    values["identifier_types"] = tuple(row.identifier_types.split())
    return LegalHold(**values)
