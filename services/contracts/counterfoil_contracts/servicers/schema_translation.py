"""Schemas, versions and settings as the protos say them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from counterfoil.contracts.v1 import schemas_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from counterfoil_contracts.registry.content import parsed, subject_of
from counterfoil_contracts.schema_entities import (
    EVERY_SUBJECT,
    JSON,
    CompatibilityLevel,
    KeptSchema,
    Mode,
    Policy,
    Reference,
    SchemaContent,
    SchemaVersion,
    SubjectSettings,
)

_LEVELS: Final[Mapping[CompatibilityLevel, pb.CompatibilityLevel.ValueType]] = {
    level: pb.CompatibilityLevel.Value(f"COMPATIBILITY_LEVEL_{level.value}") for level in CompatibilityLevel
}
_POLICIES: Final[Mapping[Policy, pb.CompatibilityPolicy.ValueType]] = {
    policy: pb.CompatibilityPolicy.Value(f"COMPATIBILITY_POLICY_{policy.value.upper()}") for policy in Policy
}
_MODES: Final[Mapping[Mode, pb.SubjectMode.Mode.ValueType]] = {
    mode: pb.SubjectMode.Mode.Value(mode.value) for mode in Mode
}
_LEVEL_OF: Final = {value: level for level, value in _LEVELS.items()}
_POLICY_OF: Final = {value: policy for policy, value in _POLICIES.items()}
_MODE_OF: Final = {value: mode for mode, value in _MODES.items()}


def from_new(schema: pb.NewSchema) -> SchemaContent:
    """Return the schema that somebody sends; raise what says why it is none."""
    return parsed(
        schema.text,
        schema_type=schema.schema_type,
        references=[Reference(each.name, subject_of(each.subject), each.version) for each in schema.references],
        metadata=schema.metadata,
        rule_set=schema.rule_set,
    )


def subject_or_every(name: str) -> str:
    """Return the subject that a name means; an empty one means every subject."""
    return subject_of(name) if name else EVERY_SUBJECT


def to_schema(schema: KeptSchema) -> pb.Schema:
    """Return a schema as callers see it."""
    content = schema.content
    return pb.Schema(
        schema_id=schema.schema_id,
        guid=content.guid,
        schema_type=JSON,
        text=content.text,
        references=[
            pb.SchemaReference(name=each.name, subject=each.subject, version=each.version)
            for each in content.references
        ],
        metadata=content.metadata,
        rule_set=content.rule_set,
    )


def to_version(version: SchemaVersion) -> pb.SchemaVersion:
    """Return a version as callers see it."""
    return pb.SchemaVersion(
        subject=version.subject,
        version=version.version,
        schema=to_schema(version.schema),
        deleted=version.deleted,
        created_at=to_timestamp(version.created_at),
        created_by=version.created_by,
    )


def from_config(request: pb.SetSubjectConfigRequest) -> SubjectSettings:
    """Return what a request says of a subject; None = nothing."""
    return SubjectSettings(
        level=_LEVEL_OF.get(request.level),
        policy=_POLICY_OF.get(request.policy),
        normalize=request.normalize if request.HasField("normalize") else None,
        compatibility_group=request.compatibility_group if request.HasField("compatibility_group") else None,
    )


def to_config(settings: SubjectSettings) -> pb.SubjectConfig:
    """Return how a subject takes new versions as callers see it."""
    return pb.SubjectConfig(
        level=pb.COMPATIBILITY_LEVEL_UNSPECIFIED if settings.level is None else _LEVELS[settings.level],
        policy=pb.COMPATIBILITY_POLICY_UNSPECIFIED if settings.policy is None else _POLICIES[settings.policy],
        normalize=settings.normalize,
        compatibility_group=settings.compatibility_group or "",
    )


def from_mode(mode: pb.SubjectMode.Mode.ValueType) -> Mode:
    """Return a mode; its field has a rule that allows no other."""
    return _MODE_OF[mode]


def to_mode(mode: Mode) -> pb.SubjectMode:
    """Return a mode as callers see it."""
    return pb.SubjectMode(mode=_MODES[mode])
