"""Receipts of queries as messages: what stands behind a result, enough to make it again."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson
from counterfoil.common.v1 import receipts_pb2
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import Answer
from counterfoil_chassis.runtime import Runtime, runtime_message
from counterfoil_chassis.telemetry import current_trace_id

from counterfoil_ingest.queries import Asked, Result
from counterfoil_ingest.servicers.records import snapshot_message
from counterfoil_ingest.snapshots import ContractUsed, Snapshots

PRODUCER: Final = "ingest"


@dataclass(frozen=True)
class Made:
    """A result, all of it drawn, and who asked for it."""

    caller: Caller
    receipt_id: str
    purpose: str
    asked: Asked
    result: Result
    answers: Sequence[Answer]
    created_at: datetime


def query_receipt(made: Made, *, snapshots: Snapshots, key: bytes, runtime: Runtime) -> receipts_pb2.Receipt:
    """Write the receipt of a result; `key` is that of the workspace's pseudonyms."""
    result = made.result
    workspace = made.caller.workspace
    receipt = receipts_pb2.Receipt(
        receipt_id=made.receipt_id,
        trace_id=current_trace_id(),
        producer=PRODUCER,
        purpose=made.purpose,
        impact_tier=receipts_pb2.IMPACT_TIER_LOW,
        created_at=to_timestamp(made.created_at),
        workspace=workspace,
        principal=made.caller.principal,
        output=f"queries/{made.receipt_id.partition('.')[2]}",
        inputs=[
            receipts_pb2.InputSnapshot(
                snapshot=snapshot_message(each.snapshot), rows=sum(result.versions[name].values()), role=name
            )
            for name, each in result.cited.items()
        ],
        contracts=[
            _contract(name, snapshots.contract_used(workspace, name, version))
            for name, versions in result.versions.items()
            for version in sorted(versions)
            if version
        ],
        runtime=runtime_message(runtime),
        policy_checks=[answer.message() for answer in made.answers],
        completeness=_completeness(result),
        parameters=_parameters(made.asked, key),
        output_sha256=result.sha256,
    )
    if made.answers:
        receipt.policy_bundle.CopyFrom(made.answers[-1].bundle_message())
    return receipt


def _contract(dataset: str, used: ContractUsed) -> receipts_pb2.ContractReference:
    return receipts_pb2.ContractReference(
        contract_id=used.contract_id, version=used.version, dataset=dataset, compiled_sha256=used.compiled_sha256
    )


def _completeness(result: Result) -> receipts_pb2.Completeness:
    notes = []
    if result.truncated:
        detail = f"The result was cut after {result.rows} rows."
        notes.append(receipts_pb2.CompletenessNote(reason="ROWS_CUT", detail=detail))
    for name, each in result.cited.items():
        if each.masked:
            paths = ", ".join(field.path for field in each.masked)
            detail = f"Of {name} these fields were masked: {paths}."
            notes.append(receipts_pb2.CompletenessNote(reason="FIELDS_MASKED", detail=detail))
    return receipts_pb2.Completeness(complete=not notes, notes=notes)


def _parameters(asked: Asked, key: bytes) -> str:
    """Return the question by pseudonyms: SQL and parameters may name a person, and receipts name none."""
    values = orjson.loads(asked.parameters) if asked.parameters.strip() else []
    document = {
        "sql_pseudonym": _pseudonym(key, asked.sql.encode()),
        "parameter_pseudonyms": [_pseudonym(key, orjson.dumps(value)) for value in values],
        "max_rows": asked.max_rows,
    }
    return canonical_json(document).decode()


def _pseudonym(key: bytes, value: bytes) -> str:
    return hmac.new(key, value, hashlib.sha256).hexdigest()
