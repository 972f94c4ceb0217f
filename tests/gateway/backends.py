"""The services behind the door, in memory: what the gateway's own tests need of the real protos, over real gRPC."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
from counterfoil.common.v1 import calls_pb2
from counterfoil.common.v1 import receipts_pb2 as common_receipts
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.contracts.v1 import contracts_pb2
from counterfoil.governance.v1 import audit_pb2, policies_pb2, receipts_pb2, workspaces_pb2
from counterfoil.ingest.v1 import append_pb2, imports_pb2, queries_pb2, records_pb2
from counterfoil_chassis.errors import (
    EtagMismatchError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from counterfoil_chassis.identity import Caller, TokenVerifier
from counterfoil_chassis.policy import bundle_sha256
from counterfoil_chassis.status import DETAILS_KEY, to_status
from counterfoil_gateway import api as apis
from counterfoil_governance.policy_text import shipped_policies, shipped_schema
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2_grpc

C = grpc.StatusCode
SHUT = """
@id("closed-for-stocktaking") @owner("legal") @description("Nobody may call anything.")
forbid (principal, action == Counterfoil::Action::"call", resource);
"""


async def fail(context: Any, error: Any) -> None:
    code = next(c for c in C if c.value[0] == int(error.code))
    await context.abort(code, error.message, ((DETAILS_KEY, to_status(error).SerializeToString()),))


@dataclass
class Keys:
    """Accepted keys by SHA-256, with whoever watches them."""

    accepted: dict[bytes, Credential] = field(default_factory=dict)
    hidden: dict[bytes, Credential] = field(default_factory=dict)
    """Known to a lookup only, as a key is that was made a moment ago."""
    lookups: int = 0
    watchers: list[asyncio.Queue[WatchResponse]] = field(default_factory=list)
    refuse_with: grpc.StatusCode | None = None

    def put(self, key: str, credential: Credential, *, watched: bool = True) -> None:
        credential.secret_sha256 = hashlib.sha256(key.encode()).digest()
        (self.accepted if watched else self.hidden)[credential.secret_sha256] = credential
        if watched:
            self._tell(_put(credential))

    def delete(self, key: str) -> None:
        digest = hashlib.sha256(key.encode()).digest()
        self.accepted.pop(digest, None)
        self.hidden.pop(digest, None)
        response = WatchResponse(revision=1)
        response.delete.key = digest.hex()
        self._tell(response)

    def _tell(self, response: WatchResponse) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(response)

    async def WatchCredentials(self, request: Any, context: Any) -> AsyncIterator[WatchResponse]:
        queue: asyncio.Queue[WatchResponse] = asyncio.Queue()
        self.watchers.append(queue)
        for credential in self.accepted.values():
            yield _put(credential)
        yield WatchResponse(revision=1, heartbeat={})
        try:
            while True:
                yield await queue.get()
        finally:
            self.watchers.remove(queue)

    async def LookupCredential(self, request: Any, context: Any) -> Credential:
        self.lookups += 1
        if self.refuse_with:
            await context.abort(self.refuse_with, "not now")
        found = {**self.hidden, **self.accepted}.get(request.secret_sha256)
        if found is None:
            await fail(context, NotFoundError("no such key"))
        return found


def _put(credential: Credential) -> WatchResponse:
    response = WatchResponse(revision=1)
    response.put.key = credential.secret_sha256.hex()
    response.put.resource.CopyFrom(_packed(credential))
    return response


def _packed(credential: Credential) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(credential)
    return packed


class ApiKeys(Keys):
    pass


class WriteKeys(Keys):
    pass


class Policies:
    """The bundles in force: in `w` as governance ships it, until a test puts another in force; `closed` is shut."""

    def __init__(self) -> None:
        self.bundles = {
            "w": _bundle("w", 1, shipped_policies()),
            "closed": _bundle("closed", 2, shipped_policies() + SHUT),
        }
        self.lookups = 0
        self.watchers: list[asyncio.Queue[WatchResponse]] = []

    @property
    def bundle(self) -> policies_pb2.PolicyBundle:
        return self.bundles["w"]

    def activate(self, policies: str) -> None:
        """Put a text in force after the one there is."""
        self.bundles["w"] = _bundle("w", self.bundle.version + 1, policies)
        for watcher in self.watchers:
            watcher.put_nowait(_put_bundle(self.bundle))

    async def WatchPolicyBundles(self, request: Any, context: Any) -> AsyncIterator[WatchResponse]:
        queue: asyncio.Queue[WatchResponse] = asyncio.Queue()
        self.watchers.append(queue)
        for bundle in self.bundles.values():
            yield _put_bundle(bundle)
        yield WatchResponse(revision=self.bundle.version, heartbeat={})
        try:
            while True:
                yield await queue.get()
        finally:
            self.watchers.remove(queue)

    async def LookupPolicyBundle(self, request: Any, context: Any) -> Any:
        self.lookups += 1
        if request.workspace not in self.bundles:
            await context.abort(C.UNAVAILABLE, "not now")
        return self.bundles[request.workspace]


def _put_bundle(bundle: policies_pb2.PolicyBundle) -> WatchResponse:
    response = WatchResponse(revision=bundle.version)
    response.put.key = bundle.workspace
    response.put.resource.Pack(bundle)
    return response


def _bundle(workspace: str, version: int, policies: str) -> policies_pb2.PolicyBundle:
    return policies_pb2.PolicyBundle(
        version=version,
        state=policies_pb2.PolicyBundle.ACTIVE,
        policies=policies,
        schema=shipped_schema(),
        sha256=bundle_sha256(policies, shipped_schema()),
        workspace=workspace,
    )


@dataclass
class Backend:
    """What was asked, and what shall be answered."""

    verifier: TokenVerifier
    api_keys: ApiKeys = field(default_factory=ApiKeys)
    write_keys: WriteKeys = field(default_factory=WriteKeys)
    policies: Policies = field(default_factory=Policies)
    quota_watchers: list[asyncio.Queue[WatchResponse]] = field(default_factory=list)
    workspace: workspaces_pb2.Workspace = field(default_factory=workspaces_pb2.Workspace)
    requests: list[Any] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    callers: list[Caller] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)
    items: list[append_pb2.AppendItem] = field(default_factory=list)
    append_result: append_pb2.AppendResult = field(default_factory=append_pb2.AppendResult)
    append_results: list[append_pb2.AppendResult] = field(default_factory=list)
    """Those of the next calls, before it."""
    append_status: grpc.StatusCode | None = None
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    archive: list[bytes | Exception] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    shared_status: grpc.StatusCode | None = None
    shared_result: calls_pb2.CallResult | None = None
    held: asyncio.Event | None = None
    """Shared calls wait for it."""
    ledger: dict[str, common_receipts.Receipt] = field(default_factory=dict)
    produced: dict[str, common_receipts.Receipt] = field(default_factory=dict)

    def seen(self, request: Any, context: Any) -> Caller:
        """Keep what arrived; the token is verified as a service does."""
        metadata = dict(context.invocation_metadata())
        self.requests.append(request)
        self.asked.set()
        self.metadata.append(metadata)
        self.remaining.append(context.time_remaining())
        self.callers.append(self.verifier.verify(metadata["authorization"].removeprefix("Bearer ")))
        return self.callers[-1]

    def set_quotas(self, workspace: str, **quotas: int) -> None:
        """Let a workspace have quotas from now on."""
        resource = workspaces_pb2.Workspace(workspace_id=workspace, quotas=workspaces_pb2.Quotas(**quotas))
        response = WatchResponse(revision=1)
        response.put.key = workspace
        response.put.resource.Pack(resource)
        for watcher in self.quota_watchers:
            watcher.put_nowait(response)

    def reset(self) -> None:
        for kept in (self.requests, self.callers, self.metadata, self.remaining, self.items, self.shared):
            kept.clear()
        self.shared_status = self.shared_result = self.held = None
        self.append_result, self.append_status = append_pb2.AppendResult(), None
        self.append_results.clear()
        self.cancelled.clear()
        self.refused.clear()
        self.asked.clear()
        self.archive.clear()
        self.ledger.clear()
        self.produced.clear()
        self.api_keys.refuse_with = self.write_keys.refuse_with = None
        self.workspace = workspaces_pb2.Workspace(workspace_id="w", display_name="Shop", timezone="UTC", etag="e1")


class Workspaces:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def WatchWorkspaces(self, request: Any, context: Any) -> AsyncIterator[WatchResponse]:
        queue: asyncio.Queue[WatchResponse] = asyncio.Queue()
        self.backend.quota_watchers.append(queue)
        yield WatchResponse(revision=0, heartbeat={})
        while True:
            yield await queue.get()

    async def GetWorkspace(self, request: Any, context: Any) -> Any:
        caller = self.backend.seen(request, context)
        if request.workspace_id == "slow":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.backend.cancelled.set()
                raise
        if request.workspace_id == "none":
            await fail(context, NotFoundError("there is no such workspace", metadata={"workspace_id": "none"}))
        if request.workspace_id == "busy":
            await fail(context, ResourceExhaustedError("later", retry_after=timedelta(seconds=2.5)))
        if request.workspace_id == "broken":
            raise RuntimeError("a secret of ours")
        answer = workspaces_pb2.Workspace()
        answer.CopyFrom(self.backend.workspace)
        answer.workspace_id = caller.workspace if request.workspace_id == "mine" else request.workspace_id
        context.set_trailing_metadata((("x-answered-by", "backend"),))
        return answer

    async def CreateWorkspace(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return workspaces_pb2.CreateWorkspaceResponse(api_key=request.request_id)

    async def ListWorkspaces(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return workspaces_pb2.ListWorkspacesResponse(next_page_token=request.page_token)

    async def UpdateWorkspace(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        if request.etag not in ("", self.backend.workspace.etag):
            await fail(context, EtagMismatchError("it has changed; read it again"))
        return self.backend.workspace


class Receipts:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def GetReceipt(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        if request.receipt_id not in self.backend.ledger:
            await fail(context, NotFoundError("the ledger has no such receipt"))
        return self.backend.ledger[request.receipt_id]

    async def ListReceipts(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return receipts_pb2.ListReceiptsResponse()


class Producer:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def GetReceipt(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        if request.receipt_id not in self.backend.produced:
            await fail(context, NotFoundError("this was not made here"))
        return self.backend.produced[request.receipt_id]

    async def Replay(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        if request.receipt_id.endswith("none"):
            await fail(context, NotFoundError("this was not made here"))
        return common_receipts.ReplayResult(
            receipt_id=request.receipt_id, outcome=common_receipts.ReplayResult.Outcome.MATCH
        )


class Records:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def AppendRecords(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return records_pb2.AppendRecordsResponse(verdicts=[Verdict(outcome=Verdict.ACCEPTED, dataset=request.dataset)])

    async def ListRecords(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        records = [records_pb2.Record(dataset=request.dataset, data=b'{"n":1.50}'), records_pb2.Record()]
        return records_pb2.ListRecordsResponse(records=records)

    async def TailRecords(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Show two records from where it is asked to begin, or from 7; then nothing, until the reader leaves."""
        self.backend.seen(request, context)
        start = request.from_offset if request.HasField("from_offset") else 7
        if request.dataset == "nothing":
            await fail(context, NotFoundError("there is no dataset of this name"))
        try:
            yield records_pb2.TailRecordsResponse(next_offset=start)
            for n in (start + 1, start + 2):
                record = records_pb2.Record(dataset="events", data=b'{"n":%d}' % n)
                yield records_pb2.TailRecordsResponse(record=record, next_offset=n)
            yield records_pb2.TailRecordsResponse(next_offset=start + 9)
            if request.dataset == "late":
                await fail(context, UnavailableError("ingest is about to stop"))
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.backend.cancelled.set()
            raise


