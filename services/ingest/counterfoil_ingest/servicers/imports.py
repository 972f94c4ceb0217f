"""ImportService: translate, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from counterfoil.common.v1.snapshot_pb2 import PartitionOffset, Snapshot
from counterfoil.ingest.v1 import imports_pb2 as pb
from counterfoil.ingest.v1.imports_pb2_grpc import ImportServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_micros, to_micros, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.telemetry import current_traceparent
from google.protobuf.message import Message

from counterfoil_ingest.imports import Format, Import, ImportStore, ImportWorker, State
from counterfoil_ingest.quotas import Quotas
from counterfoil_ingest.read_errors import NoContractError, UploadInvalidError
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.uploads import Spool

Context = grpc.aio.ServicerContext[Message, Message]


class ImportServicer(ImportServiceServicer):
    """Takes files and shows how far their imports have come."""

    def __init__(
        self,
        imports: ImportStore,
        *,
        worker: ImportWorker,
        spool: Spool,
        contracts: Contracts,
        quotas: Quotas,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._imports = imports
        self._worker = worker
        self._spool = spool
        self._contracts = contracts
        self._quotas = quotas
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def UploadImport(
        self, request_iterator: AsyncIterator[pb.UploadImportRequest], context: Context
    ) -> pb.Import:
        """Keep a file and start its import."""
        caller = current_caller()
        messages = aiter(request_iterator)
        header = (await anext(messages, pb.UploadImportRequest())).header
        if not header.dataset:
            raise UploadInvalidError("The first message must be the header; send dataset and format first.")
        if await self._contracts.find(caller.workspace, header.dataset) is None:
            raise NoContractError(
                f"No contract is in force for `{header.dataset}`. Activate one, then upload the file.",
                metadata={"dataset": header.dataset},
            )
        if not caller.service:
            await self._quotas.require(caller.workspace)
        await context.send_initial_metadata((("upload", "accepted"),))  # who waits for this may send the file
        import_id = self._ids.new()
        uploaded = await self._spool.receive(import_id, _chunks(messages))
        new = Import(
            workspace=caller.workspace,
            import_id=import_id,
            dataset=header.dataset,
            format=Format(header.format),
            file_name=header.file_name,
            file_bytes=uploaded.size,
            file_sha256=uploaded.sha256,
            created_by=caller.principal,
            traceparent=current_traceparent(),
            created_at=to_micros(self._clock.now()),
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
        found = await self._imports.list(workspace, before=before, limit=page.limit + 1)
        answer = pb.ListImportsResponse(imports=[to_proto(each) for each in found[: page.limit]])
        if len(found) > page.limit:
            last = answer.imports[-1].import_id
            answer.next_page_token = self._pager.token(request, method="ListImports", workspace=workspace, after=[last])
        return answer


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
    )
    if of.finished_at:
        answer.finished_at.CopyFrom(to_timestamp(from_micros(of.finished_at)))
    if of.state is State.FAILED:
        answer.error.CopyFrom(pb.ImportError(reason=of.error_reason, detail=of.error_detail))
    if of.state is State.SUCCEEDED:
        answer.snapshot.CopyFrom(
            Snapshot(
                dataset=of.dataset,
                offsets=[PartitionOffset(partition=0, offset=of.snapshot_offset)],
                log_epoch=of.log_epoch,
                erasure_revision=of.erasure_revision,
            )
        )
    return answer
