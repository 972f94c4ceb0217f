"""Monitors: what is watched of a dataset as a whole, and what follows from each look at it."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cronsim import CronSim

ITSELF: Final = "service:ingest"
"""Who resumes a dataset whose contract leaves that to its monitor."""

MOST_RESULTS: Final = 100
"""How many results of a monitor are kept."""

ERRORS_BEFORE_INCIDENT: Final = 3
"""So often in a row it cannot be evaluated before that counts as a breach: a moment's trouble is none."""


class State(enum.IntEnum):
    """How a monitor is; the numbers are those of `ingest.v1.Monitor.State`."""

    PENDING = 1
    PASSING = 2
    FAILING = 3
    ERROR = 4
    LEARNING = 5


class Origin(enum.IntEnum):
    """Who wants a monitor; the numbers are those of `ingest.v1.Monitor.Origin`."""

    CONTRACT = 1
    DEFAULT = 2
    CONFIGURED = 3


class Operator(enum.IntEnum):
    """How a number must be; the numbers are those of `contracts.v1.DatasetRule.Operator`."""

    EQUAL = 1
    NOT_EQUAL = 2
    GREATER = 3
    AT_LEAST = 4
    LESS = 5
    AT_MOST = 6
    BETWEEN = 7
    NOT_BETWEEN = 8


LATENCY: Final = "latency"
FREQUENCY: Final = "frequency"
RETENTION: Final = "retention"
AVAILABILITY: Final = "availability"
ERROR_RATE: Final = "errorRate"
SQL: Final = "sql"
"""What contracts promise, beside the library metrics."""

FRESHNESS: Final = "freshness"
VOLUME: Final = "volume"
NULL_SHARE: Final = "nullShare"
DISTRIBUTION: Final = "distribution"
SCHEMA_DRIFT: Final = "schemaDrift"
DELAY: Final = "delay"
RECONCILIATION: Final = "reconciliation"
"""What is watched without a contract's word."""

_ONLY_TOLD: Final = frozenset({SCHEMA_DRIFT, DELAY})
"""What makes no output less complete: an incident tells of it, receipts do not, unless the dataset is held for it."""

_HOLDS: Final[Mapping[Operator, Callable[[float, float, float], bool]]] = {
    Operator.EQUAL: lambda number, low, _: number == low,
    Operator.NOT_EQUAL: lambda number, low, _: number != low,
    Operator.GREATER: lambda number, low, _: number > low,
    Operator.AT_LEAST: lambda number, low, _: number >= low,
    Operator.LESS: lambda number, low, _: number < low,
    Operator.AT_MOST: lambda number, low, _: number <= low,
    Operator.BETWEEN: lambda number, low, high: low <= number <= high,
    Operator.NOT_BETWEEN: lambda number, low, high: not low <= number <= high,
}
_WORDS: Final[Mapping[Operator, str]] = {
    Operator.EQUAL: "{0}",
    Operator.NOT_EQUAL: "not {0}",
    Operator.GREATER: "more than {0}",
    Operator.AT_LEAST: "at least {0}",
    Operator.LESS: "less than {0}",
    Operator.AT_MOST: "at most {0}",
    Operator.BETWEEN: "between {0} and {1}",
    Operator.NOT_BETWEEN: "not between {0} and {1}",
}


@dataclass(frozen=True, slots=True)
class Promise:
    """One number that a contract bounds: a quality rule of a dataset, or a service level.

    `measure` is the SQL aggregate of a library metric, `query` the SELECT of an sql rule, `column` what tells a
    record's age ("" = when it was received); `about` is the property that people are told. Only what was received
    within `window` seconds counts; 0 = everything. Without `bounds` each look brings the bound that is usual.
    Without a schedule it is looked at `every` so many periods. `owner` "" = the contract's.
    """

    name: str
    metric: str
    operator: Operator
    bounds: tuple[float, ...]
    unit: str
    description: str = ""
    severity: str = ""
    schedule: str = ""
    data_breaker: bool = False
    auto_resume: bool = False
    window: float = 0.0
    about: str = ""
    measure: str = ""
    query: str = ""
    column: str = ""
    every: int = 1
    owner: str = ""
    origin: Origin = Origin.CONTRACT

    @property
    def expectation(self) -> str:
        """Return what the number must be, e.g. `at most 5 percent`."""
        if not self.bounds:
            return "as is usual"
        return _WORDS[self.operator].format(*(worded(each, self.unit) for each in self.bounds))

    def is_kept_by(self, number: float) -> bool:
        """Tell whether a number is as promised."""
        return _HOLDS[self.operator](number, self.bounds[0], self.bounds[-1])

    def next_after(self, moment: datetime, *, period: timedelta) -> datetime:
        """Return when it is looked at after a moment."""
        return _next(self.schedule, moment) if self.schedule else moment + self.every * period


