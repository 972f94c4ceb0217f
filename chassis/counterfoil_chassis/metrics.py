"""What every process measures of itself, in Prometheus' words; a service's own metrics are in its `metrics.py`.

Labels are bounded: methods, codes, topics and the like, never a workspace, path or key. Everything here is written and
read in the process's one event loop, so that counting a call needs no lock: a series is a few integers, and costs a
third of what the library's own histogram does.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The bounds of every duration."""
_BOUNDS = (*map(str, SECONDS), "+Inf")
_LAG_EVERY_SECONDS = 0.5


class Series:
    """The calls of one method: how many by outcome, how long they took, how many run."""

    __slots__ = ("buckets", "in_flight", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0
        self.in_flight = 0

    def begin(self) -> float:
        """Note that a call begins; return what `end` wants back."""
        self.in_flight += 1
        return time.perf_counter()

    def end(self, begun: float, outcome: str) -> None:
        """Note that the call is over, and how it ended."""
        taken = time.perf_counter() - begun
        self.in_flight -= 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.buckets[bisect_left(SECONDS, taken)] += 1
        self.seconds += taken

    def counted(self, otherwise: str) -> Counted:
        """Return the block that is one call, which ends `otherwise` unless it says how."""
        return Counted(self, otherwise)


class Counted:
    """One call as a block; written out, since a generator's context manager costs more than the counting."""

    __slots__ = ("_begun", "_series", "outcome")

    def __init__(self, series: Series, otherwise: str) -> None:
        self._series = series
        self.outcome = otherwise

    def __enter__(self) -> Self:
        self._begun = self._series.begin()
        return self

    def __exit__(self, *_error: object) -> None:
        self._series.end(self._begun, self.outcome)

    def move(self, series: Series) -> None:
        """Count it as one of another series, now that it is known for what it is."""
        self._series.in_flight -= 1
        self._series = series
        series.in_flight += 1


class Calls(Collector):
    """Rate, errors and durations of one kind of call, as `<name>_total`, `_duration_seconds` and `_in_flight`."""

    def __init__(self, name: str, documentation: str, *, by: str, outcome: str) -> None:
        """Take the label that tells the series apart, and the label of how a call ended."""
        self.name = name
        self.documentation = documentation
        self.by = by
        self.outcome = outcome
        self._series: dict[str, Series] = {}
        REGISTRY.register(self)

    def of(self, value: str) -> Series:
        """Return the series of a label's value; keep it where calls are many."""
        series = self._series.get(value)
        if series is None:
            series = self._series[value] = Series()
        return series

    def describe(self) -> list[Metric]:
        """Return the three families without their values."""
        total, durations, running = self._families()
        return [total, durations, running]

    def collect(self) -> Iterable[Metric]:
        """Return the three families with their values."""
        total, durations, running = self._families()
        for value, series in self._series.items():
            if not series.outcomes and not series.in_flight:
                continue  # a hundred methods that nobody calls would be most of the page
            for outcome, count in series.outcomes.items():
                total.add_metric([value, outcome], count)
            reached, buckets = 0, []
            for bound, count in zip(_BOUNDS, series.buckets, strict=True):
                reached += count
                buckets.append((bound, reached))
            durations.add_metric([value], buckets, sum_value=series.seconds)
            running.add_metric([value], series.in_flight)
        return [total, durations, running]

    def _families(self) -> tuple[CounterMetricFamily, HistogramMetricFamily, GaugeMetricFamily]:
        what = self.documentation
        return (
            CounterMetricFamily(self.name, f"{what}, by how they ended.", labels=[self.by, self.outcome]),
            HistogramMetricFamily(f"{self.name}_duration_seconds", f"{what}: how long they took.", labels=[self.by]),
            GaugeMetricFamily(f"{self.name}_in_flight", f"{what}: how many run now.", labels=[self.by]),
        )


class Sampled(Collector):
    """A gauge whose values are read when they are asked for, from whatever lives then; of equal labels the greatest."""

    def __init__(self, name: str, documentation: str, *, by: Sequence[str]) -> None:
        self.name = name
        self.documentation = documentation
        self.by = tuple(by)
        self._sources: dict[object, tuple[tuple[str, ...], Callable[[], float]]] = {}
        REGISTRY.register(self)

    @contextmanager
    def reading(self, *labels: str, read: Callable[[], float]) -> Iterator[None]:
        """Have a value read while the block runs."""
        forget = self.add(*labels, read=read)
        try:
            yield
        finally:
            forget()

    def add(self, *labels: str, read: Callable[[], float]) -> Callable[[], None]:
        """Have a value read until what is returned is called."""
        key = object()
        self._sources[key] = (labels, read)
        return lambda: self._sources.pop(key, None) and None

    def describe(self) -> list[Metric]:
        """Return the family without its values."""
        return [GaugeMetricFamily(self.name, self.documentation, labels=self.by)]

    def collect(self) -> Iterable[Metric]:
        """Read every value."""
        greatest: dict[tuple[str, ...], float] = {}
        for labels, read in self._sources.values():
            greatest[labels] = max(read(), greatest.get(labels, float("-inf")))
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.by)
        for labels, value in greatest.items():
            family.add_metric(labels, value)
        return [family]


