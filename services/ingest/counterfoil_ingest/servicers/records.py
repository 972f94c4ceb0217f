"""RecordService: translate, delegate, translate back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

import grpc
from counterfoil.common.v1 import snapshot_pb2, verdict_pb2
from counterfoil.ingest.v1 import records_pb2 as pb
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceServicer
from counterfoil_chassis.call import budget
from counterfoil_chassis.clock import Clock, Ids, from_micros, to_micros, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.telemetry import current_traceparent
from google.protobuf.message import Message

from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import Batch, Block, Finding, LogRecord, Verdict
from counterfoil_ingest.protocols import API_SOURCE, Request, records
from counterfoil_ingest.protocols.body import inflate
from counterfoil_ingest.quotas import Quotas
from counterfoil_ingest.read_errors import WorkspaceRequiredError
from counterfoil_ingest.reading import DatasetShown, LogReader
from counterfoil_ingest.snapshots import Reading, Snapshot, Snapshots

Context = grpc.aio.ServicerContext[Message, Message]

FLUSH_SECONDS = 30.0


class RecordServicer(RecordServiceServicer):
    """Takes records and gives them back: from the log as they lie there, from the lake as Arrow."""

    def __init__(
        self,
        appender: Appender,
        *,
        quotas: Quotas,
        reader: LogReader,
        snapshots: Snapshots,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._appender = appender
        self._quotas = quotas
        self._reader = reader
        self._snapshots = snapshots
        self._pager = pager
        self._clock = clock
        self._ids = ids
        self._newest: tuple[Block | None, pb.Block] = (None, pb.Block())

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Context) -> pb.AppendRecordsResponse:
        """Append records to a dataset."""
        received_at = to_micros(self._clock.now())
        asked = Request("", request.dataset, request.request_id, received_at, (), self._ids.new)
        if not current_caller().service:
            await self._quotas.require(current_caller().workspace)
        candidates = records.parse(inflate(request.records), asked)
        workspace, source = _workspace(request.workspace), _source()
        batch = Batch(workspace, source, received_at, current_traceparent(), candidates)
        return pb.AppendRecordsResponse(verdicts=[verdict_message(each) for each in await self._appender.append(batch)])

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        """List records of a dataset in the order of the log."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListRecords", workspace=workspace)
        start = int(page.after[0]) if page.after else request.from_offset
        found = await self._reader.page(
            workspace, request.dataset, partition=request.partition, from_offset=start, limit=page.limit
        )
        answer = pb.ListRecordsResponse(records=[_record(each, partition=request.partition) for each in found.records])
        if found.next_offset is not None:
            answer.next_page_token = self._pager.token(
                request, method="ListRecords", workspace=workspace, after=[str(found.next_offset)]
            )
        return answer

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        """List the workspace's datasets."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListDatasets", workspace=workspace)
        after = page.after[0] if page.after else ""
        found = [each for each in await self._reader.datasets(workspace) if each.dataset > after]
        answer = pb.ListDatasetsResponse(datasets=[_dataset(each) for each in found[: page.limit]])
        if len(found) > page.limit:
            last = answer.datasets[-1].dataset
            answer.next_page_token = self._pager.token(
                request, method="ListDatasets", workspace=workspace, after=[last]
            )
        return answer

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Context) -> snapshot_pb2.Snapshot:
        """Return a snapshot of a dataset as it is now."""
        return snapshot_message(await self._snapshots.create(current_caller().workspace, request.dataset))

    async def TailRecords(
        self, request: pb.TailRecordsRequest, context: Context
    ) -> AsyncIterator[pb.TailRecordsResponse]:
        """Stream records as they come in."""
        async for next_offset, record in self._reader.tail(
            current_caller().workspace,
            dataset=request.dataset,
            source_id=request.source_id,
            partition=request.partition,
            from_offset=request.from_offset if request.HasField("from_offset") else None,
        ):
            shown = None if record is None else _record(record, partition=request.partition)
            yield pb.TailRecordsResponse(record=shown, next_offset=next_offset)

    async def ReadRecords(
        self, request: pb.ReadRecordsRequest, context: Context
    ) -> AsyncIterator[pb.ReadRecordsResponse]:
        """Stream blocks of the log."""
        workspace = _workspace(request.workspace)
        partition, from_offset = request.partition, request.from_offset
        self._reader.check(workspace, partition, log_epoch=request.log_epoch, from_offset=from_offset)
        lives = self._reader.predecessors(workspace, partition)
        async for next_offset, block in self._reader.follow(workspace, partition, from_offset, follow=request.follow):
            message = pb.ReadRecordsResponse(log_epoch=self._reader.epoch, next_offset=next_offset, predecessors=lives)
            lives = {}
            if block is not None:
                message.block.CopyFrom(self._message(block))
            yield message

    def _message(self, block: Block) -> pb.Block:
        """Return a block as a message, made once for those who follow the log at its head."""
        known, message = self._newest
        if known is not block:
            message = _block(block)
            self._newest = (block, message)
        return message

    async def ReadSnapshot(
        self, request: pb.ReadSnapshotRequest, context: Context
    ) -> AsyncIterator[pb.ReadSnapshotResponse]:
        """Stream the records of a snapshot as Arrow."""
        workspace = _workspace(request.workspace)
        snapshot = snapshot_of(request.snapshot)
        reading = await self._snapshots.open(workspace, snapshot, columns=request.columns, within=budget(FLUSH_SECONDS))
        contracts = _contracts(reading)
        while (chunk := await asyncio.to_thread(next, reading.chunks, None)) is not None:
            yield pb.ReadSnapshotResponse(arrow_ipc_zstd=chunk.data, rows=chunk.rows, contracts=contracts)
            contracts = []


def _workspace(named: str) -> str:
    """Return whose records a call is about: a principal's token says it, a service acting for itself has to."""
    caller = current_caller()
    if caller.workspace:
        return caller.workspace
    if not named:
        raise WorkspaceRequiredError("A service that acts for itself must name the workspace.")
    return named


