"""The receipts ledger, from governance."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from counterfoil.governance.v1 import receipts_pb2
from counterfoil.governance.v1.receipts_pb2_grpc import ReceiptServiceStub
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.identity import TokenSigner

_SECONDS = 10.0


class ReceiptsClient:
    """Puts receipts into the ledger, in ingest's own name."""

    def __init__(self, channel: grpc.aio.Channel, *, signer: TokenSigner) -> None:
        self._stub = ReceiptServiceStub(channel)
        self._signer = signer

    async def deliver(self, receipts: Sequence[bytes]) -> None:
        """Put receipts into the ledger; the same ones again change nothing there."""
        request = receipts_pb2.PutReceiptsRequest(receipts=receipts)
        await self._stub.PutReceipts(request, **outgoing(default=_SECONDS, signer=self._signer))
