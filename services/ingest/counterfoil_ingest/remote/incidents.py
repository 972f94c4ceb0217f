"""Governance's incidents: told of what monitors noticed, and followed for what people did."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from typing import Final

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import incidents_pb2 as pb
from counterfoil.governance.v1.incidents_pb2_grpc import IncidentServiceStub
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_ingest.monitoring import Ended
from counterfoil_ingest.monitors import End

PRODUCER: Final = "ingest"
_SECONDS: Final = 10.0


class IncidentsClient:
    """Tells and follows incidents, in ingest's own name."""

    def __init__(self, channel: grpc.aio.Channel, *, signer: TokenSigner) -> None:
        self._stub = IncidentServiceStub(channel)
        self._signer = signer

    async def deliver(self, reports: Sequence[bytes]) -> None:
        """Tell governance, one after the other, what became of incidents; the same again changes nothing there."""
        for report in reports:
            request = pb.ReportIncidentRequest.FromString(report)
            await self._stub.ReportIncident(request, **outgoing(default=_SECONDS, signer=self._signer))

    def follow(self, told: Callable[[Ended], None]) -> Watcher:
        """Return what tells of each of ingest's incidents that governance holds for open, and how one ended there."""

        def put(_key: str, packed: any_pb2.Any) -> None:
            incident = pb.Incident()
            packed.Unpack(incident)
            if incident.producer != PRODUCER:
                return
            over = incident.state == pb.Incident.RESOLVED
            end = End(incident.resolved_by, incident.reason, incident.breach_accepted) if over else None
            monitor_id = incident.resource.removeprefix("monitors/")
            told(Ended(incident.workspace, monitor_id, incident.incident_id, end))

        def gone(_key: str) -> None:
            """Do nothing: ingest itself has told that it is over."""

        return Watcher(self._watch, put, gone, name="governance incidents")

    def _watch(self, after_revision: int) -> AsyncIterable[WatchResponse]:
        request = pb.WatchIncidentsRequest(after_revision=after_revision)
        return self._stub.WatchIncidents(request, **following(signer=self._signer))
