"""QuarantineService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import orjson
from counterfoil.common.v1.verdict_pb2 import PartitionPosition
from counterfoil.ingest.v1 import quarantine_pb2 as pb
from counterfoil.ingest.v1.quarantine_pb2_grpc import QuarantineServiceServicer
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.clock import Clock, from_micros, to_micros, to_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Page, Pager
from counterfoil_chassis.telemetry import current_traceparent
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from counterfoil_ingest.entities import (
    MAX_RECORD_BYTES,
    Outcome,
    Quarantined,
    QuarantineFilter,
    QuarantineGroup,
    QuarantineState,
    Verdict,
)
from counterfoil_ingest.errors import SelectionInvalidError
from counterfoil_ingest.placing import PARTITION
from counterfoil_ingest.quotas import Quotas
from counterfoil_ingest.repairing import Deed, Repairing, Tell
from counterfoil_ingest.repairs import (
    Change,
    Convert,
    Default,
    Drop,
    Kind,
    Rename,
    Repair,
    read_fix,
    require_patch,
)
from counterfoil_ingest.servicers.records import finding_messages, verdict_message
from counterfoil_ingest.store import QuarantineChanges, QuarantineStore, Statements

Context = grpc.aio.ServicerContext[Message, Message]

_SHOWN_BYTES = 4 << 20  # with the record, and what was made of it, an answer fits into a gRPC message


class QuarantineServicer(QuarantineServiceServicer):
    """Serves the quarantined records of the caller's workspace, and brings them back into the log."""

    def __init__(
        self,
        quarantine: QuarantineStore,
        repairing: Repairing,
        *,
        quotas: Quotas,
        idempotency: Idempotency,
        trail: AuditTrail,
        pager: Pager,
        clock: Clock,
    ) -> None:
        self._quarantine = quarantine
        self._repairing = repairing
        self._quotas = quotas
        self._idempotency = idempotency
        self._trail = trail
        self._pager = pager
        self._clock = clock

    async def GetQuarantinedRecord(
        self, request: pb.GetQuarantinedRecordRequest, context: Context
    ) -> pb.QuarantinedRecord:
        """Return one quarantined record with its bytes."""
        return to_proto(await self._quarantine.get(current_caller().workspace, request.quarantine_id), whole=True)

    async def ListQuarantinedRecords(
        self, request: pb.ListQuarantinedRecordsRequest, context: Context
    ) -> pb.ListQuarantinedRecordsResponse:
        """List quarantined records, newest first, without their bytes."""
        workspace = current_caller().workspace
        page = self._open(request, "ListQuarantinedRecords")
        wanted = QuarantineFilter(
            dataset=request.dataset,
            any_reason=request.reason,
            path=request.path,
            contract_version=request.contract_version,
            source_id=request.source_id,
            import_id=request.import_id,
            state=QuarantineState(request.state) if request.state else None,
        )
        before = page.after[0] if page.after else ""
        found = await self._quarantine.list(workspace, wanted, before=before, limit=page.limit + 1)
        kept = found[: page.limit]
        answer = pb.ListQuarantinedRecordsResponse(quarantined_records=[to_proto(each) for each in kept])
        if len(found) > page.limit:
            answer.next_page_token = self._token(request, "ListQuarantinedRecords", kept[-1].quarantine_id)
        return answer

    async def ListQuarantineGroups(
        self, request: pb.ListQuarantineGroupsRequest, context: Context
    ) -> pb.ListQuarantineGroupsResponse:
        """Count quarantined records by the first of their findings."""
        page = self._open(request, "ListQuarantineGroups")
        found = await self._quarantine.groups(
            current_caller().workspace,
            dataset=request.dataset,
            state=QuarantineState(request.state or QuarantineState.OPEN),
            after=page.after or (),
            limit=page.limit + 1,
        )
        answer = pb.ListQuarantineGroupsResponse(groups=[_group(each) for each in found[: page.limit]])
        if len(found) > page.limit:
            last = answer.groups[-1]
            place = (last.dataset, last.reason, last.path, last.contract_version)
            answer.next_page_token = self._token(request, "ListQuarantineGroups", *place)
        return answer

    async def RepairQuarantinedRecords(
        self, request: pb.RepairQuarantinedRecordsRequest, context: Context
    ) -> pb.RepairQuarantinedRecordsResponse:
        """Repair a page of records, keep what fits them, and tell whether they would pass."""
        page, deed = self._open(request, "RepairQuarantinedRecords"), self._deed()
        repair = _repair(request)
        some, more = await self._some(request, page)
        repaired = await self._repairing.repair(some, repair, deed)
        fitting = [each.record for each in repaired if each.fits]
        if fitting and not request.dry_run:
            details = {"records": len(fitting), "first": fitting[0].quarantine_id, "dataset": request.dataset}
            async with self._quarantine.begin() as changes:
                await changes.repair(fitting)
                await self._record(changes, "quarantine.repair", {**details, "new_record_ids": request.new_record_ids})
        answer = pb.RepairQuarantinedRecordsResponse(
            records=[
                pb.RepairedRecord(
                    quarantine_id=each.record.quarantine_id,
                    dataset=each.record.replay_dataset,
                    record_id=each.record.replay_record_id,
                    passes=each.fits and not each.findings,
                    findings=finding_messages(each.findings),
                    repaired=_json(each.record.repaired or each.record.record or each.record.raw) if each.fits else b"",
                )
                for each in repaired
            ]
        )
        if more:
            answer.next_page_token = self._token(request, "RepairQuarantinedRecords", some[-1].quarantine_id)
        return answer

    async def ReplayQuarantinedRecords(
        self, request: pb.ReplayQuarantinedRecordsRequest, context: Context
    ) -> pb.ReplayQuarantinedRecordsResponse:
        """Append a page of records to the log, those of them that pass."""
        caller = current_caller()
        page, deed = self._open(request, "ReplayQuarantinedRecords"), self._deed()
        kind = pb.ReplayQuarantinedRecordsResponse
        once: Mapping[str, Any] = {
            "method": "ReplayQuarantinedRecords",
            "workspace": caller.workspace,
            "answer": kind,
        }
        async with self._quarantine.begin() as changes:
            kept: pb.ReplayQuarantinedRecordsResponse | None = await self._idempotency.kept(
                changes.connection, request, **once
            )
        if kept is not None:
            return kept
        if not caller.service:
            await self._quotas.require(caller.workspace)
        some, more = await self._some(request, page)
        answer = kind()
        if request.dry_run:
            verdicts = await self._repairing.try_replay(some, deed)
        else:
            verdicts = await self._repairing.replay(some, deed, tell=self._teller(deed))
            self._trail.wake()
        answer.verdicts.extend(verdict_message(each) for each in verdicts)
        if more:
            answer.next_page_token = self._token(request, "ReplayQuarantinedRecords", some[-1].quarantine_id)
        if not request.request_id:
            return answer

        async def made() -> pb.ReplayQuarantinedRecordsResponse:
            return answer

        async with self._quarantine.begin() as changes:
            return await self._idempotency.once(changes.connection, request, make=made, **once)

    async def DiscardQuarantinedRecords(
        self, request: pb.DiscardQuarantinedRecordsRequest, context: Context
    ) -> pb.DiscardQuarantinedRecordsResponse:
        """Set a page of records aside."""
        page, deed = self._open(request, "DiscardQuarantinedRecords"), self._deed()
        workspace, wanted = current_caller().workspace, _wanted(request)

        async def discard() -> pb.DiscardQuarantinedRecordsResponse:
            discarded, last = await changes.discard(
                workspace,
                wanted,
                after=page.after[0] if page.after else "",
                limit=page.limit,
                reason=request.reason,
                by=deed.by,
                at=deed.at,
            )
            if discarded:
                await self._record(changes, "quarantine.discard", {"records": discarded, "reason": request.reason})
            token = self._token(request, "DiscardQuarantinedRecords", last) if last else ""
            return pb.DiscardQuarantinedRecordsResponse(discarded=discarded, next_page_token=token)

        async with self._quarantine.begin() as changes:
            return await self._idempotency.once(
                changes.connection,
                request,
                method="DiscardQuarantinedRecords",
                workspace=workspace,
                answer=pb.DiscardQuarantinedRecordsResponse,
                make=discard,
            )

    async def _some(self, request: Any, page: Page) -> tuple[Sequence[Quarantined], bool]:
        after = page.after[0] if page.after else ""
        return await self._quarantine.some(current_caller().workspace, _wanted(request), after=after, limit=page.limit)

    def _deed(self) -> Deed:
        return Deed(current_caller().principal, to_micros(self._clock.now()), current_traceparent())

    def _open(self, request: Message, method: str) -> Page:
        return self._pager.open(_question(request), method=method, workspace=current_caller().workspace)

    def _token(self, request: Message, method: str, *after: str) -> str:
        workspace = current_caller().workspace
        return self._pager.token(_question(request), method=method, workspace=workspace, after=after)

    async def _record(self, changes: QuarantineChanges, action: str, details: Mapping[str, Any]) -> None:
        caller = current_caller()
        await self._trail.record(
            changes.connection,
            workspace=caller.workspace,
            principal=caller.principal,
            action=action,
            resource="quarantine",
            details=details,
        )

    def _teller(self, deed: Deed) -> Tell:
        """Return what writes the audit entry of a replay in the transaction of the log that carries it out."""
        workspace = current_caller().workspace

        def tell(statements: Statements, verdicts: Sequence[Verdict]) -> None:
            numbers = Counter(each.outcome for each in verdicts)
            if verdicts:
                self._trail.note(
                    statements.execute,
                    workspace=workspace,
                    principal=deed.by,
                    action="quarantine.replay",
                    resource="quarantine",
                    details={
                        "accepted": numbers[Outcome.ACCEPTED],
                        "duplicates": numbers[Outcome.DUPLICATE],
                        "first": verdicts[0].quarantine_id,
                    },
                    traceparent=deed.traceparent,
                )

        return tell


