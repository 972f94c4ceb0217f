"""WorkspaceService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import workspaces_pb2 as pb
from counterfoil.governance.v1.workspaces_pb2_grpc import WorkspaceServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.key_secrets import RANDOM_BYTES, make_secret
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import keys, workspaces
from counterfoil_governance.entities import Quotas, Workspace
from counterfoil_governance.recording import Recorder
from counterfoil_governance.servicers.keys import RandomBytes
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class WorkspaceServicer(WorkspaceServiceServicer):
    """Serves the workspaces; a credential sees only its own."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        feed: Feed,
        to_message: Callable[[Workspace], pb.Workspace],
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
        random_bytes: RandomBytes,
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._to_message = to_message
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids
        self._random_bytes = random_bytes

    async def CreateWorkspace(self, request: pb.CreateWorkspaceRequest, context: Context) -> pb.CreateWorkspaceResponse:
        """Create a workspace and its first API key."""
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="CreateWorkspace",
                workspace=current_caller().workspace,
                answer=pb.CreateWorkspaceResponse,
                make=lambda: self._create(stores, request),
            )

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.Workspace:
        """Return the caller's workspace; any for a service acting for itself."""
        caller = current_caller()
        async with self._transactions.read() as stores:
            return self._to_message(
                await workspaces.visible_workspace(
                    stores, request.workspace_id, own=caller.workspace, service=caller.service
                )
            )

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Context) -> pb.ListWorkspacesResponse:
        """List the workspaces the caller may see: its own, on one page."""
        own = current_caller().workspace
        if self._pager.open(request, method="ListWorkspaces", workspace=own).after is not None:
            return pb.ListWorkspacesResponse()
        async with self._transactions.read() as stores:
            return pb.ListWorkspacesResponse(workspaces=[self._to_message(await stores.workspaces.get(own))])

    async def UpdateWorkspace(self, request: pb.UpdateWorkspaceRequest, context: Context) -> pb.Workspace:
        """Change the name or the timezone of the caller's workspace."""
        wanted = from_proto(request.workspace)
        sent = [path for path in sorted(workspaces.CHANGEABLE) if getattr(wanted, path)]
        async with self._transactions.begin() as stores:
            return self._to_message(
                await workspaces.update_workspace(
                    stores,
                    wanted,
                    paths=request.update_mask.paths if request.HasField("update_mask") else sent,
                    etag=request.etag,
                    recorder=self._recorder(),
                )
            )

    async def SetQuotas(self, request: pb.SetQuotasRequest, context: Context) -> pb.Workspace:
        """Set what a workspace may use; any workspace."""
        asked = request.quotas
        quotas = Quotas(
            asked.requests_per_second, asked.event_requests_per_second, asked.records_per_day, asked.stored_bytes
        )
        async with self._transactions.begin() as stores:
            return self._to_message(
                await workspaces.set_quotas(
                    stores, request.workspace_id, quotas=quotas, etag=request.etag, recorder=self._recorder()
                )
            )

    async def WatchWorkspaces(
        self, request: pb.WatchWorkspacesRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream the workspaces that have quotas and their changes."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def _create(self, stores: Stores, request: pb.CreateWorkspaceRequest) -> pb.CreateWorkspaceResponse:
        now = self._clock.now()
        secret = make_secret(keys.PREFIX, self._random_bytes(RANDOM_BYTES))
        workspace = await workspaces.create_workspace(
            stores,
            workspace_id=request.workspace_id,
            display_name=request.display_name,
            timezone=request.timezone,
            first_key=workspaces.first_key(
                workspace_id=request.workspace_id,
                key_id=self._ids.new(),
                secret_sha256=secret.sha256,
                last_four=secret.last_four,
                now=now,
            ),
            recorder=self._recorder(),
        )
        return pb.CreateWorkspaceResponse(workspace=self._to_message(workspace), api_key=secret.text)

    def _recorder(self) -> Recorder:
        caller = current_caller()
        return Recorder(caller.workspace, caller.principal, self._ids, self._clock)


def from_proto(workspace: pb.Workspace) -> Workspace:
    """Return the workspace that a caller wants; what it says of output-only fields counts for nothing."""
    return Workspace(
        workspace_id=workspace.workspace_id,
        display_name=workspace.display_name,
        timezone=workspace.timezone,
        created_at=from_timestamp(workspace.created_at),
    )
