"""ReceiptProducerService: the receipts made here, and their outputs made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from counterfoil.common.v1 import receipts_pb2, receipts_pb2_grpc
from counterfoil_chassis.clock import Clock, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.runtime import Runtime, runtime_message

from counterfoil_models.servicers.replaying import Replayer, replayed
from counterfoil_models.store import Stores

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ReceiptServices:
    """What ReceiptProducerService needs; `replayers` by the first part of an output's name, e.g. `forecasts`."""

    stores: Stores
    runtime: Runtime
    clock: Clock
    replayers: Mapping[str, Replayer]


class ReceiptProducerServicer(receipts_pb2_grpc.ReceiptProducerServiceServicer):
    """See receipts.proto."""

    def __init__(self, services: ReceiptServices) -> None:
        self._services = services

    async def GetReceipt(self, request: receipts_pb2.GetReceiptRequest, context: Context) -> receipts_pb2.Receipt:
        """Return a receipt this service made."""
        receipt, _ = await self._kept(request.receipt_id)
        return receipt

    async def Replay(self, request: receipts_pb2.ReplayRequest, context: Context) -> receipts_pb2.ReplayResult:
        """Make an output again from what its receipt cites, and compare."""
        receipt, output_json = await self._kept(request.receipt_id)
        replayer = self._services.replayers[receipt.output.partition("/")[0]]
        finding = await replayed(receipt, output_json, replayer=replayer, runtime=self._services.runtime)
        return receipts_pb2.ReplayResult(
            receipt_id=receipt.receipt_id,
            outcome=finding.outcome,
            field=finding.field,
            expected_sha256=finding.expected or receipt.output_sha256,
            actual_sha256=finding.actual,
            detail=finding.detail,
            runtime=runtime_message(self._services.runtime),
            replayed_at=to_timestamp(self._services.clock.now()),
        )

    async def _kept(self, receipt_id: str) -> tuple[receipts_pb2.Receipt, str]:
        async with self._services.stores.read() as transaction:
            kept = await transaction.receipts.get(current_caller().workspace, receipt_id)
        return receipts_pb2.Receipt.FromString(kept.payload), kept.output_json
