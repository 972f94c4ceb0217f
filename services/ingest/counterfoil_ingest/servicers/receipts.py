"""ReceiptProducerService: the receipts of queries, and their results made again."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from counterfoil.common.v1 import receipts_pb2
from counterfoil.common.v1.receipts_pb2_grpc import ReceiptProducerServiceServicer
from counterfoil_chassis.call import budget
from counterfoil_chassis.clock import Clock, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.runtime import Runtime, runtime_message
from google.protobuf.message import Message

from counterfoil_ingest.masking import Mask
from counterfoil_ingest.queries import Asked, Queries, Result
from counterfoil_ingest.query_receipts import QueryReceipts, Question
from counterfoil_ingest.query_results import Form
from counterfoil_ingest.read_errors import SnapshotAheadError, SnapshotEpochUnknownError, SnapshotErasedError

Context = grpc.aio.ServicerContext[Message, Message]
ReplayResult = receipts_pb2.ReplayResult

REPLAY_SECONDS = 55.0


@dataclass(frozen=True)
class _Finding:
    outcome: ReplayResult.Outcome.ValueType
    detail: str
    field: str = ""
    actual: str = ""


class ReceiptProducerServicer(ReceiptProducerServiceServicer):
    """See receipts.proto."""

    def __init__(self, receipts: QueryReceipts, queries: Queries, *, runtime: Runtime, clock: Clock) -> None:
        self._receipts = receipts
        self._queries = queries
        self._runtime = runtime
        self._clock = clock

    async def GetReceipt(self, request: receipts_pb2.GetReceiptRequest, context: Context) -> receipts_pb2.Receipt:
        """Return a receipt this service made."""
        payload, _ = await self._receipts.get(current_caller().workspace, request.receipt_id)
        return receipts_pb2.Receipt.FromString(payload)

    async def Replay(self, request: receipts_pb2.ReplayRequest, context: Context) -> ReplayResult:
        """Make a result again from the cited snapshots, with the masks it was made with, and compare."""
        workspace = current_caller().workspace
        payload, question = await self._receipts.get(workspace, request.receipt_id)
        receipt = receipts_pb2.Receipt.FromString(payload)
        finding = await self._replayed(workspace, receipt, question)
        return ReplayResult(
            receipt_id=receipt.receipt_id,
            outcome=finding.outcome,
            field=finding.field,
            expected_sha256=receipt.output_sha256,
            actual_sha256=finding.actual,
            detail=finding.detail,
            runtime=runtime_message(self._runtime),
            replayed_at=to_timestamp(self._clock.now()),
        )

    async def _replayed(self, workspace: str, receipt: receipts_pb2.Receipt, question: Question | None) -> _Finding:
        if question is None:
            return _Finding(ReplayResult.INPUT_ERASED, "The question named somebody who has been erased since.")
        masks = {field.mask for each in question.cited.values() for field in each.masked}
        if Mask.PSEUDONYM in masks and question.pseudonyms != self._queries.key_id(workspace):
            return _Finding(ReplayResult.EXPIRED, "The key of the pseudonyms in the result has been replaced since.")
        asked = Asked(
            question.sql,
            question.parameters,
            form=Form.CHUNKS,
            max_rows=question.max_rows,
            receipt=True,
            cited=question.cited,
        )
        try:
            async with self._queries.opened(workspace, asked, within=budget(REPLAY_SECONDS)) as result:
                async for _ in result.pieces():
                    pass
        except SnapshotErasedError as error:
            return _Finding(ReplayResult.INPUT_ERASED, error.message)
        except (SnapshotEpochUnknownError, SnapshotAheadError) as error:
            return _Finding(ReplayResult.EXPIRED, error.message)
        return self._compared(receipt, result)

    def _compared(self, receipt: receipts_pb2.Receipt, result: Result) -> _Finding:
        rows = {name: sum(versions.values()) for name, versions in result.versions.items()}
        changed = [one.role for one in receipt.inputs if one.rows != rows[one.role]]
        if result.sha256 == receipt.output_sha256 and not changed:
            detail = f"Made again from {sum(rows.values())} records of {len(rows)} cited snapshots, it is the same."
            return _Finding(ReplayResult.MATCH, detail, actual=result.sha256)
        field = f"inputs[{changed[0]}].rows" if changed else "rows"
        detail = f"Made again, the first difference is {field}."
        if runtime_message(self._runtime) != receipt.runtime:
            return _Finding(
                ReplayResult.RUNTIME_CHANGED, f"{detail} Other code runs now.", field=field, actual=result.sha256
            )
        return _Finding(ReplayResult.MISMATCH, detail, field=field, actual=result.sha256)