@dataclass(frozen=True, slots=True)
class Promises:
    """What is promised of a dataset as a whole, and who is responsible."""

    owner: str = ""
    all: tuple[Promise, ...] = ()

    def find(self, name: str) -> Promise | None:
        """Return one promise by its name."""
        return next((each for each in self.all if each.name == name), None)


NO_PROMISES: Final = Promises()


@dataclass(frozen=True, slots=True)
class Setting:
    """How somebody, or a dataset by itself, has something watched; no `threshold` = the usual one."""

    workspace: str
    dataset: str
    name: str
    metric: str
    property: str = ""
    threshold: float | None = None
    owner: str = ""
    severity: str = "warning"
    schedule: str = ""
    data_breaker: bool = False
    auto_resume: bool = False
    description: str = ""
    enabled: bool = True
    origin: Origin = Origin.CONFIGURED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one look found: a number, or none and in `detail` why; `learning` = there is too little past to tell.

    `bound` is what the number must not exceed where the promise leaves that to the look, `days` which it is about.
    """

    measured: float | None
    detail: str = ""
    learning: bool = False
    bound: float | None = None
    days: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Monitor:
    """One monitor as it is kept. Its incident is open while `incident_id` is there.

    `since` is when it was seen first, `recovered_at` since when it passes although its incident is open. `accepted`
    says that somebody put up with the breach: it opens no incident until the promise was kept once. `uptime` counts
    the seconds per day (UTC, as a number since 1970) that its dataset could be read. `days` are those that are wrong.
    """

    workspace: str
    monitor_id: str
    dataset: str
    name: str
    contract_id: str
    contract_version: str
    owner: str
    promised: str
    severity: str
    since: datetime
    state: State = State.PENDING
    measured: float | None = None
    detail: str = ""
    evaluated_at: datetime | None = None
    failing_since: datetime | None = None
    errors: int = 0
    incident_id: str = ""
    opened_at: datetime | None = None
    recovered_at: datetime | None = None
    held: bool = False
    accepted: bool = False
    uptime: Mapping[int, float] = field(default_factory=dict)
    metric: str = ""
    days: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Return what it is known by."""
        return self.workspace, self.monitor_id

    @property
    def concerns_outputs(self) -> bool:
        """Tell whether outputs are held for it, or must say that the data breaks its contract."""
        return self.held or (self.failing_since is not None and self.metric not in _ONLY_TOLD)


@dataclass(frozen=True, slots=True)
class Result:
    """What one evaluation of a monitor found, as it is kept."""

    evaluated_at: datetime
    state: State
    measured: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class End:
    """How an incident ended: by whom, why, and whether the breach was put up with."""

    by: str
    reason: str
    accepted: bool = False


REPAIRED: Final = End(ITSELF, "The promise is kept again.")
WITHDRAWN: Final = End(ITSELF, "The contract in force no longer promises this.")
UNWATCHED: Final = End(ITSELF, "Nobody has this watched any more.")


@dataclass(frozen=True, slots=True)
class Step:
    """A monitor after something happened; `ended` is how the incident that it had `before` ended, None = it did not."""

    before: Monitor
    after: Monitor
    ended: End | None = None

    @property
    def moves_outputs(self) -> bool:
        """Tell whether those who make outputs have to hear of it."""
        before, after = self.before, self.after
        told = (before.concerns_outputs, before.held, before.recovered_at is None, before.incident_id, before.days)
        return told != (after.concerns_outputs, after.held, after.recovered_at is None, after.incident_id, after.days)

    @property
    def is_news(self) -> bool:
        """Tell whether governance has to hear of it."""
        before, after = self.before, self.after
        told = (before.incident_id, before.recovered_at is None, before.held)
        return self.ended is not None or told != (after.incident_id, after.recovered_at is None, after.held)


@lru_cache(maxsize=10_000)
def _next(schedule: str, moment: datetime) -> datetime:
    """Return the first time of a schedule after a moment; it is asked for whenever somebody looks at the monitor."""
    return next(CronSim(schedule, moment))


def monitor_id_of(dataset: str, name: str) -> str:
    """Return the id of a dataset's monitor."""
    return f"{dataset}.{name}"


