"""Incidents: opened and brought up to date by the service that noticed, looked after and ended by people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from counterfoil_governance.entities import Incident
from counterfoil_governance.errors import BreachLastsError, IncidentNotFoundError, IncidentResolvedError
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores

SUPERSEDED: Final = "Another incident of the same resource was opened."


async def get(stores: Stores, workspace: str, incident_id: str) -> Incident:
    """Return one incident; raise IncidentNotFoundError when it is not of this workspace."""
    found = await stores.incidents.find(workspace, incident_id)
    if found is None:
        raise IncidentNotFoundError(
            f"There is no incident {incident_id!r} in this workspace. List the incidents.",
            metadata={"incident_id": incident_id},
        )
    return found


async def report(stores: Stores, told: Incident, *, recorder: Recorder) -> None:
    """Take over what a service tells of an incident of its own; what a person did stays.

    The first report opens it and ends every other incident of its resource: one is open at a time. Once its service has
    told that it is over, it leaves the feed; one that is over and that nobody knows was lost to a restore.
    """
    known = await stores.incidents.find(told.workspace, told.incident_id)
    if told.resolved_at is not None:
        if known is not None:
            await _end(stores, known, told, recorder=recorder)
        return
    if known is None:
        await _end_others(stores, told, recorder=recorder)
        await _record(stores, "incident.open", told, recorder, holds_data=told.holds_data, summary=told.summary)
    now = replace(
        known or told, detail=told.detail, recovered_at=told.recovered_at, holds_data=told.holds_data, owner=told.owner
    )
    await stores.incidents.put(now)
    await stores.incidents.publish(now)


async def acknowledge(stores: Stores, incident_id: str, *, note: str, recorder: Recorder) -> Incident:
    """Let a principal look after an incident; raise IncidentResolvedError when it is over."""
    known = await get(stores, recorder.workspace, incident_id)
    if known.resolved_at is not None:
        raise IncidentResolvedError(
            f"Incident {incident_id!r} is over: {known.reason}", metadata={"incident_id": incident_id}
        )
    now = replace(known, acknowledged_at=recorder.now, acknowledged_by=recorder.principal, note=note)
    await stores.incidents.put(now)
    await stores.incidents.publish(now)
    await _record(stores, "incident.acknowledge", now, recorder, note=note)
    return now


async def resolve(
    stores: Stores, incident_id: str, *, reason: str, accept_breach: bool, recorder: Recorder
) -> Incident:
    """End an incident, so that its service releases what it holds; one that is over stays as it is.

    Raises BreachLastsError while the promise is broken, unless that is accepted.
    """
    known = await get(stores, recorder.workspace, incident_id)
    if known.resolved_at is not None:
        return known
    if known.recovered_at is None and not accept_breach:
        raise BreachLastsError(
            f"The promise is still broken: {known.detail} Mend the data, or say accept_breach.",
            metadata={"incident_id": incident_id, "resource": known.resource},
        )
    now = replace(
        known,
        resolved_at=recorder.now,
        resolved_by=recorder.principal,
        reason=reason,
        breach_accepted=known.recovered_at is None,
    )
    await stores.incidents.put(now)
    await stores.incidents.publish(now)
    await _record_end(stores, now, recorder)
    return now


async def _end(stores: Stores, known: Incident, told: Incident, *, recorder: Recorder) -> None:
    """Take over that an incident is over, unless somebody ended it before."""
    if known.resolved_at is None:
        known = replace(
            known,
            detail=told.detail or known.detail,
            recovered_at=told.recovered_at or known.recovered_at,
            resolved_at=told.resolved_at,
            resolved_by=told.resolved_by,
            reason=told.reason,
            breach_accepted=told.breach_accepted,
        )
        await stores.incidents.put(known)
        await _record_end(stores, known, replace(recorder, principal=told.resolved_by or recorder.principal))
    await stores.incidents.withdraw(known)


async def _end_others(stores: Stores, told: Incident, *, recorder: Recorder) -> None:
    others: Sequence[Incident] = await stores.incidents.unresolved(told.workspace, told.producer, told.resource)
    for other in others:
        ended = replace(other, resolved_at=recorder.now, resolved_by=recorder.principal, reason=SUPERSEDED)
        await stores.incidents.put(ended)
        await stores.incidents.withdraw(ended)
        await _record_end(stores, ended, recorder)


async def _record_end(stores: Stores, incident: Incident, recorder: Recorder) -> None:
    details = {"held_data": incident.holds_data, "breach_accepted": incident.breach_accepted}
    await _record(stores, "incident.resolve", incident, recorder, reason=incident.reason, **details)


async def _record(stores: Stores, action: str, incident: Incident, recorder: Recorder, **details: Any) -> None:
    about = {"resource": incident.resource, "dataset": incident.dataset, "owner": incident.owner}
    await recorder.record(stores, action, f"incidents/{incident.incident_id}", about=about, **details)
