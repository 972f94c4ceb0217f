"""What models' jobs read and make, as lineage is told it: training, forecasts, attributions, lifts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from counterfoil.common.v1 import receipts_pb2, snapshot_pb2
from counterfoil_chassis.clock import from_timestamp
from counterfoil_chassis.lineage import LineageDataset, facet, run_event, run_id_of

from counterfoil_models.entities import Input
from counterfoil_models.snapshot_messages import snapshot_message

SERVICE: Final = "models"
JOURNEYS: Final = "graph/journeys"
"""The dataset in which lineage knows the journeys of the graph."""

Reads = Mapping[str, Sequence[str]]
"""The fields that are read of each dataset."""


def model_dataset(model_id: str, version: int, *, reads: Reads | None = None) -> LineageDataset:
    """Return a version of a model; `reads` is what it was trained on."""
    return LineageDataset(
        f"models/{model_id}",
        type="MODEL",
        version=str(version),
        made_of=None if reads is None else {"": _origins(reads)},
    )


def training_event(
    *,
    workspace: str,
    model_id: str,
    version: int,
    inputs: Iterable[Input],
    reads: Reads,
    ended_at: datetime,
    made: bool,
) -> dict[str, Any]:
    """Return the event that a training ended; without an artifact it made no version of the model."""
    return run_event(
        SERVICE,
        f"train/{model_id}",
        run_id=run_id_of(SERVICE, workspace, model_id, str(version)),
        state="COMPLETE" if made else "FAIL",
        at=ended_at,
        inputs=[_read(each) for each in inputs],
        outputs=[model_dataset(model_id, version, reads=reads)] if made else (),
    )


def output_event(receipt: receipts_pb2.Receipt, *, reads: Reads) -> dict[str, Any]:
    """Return the event that an output with this receipt was made; `reads` is what it was made of beside its model."""
    kind, _, _ = receipt.output.partition("/")
    subject = f"{kind}/{receipt.model.model_id}" if receipt.model.model_id else kind
    model = [model_dataset(receipt.model.model_id, receipt.model.version)] if receipt.model.model_id else []
    origins = [*_origins(reads), *((each.name, "") for each in model)]
    journeys = [LineageDataset(JOURNEYS, type="GRAPH")] if JOURNEYS in reads else []
    snapshots = [LineageDataset(each.snapshot.dataset, version=_version(each.snapshot)) for each in receipt.inputs]
    cited = facet(SERVICE, "ReceiptRunFacet", receiptId=receipt.receipt_id, purpose=receipt.purpose)
    return run_event(
        SERVICE,
        subject,
        run_id=receipt.receipt_id.partition(".")[2],
        state="COMPLETE",
        at=from_timestamp(receipt.created_at),
        inputs=[*snapshots, *journeys, *model],
        outputs=[LineageDataset(subject, made_of={"": origins})],
        run_facets={"counterfoil_receipt": cited},
    )


def _origins(reads: Reads) -> list[tuple[str, str]]:
    return [(dataset, name) for dataset, fields in reads.items() for name in fields or ("",)]


def _read(taken: Input) -> LineageDataset:
    return LineageDataset(taken.snapshot.dataset, version=_version(snapshot_message(taken.snapshot)))


def _version(snapshot: snapshot_pb2.Snapshot) -> str:
    """Return a snapshot in one text: the log's life, the offset of each partition, the erasures."""
    offsets = "/".join(str(each.offset) for each in snapshot.offsets)
    return f"{snapshot.log_epoch}/{offsets}/{snapshot.erasure_revision}"
