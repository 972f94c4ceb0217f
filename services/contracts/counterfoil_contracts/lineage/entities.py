"""What the rules and stores of lineage share. Times are microseconds since 1970 in UTC."""

from __future__ import annotations

import enum
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson

OURS: Final = "counterfoil"
"""The namespace of the platform's own datasets and jobs."""


def key_of(*parts: str) -> str:
    """Return the same 32 hex digits for the same texts."""
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]


def uuid_of(*parts: str) -> str:
    """Return the same UUID for the same texts, where others read it."""
    return str(uuid.UUID(key_of(*parts)))


class NodeKind(enum.Enum):
    """What a node is."""

    DATASET = "dataset"
    JOB = "job"


@dataclass(frozen=True, order=True)
class Name:
    """A dataset or job by its namespace and name."""

    namespace: str
    name: str

    @cached_property
    def dataset(self) -> str:
        """The key of the dataset of this name."""
        return key_of(NodeKind.DATASET.value, self.namespace, self.name)

    @cached_property
    def job(self) -> str:
        """The key of the job of this name."""
        return key_of(NodeKind.JOB.value, self.namespace, self.name)


@dataclass(frozen=True)
class Field:
    """One field of a dataset; nested names are joined by dots."""

    name: str
    type: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class ColumnLink:
    """A field of an output is made of a field of an input; an empty field is the dataset as a whole."""

    source: Name
    source_field: str
    target_field: str
    direct: bool
    subtype: str = ""
    description: str = ""
    masking: bool = False


@dataclass(frozen=True)
class ToldDataset:
    """A dataset as an event tells it: its facets, those of its role, what its fields are made of (None = unsaid)."""

    name: Name
    facets: Mapping[str, Any] = field(default_factory=dict)
    role_facets: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[ColumnLink, ...] | None = None


class RunState(enum.Enum):
    """Where a run is; `DECLARED` is what a JobEvent or DatasetEvent says without any run."""

    NEW = "new"
    RUNNING = "running"
    COMPLETED = "completed"
    ABORTED = "aborted"
    FAILED = "failed"
    DECLARED = "declared"

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self in (RunState.COMPLETED, RunState.ABORTED, RunState.FAILED, RunState.DECLARED)

    @property
    def complete(self) -> bool:
        """Whether it tells all that the job reads and writes, so that what it leaves out is over."""
        return self in (RunState.COMPLETED, RunState.DECLARED)


@dataclass(frozen=True)
class Told:
    """One event, read: of a run, of a job (`run_id` made from the event), or of a dataset (`job` None)."""

    event_id: str
    event_type: str
    at: int
    run_id: str
    state: RunState
    job: Name | None
    job_facets: Mapping[str, Any]
    run_facets: Mapping[str, Any]
    inputs: tuple[ToldDataset, ...]
    outputs: tuple[ToldDataset, ...]
    payload: bytes


@dataclass(frozen=True)
class Node:
    """A dataset or a job as it is known; `key` is `Name.dataset` or `Name.job`."""

    key: str
    kind: NodeKind
    name: Name
    type: str
    description: str
    created_at: int
    updated_at: int
    facets: Mapping[str, Any]
    fields: tuple[Field, ...]
    tags: tuple[str, ...]
    version: str = ""
    latest_run: str = ""
    dropped: bool = False

    @property
    def node_id(self) -> str:
        """Return how Marquez names it."""
        return f"{self.kind.value}:{self.name.namespace}:{self.name.name}"


@dataclass(frozen=True)
class Run:
    """One run of a job; of what a dataset says of itself, `job` is the dataset's key."""

    run_id: str
    job: str
    job_name: Name | None
    state: RunState
    created_at: int
    updated_at: int
    started_at: int | None = None
    ended_at: int | None = None
    nominal_start: int | None = None
    nominal_end: int | None = None
    receipt_id: str = ""
    parent_run_id: str = ""
    run_facets: Mapping[str, Any] = field(default_factory=dict)
    job_facets: Mapping[str, Any] = field(default_factory=dict)


class Role(enum.Enum):
    """How a run uses a dataset."""

    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True)
class RunUse:
    """A dataset that a run used; `first_at` is the event time at which that was first told."""

    run_id: str
    job: str
    role: Role
    dataset: Name
    version: str
    facets: Mapping[str, Any]
    columns: tuple[ColumnLink, ...] | None
    first_at: int


@dataclass(frozen=True)
class Version:
    """One version of a dataset."""

    dataset: str
    version: str
    stated: str
    fields: tuple[Field, ...]
    facets: Mapping[str, Any]
    created_at: int
    run_id: str
    lifecycle: str


class EdgeKind(enum.Enum):
    """What an edge says."""

    USE = "use"
    """A job reads a dataset, or writes it."""
    DIRECT = "direct"
    """A field's value is made of another's."""
    INDIRECT = "indirect"
    """A field decides which rows there are, or in which order."""


@dataclass(frozen=True)
class Edge:
    """What is connected by which job, or by a dataset that says it of itself; all three are keys of nodes."""

    job: str
    kind: EdgeKind
    source: str
    target: str
    source_field: str = ""
    target_field: str = ""
    subtype: str = ""
    description: str = ""
    masking: bool = False

    @cached_property
    def key(self) -> str:
        """The same key for the same edge."""
        parts = (self.job, self.kind.value, self.source, self.target, self.source_field, self.target_field)
        return key_of(*parts, self.subtype, self.description, str(self.masking))


@dataclass(frozen=True)
class Span:
    """When an edge was valid: from `start` until before `end` (None = it still is)."""

    start: int
    end: int | None

    def holds(self, at: int) -> bool:
        """Say whether it was valid at a time."""
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True)
class Belief:
    """When an edge was believed to be valid before something was learnt, and when it is now."""

    edge: Edge
    before: Sequence[Span]
    after: Sequence[Span]


@dataclass(frozen=True)
class KnownEdge:
    """An edge with the time it was valid in and since when that is known."""

    edge: Edge
    span: Span
    known_from: int


@dataclass(frozen=True)
class AsOf:
    """The two times a question is asked for: what was valid `at`, by what was known at `known`."""

    at: int
    known: int
