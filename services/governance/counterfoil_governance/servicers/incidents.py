"""IncidentService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import incidents_pb2 as pb
from counterfoil.governance.v1.incidents_pb2_grpc import IncidentServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import incidents
from counterfoil_governance.entities import Incident
from counterfoil_governance.messages import INCIDENT_STATES, incident_message
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]
_STATES = {value: state for state, value in INCIDENT_STATES.items()}


class IncidentServicer(IncidentServiceServicer):
    """Serves the incidents of the caller's workspace, and takes them from the services that notice them."""

    def __init__(self, transactions: Transactions, *, feed: Feed, pager: Pager, clock: Clock, ids: Ids) -> None:
        self._transactions = transactions
        self._feed = feed
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def GetIncident(self, request: pb.GetIncidentRequest, context: Context) -> pb.Incident:
        """Return one incident."""
        async with self._transactions.read() as stores:
            return incident_message(await incidents.get(stores, current_caller().workspace, request.incident_id))

    async def ListIncidents(self, request: pb.ListIncidentsRequest, context: Context) -> pb.ListIncidentsResponse:
        """List the workspace's incidents, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListIncidents", workspace=workspace)
        async with self._transactions.read() as stores:
            found = await stores.incidents.list(
                workspace,
                state=_STATES.get(request.state),
                dataset=request.dataset,
                before=page.after[0] if page.after else "",
                limit=page.limit + 1,
            )
        shown = found[: page.limit]
        answer = pb.ListIncidentsResponse(incidents=map(incident_message, shown))
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListIncidents", workspace=workspace, after=[shown[-1].incident_id]
            )
        return answer

    async def AcknowledgeIncident(self, request: pb.AcknowledgeIncidentRequest, context: Context) -> pb.Incident:
        """Let the caller look after an incident."""
        async with self._transactions.begin() as stores:
            found = await incidents.acknowledge(
                stores, request.incident_id, note=request.note, recorder=self._recorder()
            )
        return incident_message(found)

    async def ResolveIncident(self, request: pb.ResolveIncidentRequest, context: Context) -> pb.Incident:
        """End an incident."""
        async with self._transactions.begin() as stores:
            found = await incidents.resolve(
                stores,
                request.incident_id,
                reason=request.reason,
                accept_breach=request.accept_breach,
                recorder=self._recorder(),
            )
        return incident_message(found)

    async def ReportIncident(self, request: pb.ReportIncidentRequest, context: Context) -> pb.ReportIncidentResponse:
        """Take over what a service tells of an incident of its own."""
        caller = current_caller()
        told = _told(request.incident, producer=caller.service)
        recorder = Recorder(told.workspace, caller.principal, self._ids, self._clock)
        async with self._transactions.begin() as stores:
            await incidents.report(stores, told, recorder=recorder)
        return pb.ReportIncidentResponse()

    async def WatchIncidents(self, request: pb.WatchIncidentsRequest, context: Context) -> AsyncIterator[WatchResponse]:
        """Stream every workspace's incidents that their service has not told to be over."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    def _recorder(self) -> Recorder:
        caller = current_caller()
        return Recorder(caller.workspace, caller.principal, self._ids, self._clock)


def _told(message: pb.Incident, *, producer: str) -> Incident:
    def moment(name: str) -> datetime | None:
        return from_timestamp(getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]

    return Incident(
        workspace=message.workspace,
        incident_id=message.incident_id,
        producer=producer,
        resource=message.resource,
        dataset=message.dataset,
        contract_id=message.contract_id,
        contract_version=message.contract_version,
        owner=message.owner,
        severity=message.severity,
        summary=message.summary,
        detail=message.detail,
        holds_data=message.holds_data,
        opened_at=from_timestamp(message.opened_at),
        recovered_at=moment("recovered_at"),
        resolved_at=moment("resolved_at"),
        resolved_by=message.resolved_by,
        reason=message.reason,
        breach_accepted=message.breach_accepted,
    )
