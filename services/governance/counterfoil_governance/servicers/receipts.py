"""ReceiptService: the ledger's side of it; the gateway answers replays itself."""

from __future__ import annotations

from typing import Final

import grpc
from counterfoil.common.v1 import receipts_pb2 as common
from counterfoil.governance.v1 import receipts_pb2 as pb
from counterfoil.governance.v1.receipts_pb2_grpc import ReceiptServiceServicer
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import UnimplementedError
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import DecodeError, Message

from counterfoil_governance import receipts
from counterfoil_governance.entities import ReceiptEntry
from counterfoil_governance.errors import ReceiptMalformedError
from counterfoil_governance.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]

PAGE_BYTES: Final = 4 << 20
"""A page ends early here, well below the largest message (8 MiB); receipts have no fixed size."""


class ReceiptServicer(ReceiptServiceServicer):
    """Serves the ledger of receipts: producers add, callers read those of their workspace."""

    def __init__(self, transactions: Transactions, *, pager: Pager, clock: Clock) -> None:
        self._transactions = transactions
        self._pager = pager
        self._clock = clock

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Context) -> common.Receipt:
        """Return one receipt of the ledger."""
        async with self._transactions.read() as stores:
            entry = await stores.receipts.get(current_caller().workspace, request.receipt_id)
        return common.Receipt.FromString(entry.body)

    async def ListReceipts(self, request: pb.ListReceiptsRequest, context: Context) -> pb.ListReceiptsResponse:
        """List the workspace's receipts, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListReceipts", workspace=workspace)
        before = page.after[0] if page.after else ""
        async with self._transactions.read() as stores:
            found = await stores.receipts.list(
                workspace, producer=request.producer, before=before, limit=page.limit + 1
            )
        shown = receipts.fitting(found[: page.limit], size=PAGE_BYTES)
        answer = pb.ListReceiptsResponse(receipts=[common.Receipt.FromString(entry.body) for entry in shown])
        if len(found) > len(shown):
            answer.next_page_token = self._pager.token(
                request, method="ListReceipts", workspace=workspace, after=[shown[-1].unique_id]
            )
        return answer

    async def ReplayReceipt(self, request: pb.ReplayReceiptRequest, context: Context) -> common.ReplayResult:
        """Refuse: only the gateway can reach the producer that replays."""
        raise UnimplementedError(
            "Governance keeps receipts and replays none. Call ReplayReceipt at the gateway, which asks the producer."
        )

    async def PutReceipts(self, request: pb.PutReceiptsRequest, context: Context) -> pb.PutReceiptsResponse:
        """Put receipts into the ledger: all of them or none."""
        entries = [_entry(body, index=index) for index, body in enumerate(request.receipts)]
        async with self._transactions.begin() as stores:
            added = await receipts.put_receipts(
                stores, entries, service=current_caller().service, now=self._clock.now()
            )
        return pb.PutReceiptsResponse(added=added)


def _entry(body: bytes, *, index: int) -> ReceiptEntry:
    try:
        receipt = common.Receipt.FromString(body)
    except DecodeError as error:
        raise ReceiptMalformedError(
            f"receipts[{index}] is no serialised Receipt.", metadata={"index": str(index)}
        ) from error
    return ReceiptEntry(receipt.workspace, receipt.receipt_id, receipt.producer, body)
