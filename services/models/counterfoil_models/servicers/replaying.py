"""Replays of every kind of output: the kind makes it again, what is common compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson
from counterfoil.common.v1 import receipts_pb2
from counterfoil_chassis.canonical import output_sha256
from counterfoil_chassis.runtime import Runtime, runtime_message

from counterfoil_models.differences import first_difference
from counterfoil_models.documents import Document
from counterfoil_models.errors import (
    ArtifactCorruptError,
    GraphErasedError,
    GraphRebuiltError,
    SnapshotErasedError,
    SnapshotExpiredError,
)

Result = receipts_pb2.ReplayResult


@dataclass(frozen=True)
class Remade:
    """An output made again from what its receipt cites; `rows` are how many records each input held, in their order."""

    document: Document
    rows: Sequence[int]


class Replayer(Protocol):
    """Makes one kind of output again."""

    async def remake(self, receipt: receipts_pb2.Receipt) -> Remade:
        """Make the output again from the cited inputs and parameters alone.

        Raises ArtifactCorruptError, SnapshotErasedError, GraphErasedError, SnapshotExpiredError or GraphRebuiltError
        when these are not what was cited.
        """


@dataclass(frozen=True)
class Finding:
    """What a replay found; `actual` is the hash that stands against the expected one."""

    outcome: "Result.Outcome.ValueType"
    detail: str
    field: str = ""
    expected: str = ""
    actual: str = ""


async def replayed(receipt: receipts_pb2.Receipt, output_json: str, *, replayer: Replayer, runtime: Runtime) -> Finding:
    """Check the stored output against its receipt, make it again and compare."""
    stored = _stored_sha256(output_json)
    if stored != receipt.output_sha256:
        detail = "The stored output is not the one the receipt was made for."
        return Finding(Result.MISMATCH, detail, field="output", actual=stored)
    try:
        remade = await replayer.remake(receipt)
    except ArtifactCorruptError as error:
        expected, actual = receipt.model.artifact_sha256, error.metadata["actual_sha256"]
        return Finding(Result.MISMATCH, error.message, field="artifact_sha256", expected=expected, actual=actual)
    except (SnapshotErasedError, GraphErasedError) as error:
        return Finding(Result.INPUT_ERASED, error.message)
    except (SnapshotExpiredError, GraphRebuiltError) as error:
        return Finding(Result.EXPIRED, error.message)
    return _compared(receipt, orjson.loads(output_json), remade, runtime=runtime)


def _compared(receipt: receipts_pb2.Receipt, expected: Document, remade: Remade, *, runtime: Runtime) -> Finding:
    actual = output_sha256(remade.document)
    difference = first_difference(expected, remade.document) if actual != receipt.output_sha256 else ""
    changed = [one.role for one, rows in zip(receipt.inputs, remade.rows, strict=True) if one.rows != rows]
    if not difference and changed:
        difference = f"inputs[{changed[0]}].rows"
    if not difference:
        return Finding(Result.MATCH, _matched(receipt), actual=actual)
    detail = f"Made again, the first difference is {difference}."
    if runtime_message(runtime) != receipt.runtime:
        return Finding(Result.RUNTIME_CHANGED, f"{detail} Other code runs now.", field=difference, actual=actual)
    return Finding(Result.MISMATCH, detail, field=difference, actual=actual)


def _stored_sha256(output_json: str) -> str:
    try:
        return output_sha256(orjson.loads(output_json))
    except (orjson.JSONDecodeError, ValueError):
        return ""


def _matched(receipt: receipts_pb2.Receipt) -> str:
    rows = sum(one.rows for one in receipt.inputs)
    sources = [f"{rows} records of {len(receipt.inputs)} cited snapshots"] if receipt.inputs else []
    if receipt.HasField("graph_as_of"):
        sources.append("the cited state of the graph")
    checked = "The artifact has its hash, and " if receipt.HasField("model") else "Made again, "
    return f"{checked}{' and '.join(sources)} with its parameters give the same output, number for number."
