"""What rules and stores share: models, versions, events, snapshots, forecasts."""

import enum
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

SERVICE_ACTOR = "service:models"
"""The actor of events that no principal caused."""

UNKNOWN_SERIES = "unknown"
"""The series of records whose dimension has no value; never forecast."""


class Aggregation(enum.Enum):
    """How a day's records become one number."""

    SUM = "sum"
    COUNT = "count"


class ImpactTier(enum.Enum):
    """How much harm a wrong output can do."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class State(enum.Enum):
    """Where a version is in its life."""

    DRAFT = "draft"
    TRAINED = "trained"
    VALIDATED = "validated"
    PENDING_APPROVAL = "pending_approval"
    APPROVED = "approved"
    CHAMPION = "champion"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class Method(enum.Enum):
    """What makes a series' forecast."""

    THETA_ETS_MEAN = "theta_ets_mean"
    SEASONAL_NAIVE = "seasonal_naive"


class OutputKind(enum.Enum):
    """What a kept output is: the first part of its resource name."""

    ATTRIBUTION = "attribution"
    LIFT = "lift"


@dataclass(frozen=True)
class SeriesLookup:
    """Another dataset that holds the dimension, joined by a property of both."""

    dataset: str
    key: str


@dataclass(frozen=True)
class SeriesFilter:
    """One equality of a property's text."""

    field: str
    value: str


@dataclass(frozen=True)
class SeriesSpec:
    """Daily series of a dataset; an empty dimension makes one series."""

    dataset: str
    time_field: str
    aggregation: Aggregation
    value_field: str = ""
    dimension: str = ""
    lookup: SeriesLookup | None = None
    filters: tuple[SeriesFilter, ...] = ()


@dataclass(frozen=True)
class ForecastSpec:
    """What a forecast model predicts, with every default filled in."""

    series: SeriesSpec
    horizon_days: int = 28
    season_days: int = 7
    coverage: float = 0.8
    min_active_days: int = 300

    def datasets(self) -> tuple[str, ...]:
        """Return the datasets that are read."""
        return (
            (self.series.dataset,) if self.series.lookup is None else (self.series.dataset, self.series.lookup.dataset)
        )


@dataclass(frozen=True)
class Model:
    """What is predicted and from which data; `champion_version` 0 = none serves.

    `records_since_training` counts what its datasets have received beyond the champion's snapshots.
    """

    workspace: str
    model_id: str
    display_name: str
    purpose: str
    impact_tier: ImpactTier
    spec: ForecastSpec
    created_by: str
    created_at: datetime
    champion_version: int = 0
    records_since_training: int = 0


@dataclass(frozen=True)
class Snapshot:
    """An exact state of one dataset: the records below the offsets (partition, exclusive offset)."""

    dataset: str
    offsets: tuple[tuple[int, int], ...]
    log_epoch: str
    erasure_revision: int


@dataclass(frozen=True)
class Input:
    """A snapshot in its role: `series` or `lookup`."""

    role: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Contract:
    """A contract version that records were validated under."""

    contract_id: str
    version: str
    dataset: str
    compiled_sha256: str


@dataclass(frozen=True)
class Gap:
    """Something late, missing or left out, with how many records it concerns."""

    reason: str
    detail: str
    records: int


@dataclass(frozen=True)
class SeriesBacktest:
    """How one series would have been forecast in the past."""

    series: str
    method: Method
    mase: float
    mase_seasonal_naive: float
    coverage: float
    origins: int
    active_days: int

    @property
    def mase_served(self) -> float:
        """The error of the method that serves."""
        return self.mase if self.method is Method.THETA_ETS_MEAN else self.mase_seasonal_naive


