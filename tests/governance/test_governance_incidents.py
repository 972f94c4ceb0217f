"""Incidents: opened by the service that notices, looked after and ended by people, told back to the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from counterfoil.governance.v1 import audit_pb2
from counterfoil.governance.v1 import incidents_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from tests.governance.calls import Governance, refused

FIRST, SECOND = "01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"
State = pb.Incident.State


def breach(governance: Governance, incident_id: str = FIRST, **changed: Any) -> pb.Incident:
    values = {
        "incident_id": incident_id,
        "workspace": "default",
        "resource": "monitors/ad_spend.latency",
        "dataset": "ad_spend",
        "contract_id": "ads",
        "contract_version": "1.2.0",
        "owner": "Paid media",
        "severity": "error",
        "summary": "The newest record is at most 1 d old.",
        "detail": "It is 2 d old.",
        "holds_data": True,
        "opened_at": to_timestamp(governance.clock.now()),
        **changed,
    }
    return pb.Incident(**values)


async def report(governance: Governance, incident: pb.Incident) -> None:
    request = pb.ReportIncidentRequest(incident=incident)
    await governance.incidents.ReportIncident(request, **governance.as_service("ingest"))


async def get(governance: Governance, incident_id: str = FIRST, workspace: str = "default") -> pb.Incident:
    request = pb.GetIncidentRequest(incident_id=incident_id)
    return await governance.incidents.GetIncident(request, **governance.as_principal(workspace=workspace))


async def resolve(governance: Governance, incident_id: str = FIRST, **asked: Any) -> pb.Incident:
    request = pb.ResolveIncidentRequest(incident_id=incident_id, reason="The export runs again.", **asked)
    return await governance.incidents.ResolveIncident(request, **governance.as_principal())


async def audited(governance: Governance) -> list[tuple[str, str, dict[str, Any]]]:
    request = audit_pb2.ListAuditEntriesRequest(page_size=1000)
    entries = (await governance.audit.ListAuditEntries(request, **governance.as_principal())).entries
    return [
        (each.principal, each.action, json.loads(each.details))
        for each in entries
        if each.action.startswith("incident.")
    ]


class Feed:
    """What ingest watches, until a heartbeat says that it has come to the present."""

    def __init__(self, governance: Governance) -> None:
        request = pb.WatchIncidentsRequest()
        call = governance.incidents.WatchIncidents(request, **governance.as_service("ingest"))
        self._responses: AsyncIterator[Any] = aiter(call)

    async def next(self) -> pb.Incident | str:
        """Return the next incident, or the key of one that is told no more."""
        async with asyncio.timeout(60):
            async for response in self._responses:
                if response.HasField("put"):
                    incident = pb.Incident()
                    response.put.resource.Unpack(incident)
                    return incident
                if response.HasField("delete"):
                    return str(response.delete.key)
        raise AssertionError("the feed ended")


async def test_a_reported_breach_is_an_open_incident_with_its_owner(governance: Governance) -> None:
    await report(governance, breach(governance))
    found = await get(governance)
    assert (found.state, found.producer, found.owner, found.holds_data) == (State.OPEN, "ingest", "Paid media", True)
    assert (found.summary, found.detail) == ("The newest record is at most 1 d old.", "It is 2 d old.")
    assert not found.workspace
    assert await audited(governance) == [
        (
            "service:ingest",
            "incident.open",
            {
                "about": {"resource": "monitors/ad_spend.latency", "dataset": "ad_spend", "owner": "Paid media"},
                "holds_data": True,
                "summary": "The newest record is at most 1 d old.",
            },
        )
    ]


async def test_the_same_report_again_changes_nothing(governance: Governance) -> None:
    told = breach(governance)
    for _ in range(3):
        await report(governance, told)
    listed = await governance.incidents.ListIncidents(pb.ListIncidentsRequest(), **governance.as_principal())
    assert [each.incident_id for each in listed.incidents] == [FIRST]
    assert len(await audited(governance)) == 1


async def test_somebody_looks_after_it_and_ends_it_once_the_promise_is_kept(governance: Governance) -> None:
    await report(governance, breach(governance))
    request = pb.AcknowledgeIncidentRequest(incident_id=FIRST, note="I ask the agency.")
    caller = governance.as_principal(principal="ada")
    taken = await governance.incidents.AcknowledgeIncident(request, **caller)
    assert (taken.state, taken.acknowledged_by, taken.note) == (State.ACKNOWLEDGED, "ada", "I ask the agency.")
    with refused("BREACH_LASTS"):
        await resolve(governance)
    recovered = to_timestamp(governance.clock.now())
    await report(governance, breach(governance, detail="It is 1 h old.", recovered_at=recovered))
    still = await get(governance)
    assert (still.state, still.note, still.detail) == (State.ACKNOWLEDGED, "I ask the agency.", "It is 1 h old.")
    done = await resolve(governance)
    assert (done.state, done.resolved_by, done.breach_accepted) == (State.RESOLVED, "admin", False)
    assert await resolve(governance, accept_breach=True) == done
    with refused("INCIDENT_RESOLVED"):
        await governance.incidents.AcknowledgeIncident(request, **caller)
    assert [(who, action) for who, action, _ in await audited(governance)] == [
        ("service:ingest", "incident.open"),
        ("ada", "incident.acknowledge"),
        ("admin", "incident.resolve"),
    ]


async def test_a_breach_that_lasts_can_be_accepted_and_the_audit_log_says_so(governance: Governance) -> None:
    await report(governance, breach(governance))
    assert (await resolve(governance, accept_breach=True)).breach_accepted
    assert (await audited(governance))[-1][2]["breach_accepted"] is True


async def test_the_service_learns_what_people_do_until_it_has_told_that_it_is_over(governance: Governance) -> None:
    feed = Feed(governance)
    await report(governance, breach(governance))
    opened = await feed.next()
    assert isinstance(opened, pb.Incident)
    assert (opened.workspace, opened.incident_id, opened.state) == ("default", FIRST, State.OPEN)
    await resolve(governance, accept_breach=True)
    ended = await feed.next()
    assert isinstance(ended, pb.Incident)
    assert (ended.state, ended.resolved_by) == (State.RESOLVED, "admin")
    over = {"resolved_at": to_timestamp(governance.clock.now()), "resolved_by": "service:ingest", "reason": "Released."}
    await report(governance, breach(governance, **over))
    assert await feed.next() == f"default/{FIRST}"
    assert (await get(governance)).resolved_by == "admin", "what a person did stays"


async def test_the_service_ends_its_incident_itself_in_the_name_of_who_resumed(governance: Governance) -> None:
    await report(governance, breach(governance))
    over = {"resolved_at": to_timestamp(governance.clock.now()), "resolved_by": "grace", "reason": "Loaded again."}
    await report(governance, breach(governance, recovered_at=over["resolved_at"], **over))
    found = await get(governance)
    assert (found.state, found.resolved_by, found.reason) == (State.RESOLVED, "grace", "Loaded again.")
    assert [(who, action) for who, action, _ in await audited(governance)][-1] == ("grace", "incident.resolve")


async def test_one_incident_of_a_resource_is_open_at_a_time(governance: Governance) -> None:
    await report(governance, breach(governance, FIRST))
    await report(governance, breach(governance, SECOND))
    assert [(await get(governance, each)).state for each in (FIRST, SECOND)] == [State.RESOLVED, State.OPEN]


async def test_lists_are_filtered_and_come_in_pages_newest_first(governance: Governance) -> None:
    await report(governance, breach(governance, FIRST))
    await report(governance, breach(governance, SECOND, resource="monitors/orders.rowCount", dataset="orders"))
    admin = governance.as_principal()

    async def listed(**asked: Any) -> list[str]:
        answer = await governance.incidents.ListIncidents(pb.ListIncidentsRequest(**asked), **admin)
        return [each.incident_id for each in answer.incidents]

    first = await governance.incidents.ListIncidents(pb.ListIncidentsRequest(page_size=1), **admin)
    assert [each.incident_id for each in first.incidents] == [SECOND]
    assert await listed(page_size=1, page_token=first.next_page_token) == [FIRST]
    assert await listed(dataset="ad_spend") == [FIRST]
    await resolve(governance, FIRST, accept_breach=True)
    request = pb.AcknowledgeIncidentRequest(incident_id=SECOND)
    await governance.incidents.AcknowledgeIncident(request, **admin)
    assert await listed(state=State.RESOLVED) == [FIRST]
    assert await listed(state=State.ACKNOWLEDGED) == [SECOND]
    assert await listed(state=State.OPEN) == []


async def test_another_workspace_sees_and_ends_nothing(governance: Governance) -> None:
    await report(governance, breach(governance))
    other = governance.as_principal(workspace="other")
    with refused("INCIDENT_NOT_FOUND"):
        await get(governance, workspace="other")
    for call, request in (
        (governance.incidents.AcknowledgeIncident, pb.AcknowledgeIncidentRequest(incident_id=FIRST)),
        (governance.incidents.ResolveIncident, pb.ResolveIncidentRequest(incident_id=FIRST, reason="x")),
    ):
        with refused("INCIDENT_NOT_FOUND"):
            await call(request, **other)
    assert not (await governance.incidents.ListIncidents(pb.ListIncidentsRequest(), **other)).incidents


@pytest.mark.parametrize("service", ["models", "graph", "contracts"])
async def test_only_a_service_that_has_incidents_reports_them(governance: Governance, service: str) -> None:
    request = pb.ReportIncidentRequest(incident=breach(governance))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await governance.incidents.ReportIncident(request, **governance.as_service(service))
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_incident_survives_the_clock_and_keeps_when_it_began(governance: Governance) -> None:
    told = breach(governance)
    await report(governance, told)
    governance.clock.move(timedelta(hours=1))
    await report(governance, told)
    assert (await get(governance)).opened_at == told.opened_at
