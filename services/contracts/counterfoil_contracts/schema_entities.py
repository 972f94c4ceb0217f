"""What the rules and stores of schema subjects share."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

JSON = "JSON"
"""The one schema language that is served."""
EVERY_SUBJECT = ""
"""Stands where a subject does for what holds for all that say nothing themselves."""


@dataclass(frozen=True)
class Reference:
    """A name in a schema's `$ref`, and the version that it stands for."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True)
class SchemaContent:
    """What a schema is, apart from its number; `metadata` and `rule_set` are JSON texts, empty for none."""

    text: str
    references: tuple[Reference, ...]
    metadata: bytes
    rule_set: bytes
    guid: str
    """Follows from all of this but the white space of the text."""
    document: Any = None
    """The text's value, where it was parsed."""


@dataclass(frozen=True)
class KeptSchema:
    """A schema with its number in the workspace."""

    schema_id: int
    content: SchemaContent


@dataclass(frozen=True)
class SchemaVersion:
    """One version of a subject."""

    workspace: str
    subject: str
    version: int
    schema: KeptSchema
    deleted: bool
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class VersionOfSubject:
    """A version without its schema's content."""

    subject: str
    version: int
    schema_id: int
    deleted: bool


class CompatibilityLevel(enum.Enum):
    """With which versions a new one has to be compatible, and in which direction."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def is_transitive(self) -> bool:
        """Say whether it is about every version, and not the newest alone."""
        return self.value.endswith("_TRANSITIVE")

    @property
    def is_backward(self) -> bool:
        """Say whether a new version has to accept what the older ones do."""
        return self.value.startswith(("BACKWARD", "FULL"))

    @property
    def is_forward(self) -> bool:
        """Say whether the older versions have to accept what a new one does."""
        return self.value.startswith(("FORWARD", "FULL"))


class Policy(enum.Enum):
    """How compatible is found out: by proof and record, or by the rules that other registries have."""

    EXACT = "exact"
    CONFLUENT_STRICT = "confluent_strict"
    CONFLUENT_LENIENT = "confluent_lenient"


class Mode(enum.Enum):
    """Whether a subject can be written."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"
    READONLY_OVERRIDE = "READONLY_OVERRIDE"
    IMPORT = "IMPORT"


@dataclass(frozen=True)
class SubjectSettings:
    """What was said of a subject; None = nothing."""

    level: CompatibilityLevel | None = None
    policy: Policy | None = None
    normalize: bool | None = None
    compatibility_group: str | None = None
    mode: Mode | None = None

    @property
    def says_config(self) -> bool:
        """Say whether anything but the mode was said."""
        return (
            self.level is not None
            or self.policy is not None
            or self.normalize is not None
            or self.compatibility_group is not None
        )


@dataclass(frozen=True)
class Incompatibility:
    """Where a schema is not compatible with a version: a path, the rule or keyword, and why, with a record (JSON)."""

    version: int
    path: str
    rule: str
    detail: str
    witness: bytes = b""