class Audit:
    """Exports what `backend.archive` holds, chunk by chunk; an error in it is how the export ends."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def ExportAudit(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.backend.seen(request, context)
        for chunk in self.backend.archive:
            if isinstance(chunk, Exception):
                await fail(context, chunk)
            yield audit_pb2.ExportAuditResponse(data=chunk)


class Contracts:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def SubmitContract(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return contracts_pb2.ContractVersion(document=request.document)

    async def GetContractVersion(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return contracts_pb2.ContractVersion(contract_id=request.contract_id, version=request.version)


class Imports:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.largest = 0
        self.kept: list[int] = []

    def keep(self, size: int) -> int:
        self.kept.append(size)
        return size

    async def UploadImport(self, request_iterator: Any, context: Any) -> Any:
        self.backend.seen(None, context)
        header, size, digest, sha256, ended = None, 0, hashlib.sha256(), "", False
        try:
            async for part in request_iterator:
                if part.HasField("header"):
                    header = part.header
                    if header.dataset == "nowhere":
                        await fail(context, NotFoundError("no contract governs nowhere"))
                    await context.send_initial_metadata((("upload", "accepted"),))
                    continue
                ended = part.HasField("end")
                size += len(part.chunk)
                self.largest = max(self.largest, len(part.chunk))
                digest.update(part.chunk)
            if not ended:
                self.backend.refused.set()
                await fail(context, InvalidArgumentError("the upload broke off"))
            sha256 = await asyncio.to_thread(digest.hexdigest)  # as a service writes the file to disk
        except asyncio.CancelledError:
            self.backend.cancelled.set()
            self.backend.refused.set()
            raise
        return imports_pb2.Import(
            import_id="i1",
            dataset=header.dataset,
            format=header.format,
            file_name=header.file_name,
            file_bytes=self.keep(size),
            file_sha256=sha256,
            state=imports_pb2.Import.PENDING,
        )


class Queries:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def RunQuery(self, request: Any, context: Any) -> Any:
        self.backend.seen(request, context)
        return queries_pb2.RunQueryResponse(rows=request.parameters, row_count=1)

    async def StreamQuery(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Do what the text says: `3` rows, `early` or `late` failure, or go on `forever`."""
        self.backend.seen(request, context)
        if request.sql == "early":
            await fail(context, NotFoundError("no such table"))
        count = 10**9 if request.sql == "forever" else int(request.sql) if request.sql.isdigit() else 1
        try:
            for n in range(count):
                yield queries_pb2.StreamQueryResponse(rows=n)
                if request.sql == "forever":
                    await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.backend.cancelled.set()
            raise
        if request.sql == "late":
            await fail(context, ResourceExhaustedError("too much"))