def _source() -> str:
    """Return the source of appended records; no source of a workspace has a colon in its id, so none passes for one."""
    service = current_caller().service
    return f"service:{service}" if service else API_SOURCE


def finding_messages(findings: Iterable[Finding]) -> list[verdict_pb2.Finding]:
    """Return findings as callers see them."""
    return [verdict_pb2.Finding(reason=each.reason, path=each.path, detail=each.detail) for each in findings]


def verdict_message(of: Verdict) -> verdict_pb2.Verdict:
    """Return a verdict as callers see it."""
    answer = verdict_pb2.Verdict(
        outcome=verdict_pb2.Verdict.Outcome.ValueType(of.outcome),
        record_id=of.record_id,
        dataset=of.dataset,
        quarantine_id=of.quarantine_id,
        findings=finding_messages(of.findings),
    )
    if of.offset >= 0:
        answer.position.CopyFrom(verdict_pb2.PartitionPosition(partition=of.partition, offset=of.offset))
    return answer


def _record(of: LogRecord, *, partition: int) -> pb.Record:
    parts = of.header.traceparent.split("-")
    return pb.Record(
        dataset=of.dataset,
        position=verdict_pb2.PartitionPosition(partition=partition, offset=of.offset),
        record_id=of.record_id,
        source_id=of.header.source_id,
        received_at=to_timestamp(from_micros(of.header.received_at)),
        contract_version=of.contract_version,
        trace_id=parts[1] if len(parts) == 4 else "",
        data=of.data,
    )


def _dataset(of: DatasetShown) -> pb.Dataset:
    answer = pb.Dataset(
        dataset=of.dataset,
        contract_id=of.contract_id,
        contract_version=of.contract_version,
        records=of.records,
        quarantined=of.quarantined,
    )
    if of.last_received_at:
        answer.last_received_at.CopyFrom(to_timestamp(from_micros(of.last_received_at)))
    return answer


def _block(of: Block) -> pb.Block:
    headers = [
        pb.BlockHeader(
            source_id=header.source_id,
            received_at=to_timestamp(from_micros(header.received_at)),
            traceparent=header.traceparent,
            contract_versions=header.contract_versions,
        )
        for header in of.headers
    ]
    return pb.Block(first_offset=of.first_offset, count=of.count, layout=of.layout, payload=of.payload, headers=headers)


def _contracts(reading: Reading) -> list[pb.SnapshotContract]:
    return [
        pb.SnapshotContract(contract_id=used.contract_id, version=used.version, compiled_sha256=used.compiled_sha256)
        for used in reading.contracts
    ]


def snapshot_message(of: Snapshot) -> snapshot_pb2.Snapshot:
    """Return a snapshot as a message."""
    offsets: Mapping[int, int] = dict(sorted(of.offsets.items()))
    return snapshot_pb2.Snapshot(
        dataset=of.dataset,
        offsets=[snapshot_pb2.PartitionOffset(partition=p, offset=o) for p, o in offsets.items()],
        log_epoch=of.log_epoch,
        erasure_revision=of.erasure_revision,
    )


def snapshot_of(message: snapshot_pb2.Snapshot) -> Snapshot:
    """Return the snapshot of a message."""
    offsets = {each.partition: each.offset for each in message.offsets}
    return Snapshot(message.dataset, offsets, message.log_epoch, message.erasure_revision)
