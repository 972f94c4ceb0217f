"""ImportService: translate, delegate, translate back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import grpc
import orjson
from counterfoil.common.v1.snapshot_pb2 import PartitionOffset, Snapshot
from counterfoil.ingest.v1 import imports_pb2 as pb
from counterfoil.ingest.v1.imports_pb2_grpc import ImportServiceServicer
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.clock import Clock, Ids, from_micros, to_micros, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.telemetry import current_traceparent
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.import_jobs import Format, Import, ImportStore, State
from counterfoil_ingest.import_mappings import ImportMapping, faults_of
from counterfoil_ingest.imports import ImportWorker
from counterfoil_ingest.quotas import Quotas
from counterfoil_ingest.read_errors import (
    ConnectionMovedError,
    ImportParameterError,
    NoContractError,
    TooManyImportsError,
    UploadInvalidError,
)
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.uploads import Spool

Context = grpc.aio.ServicerContext[Message, Message]


MOST_WAITING: Final = 100
"""Imports of one workspace that are uploaded, wait or run: they are read one after the other, and fill the disk."""


class ImportServicer(ImportServiceServicer):
    """Takes files, shows how far their imports have come, and has them reverted."""

    def __init__(
        self,
        imports: ImportStore,
        *,
        mappings: Mapping[str, ImportMapping],
        trail: AuditTrail,
        worker: ImportWorker,
        spool: Spool,
        contracts: Contracts,
        quotas: Quotas,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._imports = imports
        self._mappings = mappings
        self._trail = trail
        self._worker = worker
        self._spool = spool
        self._contracts = contracts
        self._quotas = quotas
        self._pager = pager
        self._clock = clock
        self._ids = ids
        self._uploading: Counter[str] = Counter()

    async def UploadImport(
        self, request_iterator: AsyncIterator[pb.UploadImportRequest], context: Context
    ) -> pb.Import:
        """Keep a file and start its import."""
        caller = current_caller()
        messages = aiter(request_iterator)
        header = (await anext(messages, pb.UploadImportRequest())).header
        if not header.format:
            raise UploadInvalidError("The first message must be the header; send dataset and format first.")
        mapping = self._mapping(header)
        dataset = header.dataset or (mapping.dataset if mapping is not None else "")
        if dataset and await self._contracts.find(caller.workspace, dataset) is None:
            raise NoContractError(
                f"No contract is in force for `{dataset}`. Activate one, then upload the file.",
                metadata={"dataset": dataset},
            )
        if header.continues:
            await self._require_at(caller.workspace, header)
        if not caller.service:
            await self._quotas.require(caller.workspace)
        with self._uploads(caller.workspace, waiting=await self._imports.waiting(caller.workspace)):
            await context.send_initial_metadata((("upload", "accepted"),))  # who waits for this may send the file
            import_id = self._ids.new()
            uploaded = await self._spool.receive(import_id, _chunks(messages))
            new = Import(
                workspace=caller.workspace,
                import_id=import_id,
                dataset=dataset,
                format=Format(header.format),
                file_name=header.file_name,
                file_bytes=uploaded.size,
                file_sha256=uploaded.sha256,
                created_by=caller.principal,
                traceparent=current_traceparent(),
                created_at=to_micros(self._clock.now()),
                mapping=mapping.title if mapping is not None else "",
                parameters=orjson.dumps(list(header.parameter)).decode(),
                connection=header.connection,
            )
            await self._imports.add(new)
        self._worker.wake()
        return to_proto(new)

    async def GetImport(self, request: pb.GetImportRequest, context: Context) -> pb.Import:
        """Return one import."""
        return to_proto(await self._imports.get(current_caller().workspace, request.import_id))

    async def ListImports(self, request: pb.ListImportsRequest, context: Context) -> pb.ListImportsResponse:
        """List the workspace's imports, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListImports", workspace=workspace)
        before = page.after[0] if page.after else ""
        found = await self._imports.list(workspace, before=before, limit=page.limit + 1, connection=request.connection)
        answer = pb.ListImportsResponse(imports=[to_proto(each) for each in found[: page.limit]])
        for each in answer.imports:
            each.ClearField("source_state")
        if len(found) > page.limit:
            last = answer.imports[-1].import_id
            answer.next_page_token = self._pager.token(request, method="ListImports", workspace=workspace, after=[last])
        return answer

    async def RevertImport(self, request: pb.RevertImportRequest, context: Context) -> pb.Import:
        """Have an ended import reverted; what is audited and decided in one transaction is carried out after it."""
        caller = current_caller()

        async def tell(connection: AsyncConnection) -> None:
            await self._trail.record(
                connection,
                workspace=caller.workspace,
                principal=caller.principal,
                action="import.revert",
                resource=f"imports/{request.import_id}",
                details={"reason": request.reason},
            )

        await self._worker.require_unheld(caller.workspace, request.import_id)
        reverted = await self._imports.revert(
            caller.workspace,
            request.import_id,
            reason=request.reason,
            by=caller.principal,
            at=to_micros(self._clock.now()),
            tell=tell,
        )
        self._worker.wake()
        return to_proto(reverted)

    async def GetConnection(self, request: pb.GetConnectionRequest, context: Context) -> pb.Connection:
        """Return where a connection stands."""
        found = await self._imports.connection(current_caller().workspace, request.connection)
        return pb.Connection(connection=found.name, source_state=found.source_state, import_id=found.import_id)

    async def ListImportMappings(
        self, request: pb.ListImportMappingsRequest, context: Context
    ) -> pb.ListImportMappingsResponse:
        """List the mappings by name."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListImportMappings", workspace=workspace)
        after = page.after[0] if page.after else ""
        found = [each for name, each in self._mappings.items() if name > after]
        answer = pb.ListImportMappingsResponse(mappings=[mapping_to_proto(each) for each in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListImportMappings", workspace=workspace, after=[answer.mappings[-1].name]
            )
        return answer

    @contextmanager
    def _uploads(self, workspace: str, *, waiting: int) -> Iterator[None]:
        """Count an upload while the block runs; raise TooManyImportsError when it is one too many."""
        if waiting + self._uploading[workspace] >= MOST_WAITING:
            raise TooManyImportsError(
                f"{MOST_WAITING} imports of this workspace are uploaded or wait already. Upload the file again when "
                "one has ended.",
                retry_after=timedelta(seconds=30),
            )
        self._uploading[workspace] += 1
        try:
            yield
        finally:
            self._uploading[workspace] -= 1
            if not self._uploading[workspace]:
                del self._uploading[workspace]

    async def _require_at(self, workspace: str, header: pb.ImportHeader) -> None:
        """Raise when a connection no longer stands where the run of its source began."""
        at = await self._imports.connection(workspace, header.connection)
        if at.import_id != header.continues:
            raise ConnectionMovedError(
                f"`{header.connection}` stands at another import than the one that this run began with: another run or "
                "a revert came between. Run the source again from its state.",
                metadata={"connection": header.connection, "import_id": at.import_id},
            )

    def _mapping(self, header: pb.ImportHeader) -> ImportMapping | None:
        """Return the mapping that a header names; raise when it, a parameter or the dataset is not as it must be."""
        mapping = self._mappings.get(header.mapping) if header.mapping else None
        if header.mapping and mapping is None:
            names = ", ".join(self._mappings)
            raise ImportParameterError(f"There is no mapping `{header.mapping}`. There are: {names}.")
        kind = Format(header.format)
        if not header.dataset and mapping is None and kind is not Format.AIRBYTE:
            raise UploadInvalidError("Say which dataset the rows go to: `dataset`, or a `mapping` that names one.")
        if header.connection and kind is not Format.AIRBYTE:
            raise UploadInvalidError("Only imports of the format AIRBYTE follow each other: leave `connection` out.")
        given = dict(text.split("=", 1) for text in header.parameter)
        if fault := faults_of(mapping, kind.name.lower(), given):
            raise ImportParameterError(fault)
        return mapping


async def _chunks(messages: AsyncIterator[pb.UploadImportRequest]) -> AsyncIterator[bytes]:
    async for message in messages:
        part = message.WhichOneof("part")
        if part == "end":
            return
        if part != "chunk":
            raise UploadInvalidError("After the header only the file's bytes and its end may follow; start again.")
        yield message.chunk
    raise UploadInvalidError("The upload broke off before its end; start it again.")


def to_proto(of: Import) -> pb.Import:
    """Return an import as a message."""
    answer = pb.Import(
        import_id=of.import_id,
        dataset=of.dataset,
        format=pb.Import.Format.ValueType(of.format),
        file_name=of.file_name,
        file_bytes=of.file_bytes,
        file_sha256=of.file_sha256,
        state=pb.Import.State.ValueType(of.state),
        rows_total=of.rows_total,
        rows_read=of.rows_read,
        rows_accepted=of.rows_accepted,
        rows_duplicate=of.rows_duplicate,
        rows_quarantined=of.rows_quarantined,
        created_by=of.created_by,
        created_at=to_timestamp(from_micros(of.created_at)),
        mapping=of.mapping,
        parameter=orjson.loads(of.parameters),
        source_state=of.source_state,
        connection=of.connection,
    )
    if of.finished_at:
        answer.finished_at.CopyFrom(to_timestamp(from_micros(of.finished_at)))
    if of.error_reason:
        answer.error.CopyFrom(pb.ImportError(reason=of.error_reason, detail=of.error_detail))
    if of.csv_header_line:
        answer.csv.encoding = of.csv_encoding
        answer.csv.delimiter = of.csv_delimiter
        answer.csv.quote = of.csv_quote
        answer.csv.header_line = of.csv_header_line
    if of.reverted_at:
        answer.revert.CopyFrom(
            pb.ImportRevert(
                reason=of.revert_reason,
                reverted_by=of.reverted_by,
                reverted_at=to_timestamp(from_micros(of.reverted_at)),
                records=of.reverted_records,
                quarantined=of.reverted_quarantined,
            )
        )
    if of.state is State.SUCCEEDED and of.snapshot_offset >= 0:
        answer.snapshot.CopyFrom(
            Snapshot(
                dataset=of.dataset,
                offsets=[PartitionOffset(partition=0, offset=of.snapshot_offset)],
                log_epoch=of.log_epoch,
                erasure_revision=of.erasure_revision,
            )
        )
    return answer


def mapping_to_proto(mapping: ImportMapping) -> pb.ImportMapping:
    """Return a mapping as a message, with the parameters that files of its kinds take."""
    parameters = mapping.parameters_of_files()
    return pb.ImportMapping(
        name=mapping.mapping,
        version=mapping.version,
        description=mapping.description,
        dataset=mapping.dataset,
        formats=[pb.Import.Format.Value(each.upper()) for each in mapping.formats],
        parameters=[
            pb.ImportParameter(name=name, description=each.description, required=each.required)
            for name, each in parameters.items()
        ],
        document=mapping.document,
    )
