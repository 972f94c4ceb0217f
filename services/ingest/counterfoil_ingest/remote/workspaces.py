"""Follows governance for the quotas of workspaces."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import workspaces_pb2 as pb
from counterfoil.governance.v1.workspaces_pb2_grpc import WorkspaceServiceStub
from counterfoil_chassis.call import following
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_ingest.quotas import Quota, Quotas

if TYPE_CHECKING:
    from counterfoil.governance.v1.workspaces_pb2_grpc import WorkspaceServiceAsyncStub


def follow_quotas(channel: grpc.aio.Channel, quotas: Quotas, *, signer: TokenSigner) -> Watcher:
    """Return what keeps quotas as governance says; without governance the last ones hold."""
    stub: WorkspaceServiceAsyncStub = WorkspaceServiceStub(channel)

    def watch(after_revision: int) -> AsyncIterable[WatchResponse]:
        request = pb.WatchWorkspacesRequest(after_revision=after_revision)
        return stub.WatchWorkspaces(request, **following(signer=signer))

    def put(key: str, resource: any_pb2.Any) -> None:
        workspace = pb.Workspace()
        resource.Unpack(workspace)
        of = workspace.quotas
        quotas.put(key, Quota(workspace.timezone, of.records_per_day, of.stored_bytes))

    return Watcher(watch, put, quotas.delete, name="governance quotas")
