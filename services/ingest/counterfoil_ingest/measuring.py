"""Measures what is watched of datasets: by SQL over the lake, by the log's own counts, by what is in quarantine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, Protocol

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.errors import CounterfoilError

from counterfoil_ingest import unusual
from counterfoil_ingest.counting import Counting
from counterfoil_ingest.entities import DatasetCounts
from counterfoil_ingest.histories import History
from counterfoil_ingest.monitors import (
    AVAILABILITY,
    DELAY,
    DISTRIBUTION,
    FREQUENCY,
    FRESHNESS,
    LATENCY,
    NULL_SHARE,
    RECONCILIATION,
    RETENTION,
    SCHEMA_DRIFT,
    SQL,
    VOLUME,
    Monitor,
    Outcome,
    Promise,
    availability,
    with_uptime,
)
from counterfoil_ingest.plans import Subject
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.read_errors import SqlInvalidError
from counterfoil_ingest.reconciling import Reconciling
from counterfoil_ingest.registry import Column, ColumnType
from counterfoil_ingest.store import Log

QUERY_SECONDS: Final = 30.0
ERROR_RATE_WINDOW: Final = timedelta(days=1)
AVAILABILITY_WINDOW: Final = timedelta(days=30)

_OF_THE_PAST: Final = frozenset({DISTRIBUTION, FRESHNESS, NULL_SHARE, SCHEMA_DRIFT, VOLUME})


class QuarantineCounts(Protocol):
    """How much of a dataset broke its contract."""

    async def count_since(self, workspace: str, dataset: str, *, since: int) -> int:
        """Return how many records of a dataset were quarantined since a time, microseconds UTC."""
        ...


class Measurer:
    """Measures the promises of one dataset at a time; the queries run by themselves, so that nobody waits for them."""

    def __init__(
        self,
        queries: Queries,
        *,
        log: Log,
        quarantine: QuarantineCounts,
        period: timedelta,
        counting: Counting,
        reconciling: Reconciling,
        waiting: Callable[[str], float],
    ) -> None:
        """Take `waiting`, too: for how many seconds a workspace's oldest record has waited for the lake."""
        self._queries = queries
        self._log = log
        self._quarantine = quarantine
        self._counting = counting
        self._reconciling = reconciling
        self._waiting = waiting
        self._period = period
        self._known: dict[tuple[str, str, str], tuple[object, Outcome]] = {}

    async def measure(
        self, subject: Subject, promises: Sequence[Promise], monitors: Mapping[str, Monitor], *, now: datetime
    ) -> Mapping[str, tuple[Monitor, Outcome]]:
        """Return by name what was found of each promise, with its monitor as counted so far."""
        found: dict[str, tuple[Monitor, Outcome]] = {}
        waited = self._waiting(subject.workspace)  # before anything here has the lake brought up to date
        for promise, outcome in (await self._unusual(subject, promises, now=now)).items():
            found[promise.name] = monitors[promise.name], outcome
        for promise, outcome in (await self._counted(subject, promises, now=now)).items():
            found[promise.name] = monitors[promise.name], outcome
        for promise in promises:
            if promise.name in found:
                continue
            monitor = monitors[promise.name]
            if promise.metric == DELAY:
                found[promise.name] = monitor, Outcome(waited)
            elif promise.metric == AVAILABILITY:
                found[promise.name] = await self._available(subject, promise, monitor, now=now)
            else:
                outcome = await _told(self._of(subject, promise, monitor, now=now))
                found[promise.name] = monitor, outcome
        return found

    def forget(self, subject: Subject) -> None:
        """Measure everything of a dataset anew the next time."""
        for key in [each for each in self._known if each[:2] == (subject.workspace, subject.dataset)]:
            del self._known[key]

    async def _of(self, subject: Subject, promise: Promise, monitor: Monitor, *, now: datetime) -> Outcome:
        if promise.metric == RECONCILIATION:
            return await self._reconciling.outcome(subject, now=now)
        if promise.metric == SQL:
            return _number(await self._first_row(subject.workspace, promise.query))
        if promise.metric in (LATENCY, FREQUENCY):
            return await self._age_of_newest(subject, promise, monitor, now=now)
        if promise.metric == RETENTION:
            return await self._age_of_oldest(subject, promise, now=now)
        return await self._error_rate(subject, promise, now=now)

    async def _unusual(
        self, subject: Subject, promises: Sequence[Promise], *, now: datetime
    ) -> Mapping[Promise, Outcome]:
        """Hold the dataset against its own past, which is brought up to date once for all that is asked."""
        wanted = [each for each in promises if each.metric in _OF_THE_PAST]
        if not wanted:
            return {}
        try:
            history = await self._counting.history(subject, now=now)
        except CounterfoilError as error:
            return dict.fromkeys(wanted, Outcome(None, _why(error)))
        if history is None:
            return dict.fromkeys(wanted, Outcome(None, "The dataset's past is still being counted.", learning=True))
        held_against = partial(_held_against, history, subject, now=now)
        found = {each: await asyncio.to_thread(held_against, each) for each in wanted}
        for each in wanted:
            if each.metric == FRESHNESS and each.about:
                found[each] = await _told(self._freshness(subject, each, found[each], now=now))
        return found

    async def _freshness(self, subject: Subject, promise: Promise, usual: Outcome, *, now: datetime) -> Outcome:
        """Return how old the newest record is by a column of its own; the past tells the bound, where none is set."""
        column = subject.column(promise.about)
        if column is None:
            return Outcome(None, f"The contract in force has no property {promise.about!r}.")
        newest = await self._extreme(subject, column, "max", f"{_name(column)} <= $1::TIMESTAMPTZ", now)
        if newest is None or (usual.learning and not promise.bounds):
            return replace(usual, measured=None, learning=True)
        return Outcome(max(0.0, _seconds(now - newest)), bound=usual.bound)

    async def _counted(
        self, subject: Subject, promises: Sequence[Promise], *, now: datetime
    ) -> Mapping[Promise, Outcome]:
        """Measure the library metrics, those of the same rows by one query."""
        found: dict[Promise, Outcome] = {}
        rules = [each for each in promises if each.measure]
        if not rules:
            return found
        state = await self._state_of(subject)
        for window in sorted({each.window for each in rules}):
            wanted = [each for each in rules if each.window == window]
            if not window:  # the same rows give the same numbers
                for each in wanted:
                    known = self._known.get((subject.workspace, subject.dataset, each.name))
                    if known is not None and known[0] == (state, each):
                        found[each] = known[1]
            if left := [each for each in wanted if each not in found]:
                found |= await self._count(subject, left, since=now - timedelta(seconds=window) if window else None)
        for each in rules:
            if not each.window and found[each].measured is not None:
                self._known[subject.workspace, subject.dataset, each.name] = (state, each), found[each]
        return found

    async def _count(
        self, subject: Subject, rules: Sequence[Promise], *, since: datetime | None
    ) -> dict[Promise, Outcome]:
        where = "" if since is None else " WHERE _received_at >= $1::TIMESTAMPTZ"
        aggregates = ", ".join(f"{each.measure} AS m{at}" for at, each in enumerate(rules))
        sql = f'SELECT count(*) AS n, {aggregates} FROM "{subject.dataset}"{where}'  # noqa: S608 - by the contract's compiler
        try:
            rows, *numbers = await self._first_row(subject.workspace, sql, *([] if since is None else [since]))
        except SqlInvalidError as error:
            if len(rules) == 1:
                return {rules[0]: Outcome(None, _why(error))}
            return {each: (await self._count(subject, [each], since=since))[each] for each in rules}
        except CounterfoilError as error:
            return dict.fromkeys(rules, Outcome(None, error.message))
        shares = [100.0 * number / rows if rows else 0.0 for number in numbers]
        return {
            each: Outcome(share if each.unit == "percent" else float(number))
            for each, number, share in zip(rules, numbers, shares, strict=True)
        }

    async def _age_of_newest(self, subject: Subject, promise: Promise, monitor: Monitor, *, now: datetime) -> Outcome:
        """Return how old the newest record is; while there is none, for how long it has been waited for."""
        counts = await asyncio.to_thread(self._counts, subject)
        if counts is None or not counts.last_received_at:
            return Outcome(_seconds(now - monitor.since), "There is no record yet.")
        column = subject.column(promise.column)
        if column is None:
            return Outcome(_seconds(now - from_micros(counts.last_received_at)))
        # What claims to come from the future would hide that nothing comes.
        newest = await self._extreme(subject, column, "max", f"{_name(column)} <= $1::TIMESTAMPTZ", now)
        if newest is None:
            return Outcome(_seconds(now - monitor.since), f"No record has a {column.name} in the past.")
        return Outcome(max(0.0, _seconds(now - newest)))

    async def _age_of_oldest(self, subject: Subject, promise: Promise, *, now: datetime) -> Outcome:
        column = subject.column(promise.column) or _RECEIVED
        oldest = await self._extreme(subject, column, "min", "true")
        return Outcome(0.0 if oldest is None else max(0.0, _seconds(now - oldest)))

    async def _extreme(
        self, subject: Subject, column: Column, aggregate: str, where: str, *values: datetime
    ) -> datetime | None:
        """Return the first or last moment that a column names; a day is over at its end, UTC."""
        sql = f'SELECT {aggregate}({_name(column)}) FROM "{subject.dataset}" WHERE {where}'  # noqa: S608 - quoted
        (found,) = await self._first_row(subject.workspace, sql, *values)
        if found is None:
            return None
        if column.type is ColumnType.DATE:
            return datetime.fromisoformat(f"{date.fromisoformat(found)}T00:00:00+00:00") + timedelta(days=1)
        return datetime.fromisoformat(found)

    async def _error_rate(self, subject: Subject, promise: Promise, *, now: datetime) -> Outcome:
        since = now - (timedelta(seconds=promise.window) or ERROR_RATE_WINDOW)
        sql = f'SELECT count(*) FROM "{subject.dataset}" WHERE _received_at >= $1::TIMESTAMPTZ'  # noqa: S608 - a checked name
        (kept,) = await self._first_row(subject.workspace, sql, since)
        refused = await self._quarantine.count_since(subject.workspace, subject.dataset, since=to_micros(since))
        share = 100.0 * refused / (kept + refused) if kept + refused else 0.0
        return Outcome(share, f"{refused} of {kept + refused} records broke the contract.")

    async def _available(
        self, subject: Subject, promise: Promise, monitor: Monitor, *, now: datetime
    ) -> tuple[Monitor, Outcome]:
        probe = f'SELECT count(_offset) FROM (SELECT _offset FROM "{subject.dataset}" LIMIT 1)'  # noqa: S608 - a checked name
        found = await _told(self._probed(subject.workspace, probe))
        up = found.measured is not None
        window = timedelta(seconds=promise.window) or AVAILABILITY_WINDOW
        before = monitor.evaluated_at or monitor.since
        expected = promise.next_after(before, period=self._period) - before
        counted = with_uptime(monitor, up=up, now=now, expected=expected, window=window)
        share = availability(counted, up=up, now=now, window=window)
        return counted, Outcome(share, found.detail)

    async def _probed(self, workspace: str, sql: str) -> Outcome:
        return _number(await self._first_row(workspace, sql))

    def _counts(self, subject: Subject) -> DatasetCounts | None:
        counts = self._log.counts(subject.workspace)
        return next((each for each in counts if each.dataset == subject.dataset), None)

    async def _state_of(self, subject: Subject) -> object:
        """Return what changes whenever a dataset's rows do."""
        offset = await asyncio.to_thread(self._log.next_offset, subject.workspace, subject.dataset)
        return self._log.epoch, offset, self._log.erasure_revision, subject.version

    async def _first_row(self, workspace: str, sql: str, *values: datetime) -> list[Any]:
        """Return the first row of a SELECT; raise SqlInvalidError when it has none."""
        parameters = orjson.dumps([each.isoformat() for each in values])
        found = await self._queries.run(workspace, sql, parameters, max_rows=1, within=QUERY_SECONDS)
        rows: list[list[Any]] = orjson.loads(found.rows)
        if not rows:
            raise SqlInvalidError("The query gives no row. Select one number.")
        return rows[0]


