"""What the rules and stores of contracts share."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final

READERS: Final = "x-readers"
"""The keyword of a compiled schema, beside `additionalProperties: false`, of an object that is open for readers."""
OPEN_TO_READERS: Final = "open"


@dataclass(frozen=True)
class Finding:
    """One fault of a document: a stable reason, a JSON path (`$.schema[0].name`), and what to do about it.

    `line` counts from 1; 0 = not said.
    """

    reason: str
    path: str
    detail: str
    line: int = 0

    @property
    def told(self) -> str:
        """Return what to do with the line to do it in, where that is known."""
        return f"Line {self.line}: {self.detail}" if self.line else self.detail


class ColumnType(enum.Enum):
    """The type of a lake column in SQL."""

    VARCHAR = "VARCHAR"
    BIGINT = "BIGINT"
    DOUBLE = "DOUBLE"
    BOOLEAN = "BOOLEAN"
    DATE = "DATE"
    TIMESTAMPTZ = "TIMESTAMPTZ"
    JSON = "JSON"


@dataclass(frozen=True)
class Column:
    """One column of a dataset; an empty `default_timezone` means that a zoneless timestamp is refused."""

    name: str
    type: ColumnType
    required: bool
    default_timezone: str = ""
    classification: str = ""


@dataclass(frozen=True)
class RecordRule:
    """A rule over a whole record: a CEL expression over `record`, about the property at a JSON path.

    The cost of a `crossing` one may grow with the square of a record's size.
    """

    rule_id: str
    expression: str
    description: str
    severity: str
    path: str
    crossing: bool


class Operator(enum.Enum):
    """How a number that a dataset is measured by must be."""

    EQUAL = "equal"
    NOT_EQUAL = "not_equal"
    GREATER = "greater"
    AT_LEAST = "at_least"
    LESS = "less"
    AT_MOST = "at_most"
    BETWEEN = "between"
    NOT_BETWEEN = "not_between"


class LevelProperty(enum.Enum):
    """The service levels that are watched, as ODCS calls them."""

    LATENCY = "latency"
    FREQUENCY = "frequency"
    RETENTION = "retention"
    AVAILABILITY = "availability"
    ERROR_RATE = "errorRate"


@dataclass(frozen=True)
class MonitorPlan:
    """How often a promise is looked at (no `schedule` = every period), and what its breach does; no window = ever."""

    name: str
    description: str
    severity: str
    schedule: str
    data_breaker: bool
    auto_resume: bool
    window_seconds: float


@dataclass(frozen=True)
class DatasetRule:
    """A number that tells of a dataset as a whole, an aggregate `measure` or a `query`, and what it must be."""

    plan: MonitorPlan
    metric: str
    property: str
    measure: str
    query: str
    operator: Operator
    bounds: tuple[float, ...]
    percent: bool


@dataclass(frozen=True)
class ServiceLevel:
    """A time or a share that is promised; `column` tells the age of a record, none = when it was received."""

    plan: MonitorPlan
    property: LevelProperty
    column: str
    seconds: float
    percent: float


@dataclass(frozen=True)
class DatasetMonitors:
    """What is promised of a dataset as a whole, and who is responsible."""

    owner: str = ""
    rules: tuple[DatasetRule, ...] = ()
    levels: tuple[ServiceLevel, ...] = ()


@dataclass(frozen=True)
class CompiledDataset:
    """What validates one dataset's records: deterministic bytes of a JSON Schema 2020-12 and their hex SHA-256.

    `record_rules` hold beside it; `classifications` are of fields by JSON path, nested ones too. Golden records, as
    JSON, keep all that, and every later version is held against them first.
    """

    dataset: str
    json_schema: bytes
    sha256: str
    columns: tuple[Column, ...]
    record_rules: tuple[RecordRule, ...] = ()
    classifications: tuple[tuple[str, str], ...] = ()
    golden_records: tuple[bytes, ...] = ()
    monitors: DatasetMonitors = DatasetMonitors()


@dataclass(frozen=True)
class CheckedDocument:
    """What checking a document gave: `compiled` and the names are complete only when there are no findings.

    One that breaks none but our own rules is `storable` all the same: it is ODCS, and a draft may be unfinished.
    """

    findings: tuple[Finding, ...]
    contract_id: str = ""
    version: str = ""
    display_name: str = ""
    compiled: tuple[CompiledDataset, ...] = ()
    storable: bool = False


class VersionState(enum.Enum):
    """Where a contract version is in its life."""

    DRAFT = "draft"
    PROPOSED = "proposed"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


@dataclass(frozen=True)
class ContractVersion:
    """One version of a contract with its document and what it compiles to.

    `reason` is why it is in its state; `change_id` that of the change it waits for. A deprecated version can still be
    in force.
    """

    workspace: str
    contract_id: str
    version: str
    display_name: str
    state: VersionState
    document: str
    document_sha256: str
    compiled: tuple[CompiledDataset, ...]
    created_by: str
    created_at: datetime
    activated_at: datetime | None = None
    reason: str = ""
    sunset_at: datetime | None = None
    change_id: str = ""
    in_force: bool = False

    @property
    def datasets(self) -> tuple[str, ...]:
        """Return the datasets it governs when it is in force."""
        return tuple(compiled.dataset for compiled in self.compiled)


@dataclass(frozen=True)
class VersionSummary:
    """A contract version without document and schemas; `number` counts the contract's versions from 1."""

    number: int
    version: ContractVersion


@dataclass(frozen=True)
class Contract:
    """A contract as a whole; an empty `active_version` means that none is in force."""

    workspace: str
    contract_id: str
    display_name: str
    active_version: str
    latest_version: str
    datasets: tuple[str, ...]
    shipped: bool
    created_at: datetime


class Verdict(enum.Enum):
    """What is known of whether one schema accepts all that another accepts."""

    PROVEN_COMPATIBLE = "proven_compatible"
    PROVEN_BREAKING = "proven_breaking"
    UNPROVEN = "unproven"


@dataclass(frozen=True)
class Break:
    """A place where one schema refuses what another accepts, with a record (JSON) that shows it."""

    path: str
    keyword: str
    detail: str
    witness: bytes


@dataclass(frozen=True)
class Comparison:
    """Whether a reader's schema accepts all that a writer's accepts."""

    verdict: Verdict
    breaks: tuple[Break, ...] = ()


@dataclass(frozen=True)
class DatasetComparison:
    """How a dataset of a document compares with what is in force: for those who send, and for those who read."""

    in_force: GovernedDataset
    backward: Comparison
    forward: Comparison


@dataclass(frozen=True)
class GovernedDataset:
    """A dataset with the contract version in force for it."""

    workspace: str
    contract_id: str
    version: str
    compiled: CompiledDataset