def judged(known: Monitor, outcome: Outcome, promise: Promise, *, now: datetime, new_id: Callable[[], str]) -> Step:
    """Return what follows from a look at a monitor's promise.

    A breach opens an incident, which holds the dataset when the contract says so. A promise that is kept again ends it;
    a dataset that is held stays so until it is resumed, unless the contract leaves that to the monitor. What cannot be
    evaluated is never taken for kept.
    """
    if outcome.bound is not None:
        promise = replace(promise, bounds=(outcome.bound,))
    looked = replace(known, evaluated_at=now, measured=outcome.measured, detail=_detail(promise, outcome))
    looked = replace(looked, days=outcome.days)
    if outcome.learning:
        return Step(
            known, looked if known.incident_id else replace(looked, state=State.LEARNING, errors=0, failing_since=None)
        )
    if outcome.measured is not None and promise.is_kept_by(outcome.measured):
        return _kept(known, looked, promise, now=now)
    broken = replace(looked, recovered_at=None)
    if outcome.measured is None:
        broken = replace(broken, state=State.ERROR, errors=known.errors + 1)
        if broken.errors < ERRORS_BEFORE_INCIDENT:
            return Step(known, broken)
    else:
        broken = replace(broken, state=State.FAILING, errors=0)
    broken = replace(broken, failing_since=known.failing_since or now)
    if known.incident_id:
        return Step(known, replace(broken, held=known.held or promise.data_breaker))
    if known.accepted:
        return Step(known, broken)
    return Step(known, replace(broken, incident_id=new_id(), opened_at=now, held=promise.data_breaker))


def ended(known: Monitor, end: End) -> Step:
    """Return a monitor whose incident is over and whose dataset is released."""
    over = replace(
        known, incident_id="", opened_at=None, recovered_at=None, held=False, accepted=known.accepted or end.accepted
    )
    return Step(known, over, end if known.incident_id else None)


def with_uptime(known: Monitor, *, up: bool, now: datetime, expected: timedelta, window: timedelta) -> Monitor:
    """Count the time since the last look as time that the dataset could be read, when it can be read now.

    No more than two intervals: nobody knows what was in a longer silence. Days before the window are forgotten.
    """
    days = {day: seconds for day, seconds in known.uptime.items() if day >= _day(now - window)}
    gap = min(now - (known.evaluated_at or known.since), 2 * expected)
    if up:
        days[_day(now)] = days.get(_day(now), 0.0) + max(0.0, gap.total_seconds())
    return replace(known, uptime=days)


def availability(monitor: Monitor, *, up: bool, now: datetime, window: timedelta) -> float:
    """Return in how many percent of the time since the window's first day the dataset could be read."""
    begin = max(monitor.since, (now - window).replace(hour=0, minute=0, second=0, microsecond=0))
    elapsed = (now - begin).total_seconds()
    if elapsed <= 0:
        return 100.0 if up else 0.0
    return min(100.0, 100.0 * sum(monitor.uptime.values()) / elapsed)


_ONE: Final = {
    "rows": "row",
    "totals": "total",
    "points": "point",
    "properties": "property",
    "deviations": "deviation",
}


def worded(number: float, unit: str) -> str:
    """Return a number with its unit as people read it: seconds become the largest unit that fits."""
    if unit != "seconds":
        text = f"{number:.6g}" if abs(number) < 1e6 and number != math.floor(number) else f"{number:.0f}"
        return text if unit == "value" else f"{text} {_ONE.get(unit, unit) if text == '1' else unit}"
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(number) >= size:
            return f"{number / size:.4g} {name}"
    return f"{number:.4g} s"


def _kept(known: Monitor, looked: Monitor, promise: Promise, *, now: datetime) -> Step:
    well = replace(looked, state=State.PASSING, errors=0, failing_since=None, accepted=False)
    if not known.incident_id:
        return Step(known, well)
    recovered = replace(well, recovered_at=known.recovered_at or now)
    if known.held and not promise.auto_resume:
        return Step(known, recovered)
    return Step(known, ended(recovered, REPAIRED).after, REPAIRED)


def _detail(promise: Promise, outcome: Outcome) -> str:
    if outcome.learning:
        return outcome.detail
    if outcome.measured is None:
        return f"It could not be evaluated: {outcome.detail}"[:1000]
    found = f"{worded(outcome.measured, promise.unit)}, and it must be {promise.expectation}."
    return f"{found} {outcome.detail}".strip()[:1000]


def _day(moment: datetime) -> int:
    return int(moment.timestamp() // 86_400)
