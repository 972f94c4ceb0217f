"""What was done to contracts, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, and_, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.evolution import ChangelogAction, ChangelogEntry, FieldChange, FieldFate, Level
from counterfoil_contracts.sql.tables import CHANGELOG


class SqlChangelog:
    """The changelogs of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entry: ChangelogEntry) -> None:
        """Keep an entry under the contract's next number."""
        place = and_(CHANGELOG.c.workspace == entry.workspace, CHANGELOG.c.contract_id == entry.contract_id)
        newest = (await self._connection.execute(select(func.max(CHANGELOG.c.number)).where(place))).scalar()
        await self._connection.execute(
            insert(CHANGELOG).values(
                workspace=entry.workspace,
                contract_id=entry.contract_id,
                number=(newest or 0) + 1,
                version=entry.version,
                action=entry.action.value,
                principal=entry.principal,
                reason=entry.reason,
                at=to_micros(entry.at),
                details=orjson.dumps(_details(entry)),
            )
        )

    async def list(self, workspace: str, contract_id: str, *, before: int, limit: int) -> Sequence[ChangelogEntry]:
        """Return at most `limit` entries numbered below `before` (0 = all), newest first."""
        wanted = [CHANGELOG.c.workspace == workspace, CHANGELOG.c.contract_id == contract_id]
        if before:
            wanted.append(CHANGELOG.c.number < before)
        query = select(CHANGELOG).where(*wanted).order_by(CHANGELOG.c.number.desc()).limit(limit)
        return [_entry(row) for row in await self._connection.execute(query)]

    async def withdrawn(self, workspace: str, contract_id: str, version: str) -> int:
        """Return how often a version was withdrawn."""
        place = and_(
            CHANGELOG.c.workspace == workspace,
            CHANGELOG.c.contract_id == contract_id,
            CHANGELOG.c.version == version,
            CHANGELOG.c.action == ChangelogAction.WITHDRAWN.value,
        )
        return (await self._connection.execute(select(func.count()).select_from(CHANGELOG).where(place))).scalar_one()


def _details(entry: ChangelogEntry) -> dict[str, Any]:
    return {
        "previous_version": entry.previous_version,
        "change_id": entry.change_id,
        "level": None if entry.level is None else entry.level.value,
        "fields": [(each.dataset, each.path, each.fate.value) for each in entry.fields],
        "consumers": entry.consumers,
        "sunset_at": None if entry.sunset_at is None else to_micros(entry.sunset_at),
    }


def _entry(row: Row[Any]) -> ChangelogEntry:
    details = orjson.loads(row.details)
    level, sunset = details.get("level"), details.get("sunset_at")
    return ChangelogEntry(
        workspace=row.workspace,
        contract_id=row.contract_id,
        version=row.version,
        action=ChangelogAction(row.action),
        principal=row.principal,
        at=from_micros(row.at),
        number=row.number,
        reason=row.reason,
        previous_version=details.get("previous_version", ""),
        change_id=details.get("change_id", ""),
        level=None if level is None else Level(level),
        fields=tuple(FieldChange(dataset, path, FieldFate(fate)) for dataset, path, fate in details.get("fields", ())),
        consumers=tuple(details.get("consumers", ())),
        sunset_at=None if sunset is None else from_micros(sunset),
    )