class Append:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def AppendMany(self, request: Any, context: Any) -> Any:
        caller = self.backend.seen(request, context)
        assert caller.service == "gateway"
        if self.backend.append_status:
            await context.abort(self.backend.append_status, "not now")
        self.backend.items.extend(request.items)
        result = self.backend.append_results.pop(0) if self.backend.append_results else self.backend.append_result
        return append_pb2.AppendManyResponse(results=[result] * len(request.items))


class ItemAbortedError(Exception):
    pass


@dataclass
class ItemContext:
    """What a handler sees of the call that an item of a shared call is."""

    item: calls_pb2.CallItem

    def invocation_metadata(self) -> Any:
        return (("authorization", f"Bearer {self.item.token}"), ("traceparent", self.item.traceparent))

    def time_remaining(self) -> float:
        return self.item.timeout.ToNanoseconds() / 1e9

    def set_trailing_metadata(self, _metadata: Any) -> None:
        pass

    async def abort(self, _code: Any, _message: str, metadata: Any = ()) -> None:
        raise ItemAbortedError(dict(metadata)[DETAILS_KEY])


class SharedCalls:
    """Does for every item what its own method does; `backend.shared` has how many came together."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.everything: Everything | None = None

    async def CallMany(self, request: Any, context: Any) -> Any:
        token = dict(context.invocation_metadata())["authorization"].removeprefix("Bearer ")
        assert self.backend.verifier.verify(token).service == "gateway"
        self.backend.shared.append(len(request.items))
        if self.backend.shared_status:
            await context.abort(self.backend.shared_status, "not now")
        if self.backend.held:
            await self.backend.held.wait()
        return calls_pb2.CallManyResponse(results=[await self._answer(item) for item in request.items])

    async def _answer(self, item: calls_pb2.CallItem) -> calls_pb2.CallResult:
        if self.backend.shared_result:
            return self.backend.shared_result
        handler = self.everything.service(SimpleNamespace(method=item.method))
        try:
            found = await handler.unary_unary(handler.request_deserializer(item.request), ItemContext(item))
        except ItemAbortedError as aborted:
            return calls_pb2.CallResult(status=aborted.args[0])
        return calls_pb2.CallResult(response=found.SerializeToString())


class Everything(grpc.GenericRpcHandler):
    """Answers what a servicer implements, and every other method with an empty message after checking the token."""

    def __init__(self, backend: Backend, servicers: dict[str, Any]) -> None:
        self.backend = backend
        self.servicers = servicers
        self.methods = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(apis.image()).file:
            for service in file.service if file.package.startswith("counterfoil.") else ():
                found = descriptor_pool.Default().FindServiceByName(f"{file.package}.{service.name}")
                self.methods |= {f"/{found.full_name}/{m.name}": m for m in found.methods}

    def service(self, handler_call_details: Any) -> Any:
        method = self.methods.get(handler_call_details.method)
        if method is None:
            return None
        answer = GetMessageClass(method.output_type)
        servicer = self.servicers.get(method.containing_service.full_name)
        mine = any(method.name in vars(c) for c in type(servicer).__mro__ if c.__module__ == __name__)

        async def empty(request: Any, context: Any) -> Any:
            self.backend.seen(request, context)
            return answer()

        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(servicer, method.name) if mine else empty,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=answer.SerializeToString,
        )


async def serve(backend: Backend, *, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str, Imports]:
    """Start all of it, by default on a free port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 << 20)])
    imports = Imports(backend)
    healthy = health.aio.HealthServicer()
    for name in ("", "readiness", "liveness"):
        await healthy.set(name, 1)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    servicers = {
        "counterfoil.governance.v1.CredentialService": backend.api_keys,
        "counterfoil.governance.v1.PolicyService": backend.policies,
        "counterfoil.governance.v1.WorkspaceService": Workspaces(backend),
        "counterfoil.governance.v1.ReceiptService": Receipts(backend),
        "counterfoil.governance.v1.AuditService": Audit(backend),
        "counterfoil.common.v1.ReceiptProducerService": Producer(backend),
        "counterfoil.contracts.v1.ContractService": Contracts(backend),
        "counterfoil.ingest.v1.RecordService": Records(backend),
        "counterfoil.ingest.v1.ImportService": imports,
        "counterfoil.ingest.v1.QueryService": Queries(backend),
        "counterfoil.ingest.v1.AppendService": Append(backend),
        "counterfoil.ingest.v1.SourceService": backend.write_keys,
        "counterfoil.common.v1.CallService": (shared := SharedCalls(backend)),
    }
    shared.everything = Everything(backend, servicers)
    server.add_generic_rpc_handlers((shared.everything,))
    port = server.add_insecure_port(address)
    await server.start()
    return server, f"127.0.0.1:{port}", imports
