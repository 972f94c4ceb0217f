"""Incidents and the feed of those that their service has not told to be over, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy import ColumnElement, Row, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Incident, IncidentState
from counterfoil_governance.messages import incident_message
from counterfoil_governance.sql.tables import INCIDENTS

TOPIC: Final = "incidents"
_TIMES: Final = ("opened_at", "recovered_at", "acknowledged_at", "resolved_at")
_incidents = INCIDENTS.c
_STATES: Final[dict[IncidentState, ColumnElement[bool]]] = {
    IncidentState.OPEN: and_(_incidents.resolved_at.is_(None), _incidents.acknowledged_at.is_(None)),
    IncidentState.ACKNOWLEDGED: and_(_incidents.resolved_at.is_(None), _incidents.acknowledged_at.is_not(None)),
    IncidentState.RESOLVED: _incidents.resolved_at.is_not(None),
}


class SqlIncidents:
    """Incidents of one open connection; the feed's keys are `<workspace>/<incident_id>`."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def find(self, workspace: str, incident_id: str) -> Incident | None:
        """Return one incident, or None when it is not of this workspace."""
        one = select(INCIDENTS).where(_incidents.workspace == workspace, _incidents.incident_id == incident_id)
        row = (await self._connection.execute(one)).first()
        return None if row is None else _incident(row)

    async def list(
        self, workspace: str, *, state: IncidentState | None, dataset: str, before: str, limit: int
    ) -> Sequence[Incident]:
        """Return at most `limit` incidents with ids below `before` ("" = from the newest), newest first."""
        some = select(INCIDENTS).where(_incidents.workspace == workspace)
        if state is not None:
            some = some.where(_STATES[state])
        if dataset:
            some = some.where(_incidents.dataset == dataset)
        if before:
            some = some.where(_incidents.incident_id < before)
        rows = await self._connection.execute(some.order_by(_incidents.incident_id.desc()).limit(limit))
        return [_incident(row) for row in rows]

    async def unresolved(self, workspace: str, producer: str, resource: str) -> Sequence[Incident]:
        """Return a resource's incidents that are not over."""
        some = select(INCIDENTS).where(
            _incidents.workspace == workspace,
            _incidents.producer == producer,
            _incidents.resource == resource,
            _incidents.resolved_at.is_(None),
        )
        return [_incident(row) for row in await self._connection.execute(some)]

    async def put(self, incident: Incident) -> None:
        """Keep an incident as it now is."""
        values: dict[str, Any] = asdict(incident)
        for name in _TIMES:
            values[name] = None if values[name] is None else to_micros(values[name])
        place = and_(_incidents.workspace == incident.workspace, _incidents.incident_id == incident.incident_id)
        updated = await self._connection.execute(update(INCIDENTS).where(place).values(values))
        if not updated.rowcount:
            await self._connection.execute(insert(INCIDENTS).values(values))

    async def publish(self, incident: Incident) -> None:
        """Let the producer know how an incident is."""
        resource = incident_message(incident, for_service=True)
        await record_put(self._connection, topic=TOPIC, key=_key(incident), resource=resource)
        self._feed.changed(self._connection)

    async def withdraw(self, incident: Incident) -> None:
        """Tell the producer no more of an incident."""
        await record_delete(self._connection, topic=TOPIC, key=_key(incident))
        self._feed.changed(self._connection)


def _key(incident: Incident) -> str:
    return f"{incident.workspace}/{incident.incident_id}"


def _incident(row: Row[Any]) -> Incident:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public accessor, its underscore avoids column names)
    return Incident(**{name: _read(name, value) for name, value in values.items()})


def _read(name: str, value: Any) -> Any:
    return from_micros(value) if name in _TIMES and value is not None else value
