"""Entities as the protos say them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson
from counterfoil.common.v1.verdict_pb2 import Finding as FindingProto
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from counterfoil_contracts.entities import (
    Break,
    Column,
    Comparison,
    CompiledDataset,
    Contract,
    ContractVersion,
    DatasetComparison,
    Finding,
    GovernedDataset,
    RecordRule,
    Verdict,
    VersionState,
)
from counterfoil_contracts.servicers.monitor_messages import to_dataset_rule, to_service_level

_STATES: Final = {
    VersionState.DRAFT: pb.ContractVersion.State.DRAFT,
    VersionState.PROPOSED: pb.ContractVersion.State.PROPOSED,
    VersionState.ACTIVE: pb.ContractVersion.State.ACTIVE,
    VersionState.DEPRECATED: pb.ContractVersion.State.DEPRECATED,
    VersionState.RETIRED: pb.ContractVersion.State.RETIRED,
}

VERDICTS: Final = {
    Verdict.PROVEN_COMPATIBLE: pb.SchemaComparison.Verdict.PROVEN_COMPATIBLE,
    Verdict.PROVEN_BREAKING: pb.SchemaComparison.Verdict.PROVEN_BREAKING,
    Verdict.UNPROVEN: pb.SchemaComparison.Verdict.UNPROVEN,
}


def to_version(version: ContractVersion) -> pb.ContractVersion:
    """Return a contract version as callers see it."""
    return pb.ContractVersion(
        contract_id=version.contract_id,
        version=version.version,
        state=_STATES[version.state],
        document=version.document,
        document_sha256=version.document_sha256,
        compiled=[
            to_compiled(
                GovernedDataset(version.workspace, version.contract_id, version.version, compiled),
            )
            for compiled in version.compiled
        ],
        created_by=version.created_by,
        created_at=to_timestamp(version.created_at),
        activated_at=None if version.activated_at is None else to_timestamp(version.activated_at),
        reason=version.reason,
        sunset_at=None if version.sunset_at is None else to_timestamp(version.sunset_at),
        change_id=version.change_id,
        in_force=version.in_force,
    )


def to_contract(contract: Contract) -> pb.Contract:
    """Return a contract as callers see it."""
    return pb.Contract(
        contract_id=contract.contract_id,
        display_name=contract.display_name,
        active_version=contract.active_version,
        latest_version=contract.latest_version,
        datasets=contract.datasets,
        shipped=contract.shipped,
        created_at=to_timestamp(contract.created_at),
    )


def to_compiled(governed: GovernedDataset) -> pb.CompiledContract:
    """Return what validates one dataset's records."""
    compiled: CompiledDataset = governed.compiled
    return pb.CompiledContract(
        workspace=governed.workspace,
        dataset=compiled.dataset,
        contract_id=governed.contract_id,
        version=governed.version,
        json_schema=compiled.json_schema,
        compiled_sha256=compiled.sha256,
        columns=[to_column(column) for column in compiled.columns],
        record_rules=[to_record_rule(rule) for rule in compiled.record_rules],
        rules_sha256=_hash([(each.rule_id, each.expression, each.path) for each in compiled.record_rules]),
        classifications=[pb.Classification(path=path, classification=of) for path, of in compiled.classifications],
        classifications_sha256=_hash(compiled.classifications),
        dataset_rules=[to_dataset_rule(each) for each in compiled.monitors.rules],
        service_levels=[to_service_level(each) for each in compiled.monitors.levels],
        owner=compiled.monitors.owner,
    )


def to_column(column: Column) -> pb.Column:
    """Return one column of a dataset."""
    return pb.Column(
        name=column.name,
        type=pb.Column.Type.Value(column.type.value),
        required=column.required,
        default_timezone=column.default_timezone,
        classification=column.classification,
    )


def to_record_rule(rule: RecordRule) -> pb.RecordRule:
    """Return a rule over a whole record."""
    return pb.RecordRule(
        rule_id=rule.rule_id,
        expression=rule.expression,
        description=rule.description,
        severity=rule.severity,
        path=rule.path,
        crossing=rule.crossing,
    )


def _hash(values: Sequence[Any]) -> str:
    return hashlib.sha256(orjson.dumps(values)).hexdigest() if values else ""


def to_finding(finding: Finding) -> FindingProto:
    """Return one fault of a document."""
    return FindingProto(reason=finding.reason, path=finding.path, detail=finding.detail, line=finding.line)


def to_dataset_comparison(compared: DatasetComparison) -> pb.DatasetComparison:
    """Return how a dataset of a document compares with what is in force."""
    return pb.DatasetComparison(
        dataset=compared.in_force.compiled.dataset,
        contract_id=compared.in_force.contract_id,
        version=compared.in_force.version,
        backward=to_comparison(compared.backward),
        forward=to_comparison(compared.forward),
    )


def to_comparison(comparison: Comparison) -> pb.SchemaComparison:
    """Return whether one schema accepts all that another accepts."""
    return pb.SchemaComparison(
        verdict=VERDICTS[comparison.verdict],
        breaks=[to_break(each) for each in comparison.breaks],
    )


def to_break(each: Break) -> pb.SchemaBreak:
    """Return one place where a schema refuses what another accepts."""
    return pb.SchemaBreak(path=each.path, keyword=each.keyword, detail=each.detail, witness=each.witness)
