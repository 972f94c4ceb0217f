"""QuarantineService: what broke its contract, to be read."""

from __future__ import annotations

import grpc
from counterfoil.common.v1.verdict_pb2 import Finding as FindingMessage
from counterfoil.ingest.v1 import quarantine_pb2 as pb
from counterfoil.ingest.v1.quarantine_pb2_grpc import QuarantineServiceServicer
from counterfoil_chassis.clock import from_micros, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_ingest.entities import Quarantined
from counterfoil_ingest.store import QuarantineStore

Context = grpc.aio.ServicerContext[Message, Message]


class QuarantineServicer(QuarantineServiceServicer):
    """Serves the quarantined records of the caller's workspace."""

    def __init__(self, quarantine: QuarantineStore, *, pager: Pager) -> None:
        self._quarantine = quarantine
        self._pager = pager

    async def GetQuarantinedRecord(
        self, request: pb.GetQuarantinedRecordRequest, context: Context
    ) -> pb.QuarantinedRecord:
        """Return one quarantined record with its bytes."""
        return to_proto(await self._quarantine.get(current_caller().workspace, request.quarantine_id))

    async def ListQuarantinedRecords(
        self, request: pb.ListQuarantinedRecordsRequest, context: Context
    ) -> pb.ListQuarantinedRecordsResponse:
        """List quarantined records, newest first, without their bytes."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListQuarantinedRecords", workspace=workspace)
        found = await self._quarantine.list(
            workspace,
            dataset=request.dataset,
            reason=request.reason,
            before=page.after[0] if page.after else "",
            limit=page.limit + 1,
        )
        kept = found[: page.limit]
        answer = pb.ListQuarantinedRecordsResponse(quarantined_records=[to_proto(each) for each in kept])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListQuarantinedRecords", workspace=workspace, after=[kept[-1].quarantine_id]
            )
        return answer


def to_proto(record: Quarantined) -> pb.QuarantinedRecord:
    """Return a quarantined record as callers see it."""
    return pb.QuarantinedRecord(
        quarantine_id=record.quarantine_id,
        dataset=record.dataset,
        source_id=record.source_id,
        record_id=record.record_id,
        findings=[FindingMessage(reason=f.reason, path=f.path, detail=f.detail) for f in record.findings],
        contract_id=record.contract_id,
        contract_version=record.contract_version,
        received_at=to_timestamp(from_micros(record.received_at)),
        trace_id=record.traceparent[3:35],
        raw=record.raw,
    )
