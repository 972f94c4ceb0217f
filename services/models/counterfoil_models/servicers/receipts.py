"""ReceiptProducerService: the receipts made here, and their outputs made again."""

from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from counterfoil.common.v1 import receipts_pb2, receipts_pb2_grpc
from counterfoil_chassis.canonical import output_sha256
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.runtime import runtime_message

from counterfoil_models.artifact import decode
from counterfoil_models.documents import output_document
from counterfoil_models.errors import ArtifactCorruptError, SnapshotErasedError, SnapshotExpiredError
from counterfoil_models.reading import read_series
from counterfoil_models.servicers.forecasts import ForecastServices
from counterfoil_models.servicers.provenance import asked_of, inputs_of_receipt
from counterfoil_models.serving import first_difference, make_output

Context = grpc.aio.ServicerContext[Any, Any]
Result = receipts_pb2.ReplayResult


@dataclass(frozen=True)
class Finding:
    """What a replay found; `actual` is the hash that stands against the expected one."""

    outcome: "Result.Outcome.ValueType"
    detail: str
    field: str = ""
    expected: str = ""
    actual: str = ""


class ReceiptProducerServicer(receipts_pb2_grpc.ReceiptProducerServiceServicer):
    """See receipts.proto."""

    def __init__(self, services: ForecastServices) -> None:
        self._services = services

    async def GetReceipt(self, request: receipts_pb2.GetReceiptRequest, context: Context) -> receipts_pb2.Receipt:
        """Return a receipt this service made."""
        receipt, _ = await self._kept(request.receipt_id)
        return receipt

    async def Replay(self, request: receipts_pb2.ReplayRequest, context: Context) -> receipts_pb2.ReplayResult:
        """Make a forecast again from its artifact and cited snapshots, and compare."""
        receipt, output_json = await self._kept(request.receipt_id)
        finding = await self._replayed(receipt, output_json)
        return Result(
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
            kept = await transaction.forecasts.receipt(current_caller().workspace, receipt_id)
        return receipts_pb2.Receipt.FromString(kept.payload), kept.output_json

    async def _replayed(self, receipt: receipts_pb2.Receipt, output_json: str) -> Finding:
        try:
            data = await self._services.worker.run(self._services.artifacts.get, receipt.model.artifact_sha256)
        except ArtifactCorruptError as error:
            return Finding(
                Result.MISMATCH,
                error.message,
                field="artifact_sha256",
                expected=receipt.model.artifact_sha256,
                actual=error.metadata["actual_sha256"],
            )
        stored = _stored_sha256(output_json)
        if stored != receipt.output_sha256:
            detail = "The stored output is not the one the receipt was made for."
            return Finding(Result.MISMATCH, detail, field="output", actual=stored)
        try:
            return await self._recomputed(receipt, orjson.loads(output_json), data)
        except SnapshotErasedError as error:
            return Finding(Result.INPUT_ERASED, error.message)
        except SnapshotExpiredError as error:
            return Finding(Result.EXPIRED, error.message)

    async def _recomputed(self, receipt: receipts_pb2.Receipt, expected: Any, data: bytes) -> Finding:
        artifact, asked = decode(data), asked_of(receipt.parameters)
        reading = await read_series(
            self._services.source,
            self._services.worker,
            spec=artifact.spec,
            timezone=asked.timezone,
            inputs=inputs_of_receipt(receipt),
            workspace=receipt.workspace,
        )
        output = await self._services.worker.run(
            make_output,
            artifact,
            reading.table,
            model_id=asked.model_id,
            version=receipt.model.version,
            horizon=asked.horizon_days,
            names=asked.series,
        )
        document = output_document(output)
        actual = output_sha256(document)
        difference = first_difference(expected, document) if actual != receipt.output_sha256 else ""
        changed = [one.role for one, rows in zip(receipt.inputs, reading.rows, strict=True) if one.rows != rows]
        if not difference and changed:
            difference = f"inputs[{changed[0]}].rows"
        if not difference:
            return Finding(Result.MATCH, _matched(receipt), actual=actual)
        detail = f"Made again, the first difference is {difference}."
        if runtime_message(self._services.runtime) != receipt.runtime:
            return Finding(Result.RUNTIME_CHANGED, f"{detail} Other code runs now.", field=difference, actual=actual)
        return Finding(Result.MISMATCH, detail, field=difference, actual=actual)


def _stored_sha256(output_json: str) -> str:
    try:
        return output_sha256(orjson.loads(output_json))
    except (orjson.JSONDecodeError, ValueError):
        return ""


def _matched(receipt: receipts_pb2.Receipt) -> str:
    rows = sum(one.rows for one in receipt.inputs)
    return (
        f"The artifact has its hash, and {rows} records of {len(receipt.inputs)} cited snapshots "
        "with its parameters give the same output, number for number."
    )