SERVER_CALLS = Calls("counterfoil_server_calls", "Calls that this process answered", by="method", outcome="code")
CLIENT_CALLS = Calls("counterfoil_client_calls", "Calls that this process made to others", by="method", outcome="code")
LOOP_LAG = Histogram(
    "counterfoil_event_loop_lag_seconds",
    "How much later than asked for the event loop came back to a task, looked at twice a second.",
    buckets=SECONDS,
)
DEPENDENCY_OPEN = Sampled(
    "counterfoil_dependency_open",
    "Whether the breaker of a service that this process calls is open: 1 = it is called once a second only.",
    by=["dependency"],
)
DEPENDENCY_CALLS = Sampled(
    "counterfoil_dependency_calls", "Calls to another service that run or wait for their turn.", by=["dependency"]
)
DEPENDENCY_REFUSED = Counter(
    "counterfoil_dependency_refused_total",
    "Calls that were not made, since the breaker was open or too many ran already (`open`, `busy`).",
    ["dependency", "cause"],
)
OVERLOAD_REFUSED = Counter(
    "counterfoil_overload_refused_total",
    "Requests that were refused at once, by the bound that was reached (`running`, `delay`, `bytes`, `streams`).",
    ["bound"],
)
OUTBOX_MESSAGES = Sampled(
    "counterfoil_outbox_messages", "Messages that wait to be delivered, by their topic.", by=["topic"]
)
OUTBOX_AGE = Sampled(
    "counterfoil_outbox_age_seconds", "Age of the oldest message that waits to be delivered; 0 = none.", by=["topic"]
)
CONSUMER_BEHIND = Sampled(
    "counterfoil_consumer_behind_seconds",
    "How long ago the newest records were received that a consumer of the log has taken in; 0 at the log's head. "
    "Of the workspace that is furthest behind.",
    by=["consumer"],
)
WATCH_AGE = Sampled(
    "counterfoil_watch_age_seconds",
    "Seconds since a watched feed was last heard of; it says something every five seconds.",
    by=["watch"],
)
SPANS_DROPPED = Counter(
    "counterfoil_spans_dropped_total",
    "Spans that no collector got: more waited for it than memory should hold (`full`), or it did not take them "
    "(`undelivered`).",
    ["cause"],
)
DATABASE_CONNECTIONS = Sampled(
    "counterfoil_database_connections", "Connections of the database pool that are in use.", by=()
)
DATABASE_WRITERS_WAITING = Sampled(
    "counterfoil_database_writers_waiting",
    "Transactions that wait for their turn to write; on SQLite they take turns.",
    by=(),
)
HEALTH_CHECKS = Gauge("counterfoil_health_check_ok", "Whether a check of /healthz is passed: 1 or 0.", ["check"])


async def measure_loop_lag() -> None:
    """Observe for ever how late the event loop is."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(_LAG_EVERY_SECONDS)
        LOOP_LAG.observe(max(0.0, time.perf_counter() - begun - _LAG_EVERY_SECONDS))