_OF_DUCKDB: Final = re.compile(r"(?:[A-Z][A-Za-z]* )+Error: ")
_ABOUT_NAMES: Final = ("Binder Error: ", "Catalog Error: ", "Parser Error: ")
"""How DuckDB's errors begin, and those that come before it looks at a row."""

_RECEIVED: Final = Column("_received_at", ColumnType.TIMESTAMPTZ, True, "", "")


def _held_against(history: History, subject: Subject, promise: Promise, *, now: datetime) -> Outcome:
    columns = [promise.about] if promise.about else [each.name for each in subject.columns]
    if promise.metric == VOLUME:
        return unusual.volume(history, now=now)
    if promise.metric == FRESHNESS:
        return unusual.staleness(history, now=now, bounded=bool(promise.bounds))
    if promise.metric == NULL_SHARE:
        return unusual.null_share(history, columns, now=now)
    if promise.metric == DISTRIBUTION:
        return unusual.distribution(history, columns, now=now)
    return unusual.drift(history, now=now)


async def _told(measuring: Awaitable[Outcome]) -> Outcome:
    try:
        return await measuring
    except CounterfoilError as error:
        return Outcome(None, _why(error))


def _why(error: CounterfoilError) -> str:
    """Return why a query failed. What DuckDB says of values is left out: incidents hold nothing of records."""
    if not _OF_DUCKDB.match(error.message) or error.message.startswith(_ABOUT_NAMES):
        return error.message
    return "The query fails on a value of some record. Run it to see which."


def _number(row: Sequence[Any]) -> Outcome:
    value = row[0]
    if value is None:
        return Outcome(None, "The query gives no number.")
    try:
        return Outcome(float(Decimal(str(value))) if not isinstance(value, bool) else float(value))
    except ArithmeticError:
        return Outcome(None, "The query's first value is no number.")


def _name(column: Column) -> str:
    return '"' + column.name.replace('"', '""') + '"'


def _seconds(time: timedelta) -> float:
    return time.total_seconds()