def _question(request: Message) -> Message:
    """Return a request without the id that each page of it has for itself."""
    question = type(request)()
    question.CopyFrom(request)
    if "request_id" in request.DESCRIPTOR.fields_by_name:
        question.ClearField("request_id")
    return question


def _wanted(request: Any) -> QuarantineFilter | Sequence[str]:
    if bool(request.quarantine_ids) == request.HasField("filter"):
        raise SelectionInvalidError(
            "Name the records either by `quarantine_ids` or by a `filter`; an empty filter takes every open one."
        )
    if request.quarantine_ids:
        return list(request.quarantine_ids)
    named = ("dataset", "reason", "path", "contract_version", "source_id", "import_id")
    given = {name: getattr(request.filter, name) for name in named}
    return QuarantineFilter(**given, state=QuarantineState.OPEN)


def _repair(request: pb.RepairQuarantinedRecordsRequest) -> Repair:
    if request.patch:
        require_patch(request.patch)
    fixes = tuple(read_fix(each.path, _change(each)) for each in request.fixes)
    return Repair(request.patch, fixes, request.dataset, request.new_record_ids)


def _change(fix: pb.Fix) -> Change:
    match fix.WhichOneof("change"):
        case "rename":
            return Rename(fix.rename)
        case "convert":
            return Convert(Kind(fix.convert))
        case "default":
            return Default(fix.default)
        case _:
            return Drop()