@dataclass(frozen=True)
class SkippedSeries:
    """A series that was left out, and why."""

    series: str
    reason: str
    active_days: int
    records: int
    total: float


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model; `artifact_sha256` is empty until it is trained.

    `input_rows` are how many records each input held; none until it is trained, or when an old release trained it.
    `change_id` names the change that its promotion waits for or was approved by, empty = none was needed.
    """

    workspace: str
    model_id: str
    version: int
    state: State
    inputs: tuple[Input, ...]
    created_by: str
    created_at: datetime
    trace_id: str
    artifact_sha256: str = ""
    artifact_bytes: int = 0
    backtests: tuple[SeriesBacktest, ...] = ()
    skipped: tuple[SkippedSeries, ...] = ()
    input_rows: tuple[int, ...] = ()
    error_reason: str = ""
    error_detail: str = ""
    finished_at: datetime | None = None
    change_id: str = ""


@dataclass(frozen=True)
class ModelEvent:
    """Something that happened to a version; `from_state` None = it began."""

    workspace: str
    model_id: str
    sequence: int
    version: int
    from_state: State | None
    to_state: State
    actor: str
    reason: str
    created_at: datetime


@dataclass(frozen=True)
class Change:
    """An event to append: one version's step from a state to another, by whom and why."""

    version: int
    from_state: State | None
    to_state: State
    actor: str
    reason: str


@dataclass(frozen=True)
class Point:
    """One day of a forecast; lower <= mean <= upper."""

    day: date
    mean: float
    lower: float
    upper: float


@dataclass(frozen=True)
class ForecastSeries:
    """The forecast of one series, days in order."""

    series: str
    method: Method
    last_day: date
    points: tuple[Point, ...]


@dataclass(frozen=True)
class ForecastOutput:
    """What leaves the platform; its hash is in the receipt. Numbers have 9 significant digits."""

    model_id: str
    model_version: int
    horizon_days: int
    coverage: float
    timezone: str
    series: tuple[ForecastSeries, ...]


@dataclass(frozen=True)
class Forecast:
    """A kept output with its receipt's id; `question_sha256` names what was asked of which data."""

    workspace: str
    forecast_id: str
    receipt_id: str
    question_sha256: str
    output: ForecastOutput
    inputs: tuple[Input, ...]
    gaps: tuple[Gap, ...]
    created_at: datetime


@dataclass(frozen=True)
class Output:
    """A kept output that is a document, whose hash the receipt has; `meta` is what else is told of it: spec, gaps."""

    workspace: str
    kind: OutputKind
    output_id: str
    receipt_id: str
    question_sha256: str
    document: dict[str, Any]
    meta: dict[str, Any]
    created_at: datetime

    @property
    def name(self) -> str:
        """The resource name, e.g. `attribution/0197…`."""
        return f"{self.kind.value}/{self.output_id}"


@dataclass(frozen=True)
class GraphState:
    """A citable state of the graph: a place in one life of the log, and the mappings it was read under."""

    log_epoch: str
    next_offset: int
    mappings_sha256: str
    erasures: int = 0


@dataclass(frozen=True)
class ConsentState:
    """A citable state of the consent ledger: its revision, and the moment at which expiries were judged."""

    ledger_revision: int
    judged_at: datetime


@dataclass(frozen=True)
class JourneyReading:
    """What graph read and whom it left out; `known_at` is when the newest record was received, None = there is none."""

    state: GraphState
    consent: ConsentState
    known_at: datetime | None
    persons: int
    persons_without_consent: int
    bases: str
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class LogBlock:
    """Consecutive records of the log, a JSON line each, with the `traceparent`s of the requests that brought them.

    `received_us` is when the newest request was received.
    """

    first_offset: int
    next_offset: int
    lines: bytes
    traceparents: tuple[str, ...]
    received_us: int = 0


@dataclass(frozen=True)
class Hold:
    """A dataset that is not as it should be: nothing new is made from it while it is `held`; else outputs say so.

    `metric` is what its monitor measures, `days` (ISO 8601) which it is about: none = whichever.
    """

    workspace: str
    dataset: str
    monitor_id: str
    incident_id: str
    detail: str
    since: datetime
    recovered_at: datetime | None = None
    held: bool = True
    metric: str = ""
    days: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Return what it is known by."""
        return self.workspace, self.monitor_id

    def concerns(self, days: tuple[date, date] | None) -> bool:
        """Tell whether it is about any of the days from the first to the last; None = all there are."""
        if days is None or not self.days:
            return True
        first, last = (each.isoformat() for each in days)
        return any(first <= each <= last for each in self.days)
