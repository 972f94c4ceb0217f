"""Receipts as messages: what stands behind an output, enough to make it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from counterfoil.common.v1 import receipts_pb2
from counterfoil_chassis.canonical import canonical_json, output_sha256
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.policy import Answer
from counterfoil_chassis.runtime import Runtime, runtime_message
from counterfoil_chassis.telemetry import current_trace_id

from counterfoil_models.artifact import KIND
from counterfoil_models.documents import Document, output_document
from counterfoil_models.entities import Contract, Forecast, Gap, ImpactTier, Input, Model, ModelVersion
from counterfoil_models.servicers.messages import completeness_message, tier_message
from counterfoil_models.snapshot_messages import snapshot_message, snapshot_of

PRODUCER = "models"
FORECASTS = "forecasts"
"""The first part of a forecast's resource name."""


@dataclass(frozen=True)
class Asked:
    """The question behind a forecast, with every default filled in."""

    model_id: str
    horizon_days: int
    series: tuple[str, ...]
    timezone: str

    def canonical(self) -> str:
        """Return the question as canonical JSON, the receipt's parameters."""
        return canonical_json({**vars(self), "series": list(self.series)}).decode()


def asked_of(parameters: str) -> Asked:
    """Read a receipt's parameters."""
    document = orjson.loads(parameters)
    return Asked(**{**document, "series": tuple(document["series"])})


@dataclass(frozen=True)
class Made:
    """An output and what it was made from, whatever its kind; `rows` and `inputs` are in the same order."""

    workspace: str
    name: str
    receipt_id: str
    created_at: datetime
    purpose: str
    impact_tier: ImpactTier
    document: Document
    parameters: str
    inputs: tuple[Input, ...]
    rows: Sequence[int]
    contracts: Sequence[Contract]
    gaps: tuple[Gap, ...]


def make_receipt(made: Made, *, runtime: Runtime) -> receipts_pb2.Receipt:
    """Write the receipt of a fresh output for the running request's caller; its kind adds what only it has."""
    return receipts_pb2.Receipt(
        receipt_id=made.receipt_id,
        trace_id=current_trace_id(),
        producer=PRODUCER,
        purpose=made.purpose,
        impact_tier=tier_message(made.impact_tier),
        created_at=to_timestamp(made.created_at),
        workspace=made.workspace,
        principal=current_caller().principal,
        output=made.name,
        inputs=[
            receipts_pb2.InputSnapshot(snapshot=snapshot_message(one.snapshot), rows=count, role=one.role)
            for one, count in zip(made.inputs, made.rows, strict=True)
        ],
        contracts=[receipts_pb2.ContractReference(**vars(one)) for one in made.contracts],
        runtime=runtime_message(runtime),
        completeness=completeness_message(made.gaps),
        parameters=made.parameters,
        output_sha256=output_sha256(made.document),
    )


def forecast_receipt(
    forecast: Forecast,
    *,
    model: Model,
    champion: ModelVersion,
    asked: Asked,
    rows: Sequence[int],
    contracts: Sequence[Contract],
    runtime: Runtime,
    answers: Sequence[Answer],
) -> receipts_pb2.Receipt:
    """Write the receipt of a fresh forecast; `rows` are in the order of its inputs, `answers` allowed it."""
    made = Made(
        workspace=forecast.workspace,
        name=f"{FORECASTS}/{forecast.forecast_id}",
        receipt_id=forecast.receipt_id,
        created_at=forecast.created_at,
        purpose=model.purpose,
        impact_tier=model.impact_tier,
        document=output_document(forecast.output),
        parameters=asked.canonical(),
        inputs=forecast.inputs,
        rows=rows,
        contracts=contracts,
        gaps=forecast.gaps,
    )
    receipt = make_receipt(made, runtime=runtime)
    receipt.model.CopyFrom(
        receipts_pb2.ModelReference(
            model_id=model.model_id,
            version=forecast.output.model_version,
            kind=KIND,
            artifact_sha256=champion.artifact_sha256,
        )
    )
    cite_policies(receipt, answers)
    if champion.change_id:
        receipt.changes.append(champion.change_id)
    return receipt


def cite_policies(receipt: receipts_pb2.Receipt, answers: Sequence[Answer]) -> None:
    """Add the policy checks that allowed an output, and the bundle of the last one."""
    receipt.policy_checks.extend(answer.message() for answer in answers)
    receipt.policy_bundle.CopyFrom(answers[-1].bundle_message())


def inputs_of_receipt(receipt: receipts_pb2.Receipt) -> tuple[Input, ...]:
    """Read the snapshots a receipt cites, in their roles."""
    return tuple(Input(one.role, snapshot_of(one.snapshot)) for one in receipt.inputs)