def _json(text: bytes) -> bytes:
    """Return a text when it is JSON that a record may be: REST shows it as what it is."""
    if len(text) > MAX_RECORD_BYTES:
        return b""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return b""
    return text


def _time(micros: int) -> Timestamp | None:
    return to_timestamp(from_micros(micros)) if micros else None


def _group(of: QuarantineGroup) -> pb.QuarantineGroup:
    return pb.QuarantineGroup(
        dataset=of.dataset,
        reason=of.reason,
        path=of.path,
        contract_version=of.contract_version,
        records=of.records,
        first_received_at=_time(of.first_received_at),
        last_received_at=_time(of.last_received_at),
        example_quarantine_id=of.example_id,
    )


def to_proto(record: Quarantined, *, whole: bool = False) -> pb.QuarantinedRecord:
    """Return a quarantined record as callers see it, `whole` with its bytes."""
    offset = record.replayed_offset
    return pb.QuarantinedRecord(
        quarantine_id=record.quarantine_id,
        dataset=record.dataset,
        source_id=record.source_id,
        record_id=record.record_id,
        findings=finding_messages(record.findings),
        contract_id=record.contract_id,
        contract_version=record.contract_version,
        received_at=to_timestamp(from_micros(record.received_at)),
        trace_id=record.traceparent[3:35],
        raw=record.raw[:_SHOWN_BYTES],
        raw_bytes=len(record.raw),
        state=pb.QuarantinedRecord.State.ValueType(record.state),
        record=_json(record.record or record.raw) if whole else b"",
        repaired=record.repaired,
        repaired_dataset=record.repaired_dataset,
        repaired_record_id=record.repaired_record_id,
        repaired_at=_time(record.repaired_at),
        repaired_by=record.repaired_by,
        closed_at=_time(record.closed_at),
        closed_by=record.closed_by,
        discard_reason=record.discard_reason,
        position=PartitionPosition(partition=PARTITION, offset=offset) if offset >= 0 else None,
        import_id=record.import_id,
    )
