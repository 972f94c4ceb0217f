"""Workspaces and the receipts ledger, from governance."""

from collections.abc import Sequence

import grpc
from counterfoil.governance.v1 import (
    receipts_pb2,
    receipts_pb2_grpc,
    workspaces_pb2,
    workspaces_pb2_grpc,
)
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.identity import TokenSigner

_SECONDS = 10.0


class Governance:
    """What this service, acting for itself, asks of governance."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._workspaces = workspaces_pb2_grpc.WorkspaceServiceStub(channel)
        self._receipts = receipts_pb2_grpc.ReceiptServiceStub(channel)
        self._signer = signer

    async def timezone(self, workspace: str) -> str:
        """Return the IANA timezone a workspace's days are cut in."""
        request = workspaces_pb2.GetWorkspaceRequest(workspace_id=workspace)
        found = await self._workspaces.GetWorkspace(request, **outgoing(default=_SECONDS, signer=self._signer))
        return found.timezone or "UTC"

    async def put_receipts(self, receipts: Sequence[bytes]) -> None:
        """Put receipts into the ledger; the same ones again change nothing there."""
        request = receipts_pb2.PutReceiptsRequest(receipts=receipts)
        await self._receipts.PutReceipts(request, **outgoing(default=_SECONDS, signer=self._signer))
