"""Measures what is promised of datasets: by SQL over the lake, by the log's own counts, by what is in quarantine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.errors import CounterfoilError

from counterfoil_ingest.entities import DatasetCounts
from counterfoil_ingest.monitors import (
    AVAILABILITY,
    FREQUENCY,
    LATENCY,
    RETENTION,
    SQL,
    Monitor,
    Outcome,
    Promise,
    availability,
    with_uptime,
)
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.read_errors import SqlInvalidError
from counterfoil_ingest.registry import Column, ColumnType, Compiled
from counterfoil_ingest.store import Log

QUERY_SECONDS: Final = 30.0
ERROR_RATE_WINDOW: Final = timedelta(days=1)
AVAILABILITY_WINDOW: Final = timedelta(days=30)


class QuarantineCounts(Protocol):
    """How much of a dataset broke its contract."""

    async def count_since(self, workspace: str, dataset: str, *, since: int) -> int:
        """Return how many records of a dataset were quarantined since a time, microseconds UTC."""
        ...


class Measurer:
    """Measures the promises of one dataset at a time; the queries run by themselves, so that nobody waits for them."""

    def __init__(self, queries: Queries, *, log: Log, quarantine: QuarantineCounts, period: timedelta) -> None:
        self._queries = queries
        self._log = log
        self._quarantine = quarantine
        self._period = period
        self._known: dict[tuple[str, str, str], tuple[object, Outcome]] = {}

    async def measure(
        self, compiled: Compiled, promises: Sequence[Promise], monitors: Mapping[str, Monitor], *, now: datetime
    ) -> Mapping[str, tuple[Monitor, Outcome]]:
        """Return by name what was found of each promise, with its monitor as counted so far."""
        found: dict[str, tuple[Monitor, Outcome]] = {}
        for promise, outcome in (await self._counted(compiled, promises, now=now)).items():
            found[promise.name] = monitors[promise.name], outcome
        for promise in promises:
            if promise.name in found:
                continue
            monitor = monitors[promise.name]
            if promise.metric == AVAILABILITY:
                found[promise.name] = await self._available(compiled, promise, monitor, now=now)
            else:
                outcome = await _told(self._of(compiled, promise, monitor, now=now))
                found[promise.name] = monitor, outcome
        return found

    def forget(self, compiled: Compiled) -> None:
        """Measure everything of a dataset anew the next time."""
        for key in [each for each in self._known if each[:2] == (compiled.workspace, compiled.dataset)]:
            del self._known[key]

    async def _of(self, compiled: Compiled, promise: Promise, monitor: Monitor, *, now: datetime) -> Outcome:
        if promise.metric == SQL:
            return _number(await self._first_row(compiled.workspace, promise.query))
        if promise.metric in (LATENCY, FREQUENCY):
            return await self._age_of_newest(compiled, promise, monitor, now=now)
        if promise.metric == RETENTION:
            return await self._age_of_oldest(compiled, promise, now=now)
        return await self._error_rate(compiled, promise, now=now)

    async def _counted(
        self, compiled: Compiled, promises: Sequence[Promise], *, now: datetime
    ) -> Mapping[Promise, Outcome]:
        """Measure the library metrics, those of the same rows by one query."""
        found: dict[Promise, Outcome] = {}
        rules = [each for each in promises if each.measure]
        if not rules:
            return found
        state = await self._state_of(compiled)
        for window in sorted({each.window for each in rules}):
            wanted = [each for each in rules if each.window == window]
            if not window:  # the same rows give the same numbers
                for each in wanted:
                    known = self._known.get((compiled.workspace, compiled.dataset, each.name))
                    if known is not None and known[0] == (state, each):
                        found[each] = known[1]
            if left := [each for each in wanted if each not in found]:
                found |= await self._count(compiled, left, since=now - timedelta(seconds=window) if window else None)
        for each in rules:
            if not each.window and found[each].measured is not None:
                self._known[compiled.workspace, compiled.dataset, each.name] = (state, each), found[each]
        return found

    async def _count(
        self, compiled: Compiled, rules: Sequence[Promise], *, since: datetime | None
    ) -> dict[Promise, Outcome]:
        where = "" if since is None else " WHERE _received_at >= $1::TIMESTAMPTZ"
        aggregates = ", ".join(f"{each.measure} AS m{at}" for at, each in enumerate(rules))
        sql = f'SELECT count(*) AS n, {aggregates} FROM "{compiled.dataset}"{where}'  # noqa: S608 - by the contract's compiler
        try:
            rows, *numbers = await self._first_row(compiled.workspace, sql, *([] if since is None else [since]))
        except SqlInvalidError as error:
            if len(rules) == 1:
                return {rules[0]: Outcome(None, _why(error))}
            return {each: (await self._count(compiled, [each], since=since))[each] for each in rules}
        except CounterfoilError as error:
            return dict.fromkeys(rules, Outcome(None, error.message))
        shares = [100.0 * number / rows if rows else 0.0 for number in numbers]
        return {
            each: Outcome(share if each.unit == "percent" else float(number))
            for each, number, share in zip(rules, numbers, shares, strict=True)
        }

    async def _age_of_newest(self, compiled: Compiled, promise: Promise, monitor: Monitor, *, now: datetime) -> Outcome:
        """Return how old the newest record is; while there is none, for how long it has been waited for."""
        counts = await asyncio.to_thread(self._counts, compiled)
        if counts is None or not counts.last_received_at:
            return Outcome(_seconds(now - monitor.since), "There is no record yet.")
        column = _column(compiled, promise.column)
        if column is None:
            return Outcome(_seconds(now - from_micros(counts.last_received_at)))
        # What claims to come from the future would hide that nothing comes.
        newest = await self._extreme(compiled, column, "max", f"{_name(column)} <= $1::TIMESTAMPTZ", now)
        if newest is None:
            return Outcome(_seconds(now - monitor.since), f"No record has a {column.name} in the past.")
        return Outcome(max(0.0, _seconds(now - newest)))

    async def _age_of_oldest(self, compiled: Compiled, promise: Promise, *, now: datetime) -> Outcome:
        column = _column(compiled, promise.column) or _RECEIVED
        oldest = await self._extreme(compiled, column, "min", "true")
        return Outcome(0.0 if oldest is None else max(0.0, _seconds(now - oldest)))

    async def _extreme(
        self, compiled: Compiled, column: Column, aggregate: str, where: str, *values: datetime
    ) -> datetime | None:
        """Return the first or last moment that a column names; a day is over at its end, UTC."""
        sql = f'SELECT {aggregate}({_name(column)}) FROM "{compiled.dataset}" WHERE {where}'  # noqa: S608 - quoted
        (found,) = await self._first_row(compiled.workspace, sql, *values)
        if found is None:
            return None
        if column.type is ColumnType.DATE:
            return datetime.fromisoformat(f"{date.fromisoformat(found)}T00:00:00+00:00") + timedelta(days=1)
        return datetime.fromisoformat(found)

    async def _error_rate(self, compiled: Compiled, promise: Promise, *, now: datetime) -> Outcome:
        since = now - (timedelta(seconds=promise.window) or ERROR_RATE_WINDOW)
        sql = f'SELECT count(*) FROM "{compiled.dataset}" WHERE _received_at >= $1::TIMESTAMPTZ'  # noqa: S608 - a checked name
        (kept,) = await self._first_row(compiled.workspace, sql, since)
        refused = await self._quarantine.count_since(compiled.workspace, compiled.dataset, since=to_micros(since))
        share = 100.0 * refused / (kept + refused) if kept + refused else 0.0
        return Outcome(share, f"{refused} of {kept + refused} records broke the contract.")

    async def _available(
        self, compiled: Compiled, promise: Promise, monitor: Monitor, *, now: datetime
    ) -> tuple[Monitor, Outcome]:
        probe = f'SELECT count(_offset) FROM (SELECT _offset FROM "{compiled.dataset}" LIMIT 1)'  # noqa: S608 - a checked name
        found = await _told(self._probed(compiled.workspace, probe))
        up = found.measured is not None
        window = timedelta(seconds=promise.window) or AVAILABILITY_WINDOW
        before = monitor.evaluated_at or monitor.since
        expected = promise.next_after(before, period=self._period) - before
        counted = with_uptime(monitor, up=up, now=now, expected=expected, window=window)
        share = availability(counted, up=up, now=now, window=window)
        return counted, Outcome(share, found.detail)

    async def _probed(self, workspace: str, sql: str) -> Outcome:
        return _number(await self._first_row(workspace, sql))

    def _counts(self, compiled: Compiled) -> DatasetCounts | None:
        counts = self._log.counts(compiled.workspace)
        return next((each for each in counts if each.dataset == compiled.dataset), None)

    async def _state_of(self, compiled: Compiled) -> object:
        """Return what changes whenever a dataset's rows do."""
        offset = await asyncio.to_thread(self._log.next_offset, compiled.workspace, compiled.dataset)
        return self._log.epoch, offset, self._log.erasure_revision, compiled.version

    async def _first_row(self, workspace: str, sql: str, *values: datetime) -> list[Any]:
        """Return the first row of a SELECT; raise SqlInvalidError when it has none."""
        parameters = orjson.dumps([each.isoformat() for each in values])
        found = await self._queries.run(workspace, sql, parameters, max_rows=1, within=QUERY_SECONDS)
        rows: list[list[Any]] = orjson.loads(found.rows)
        if not rows:
            raise SqlInvalidError("The query gives no row. Select one number.")
        return rows[0]


_ABOUT_NAMES: Final = frozenset({"BinderException", "CatalogException", "ParserException"})
"""The errors of DuckDB that come before it looks at a row; the library itself is imported where a query runs."""

_RECEIVED: Final = Column("_received_at", ColumnType.TIMESTAMPTZ, True, "", "")


async def _told(measuring: Awaitable[Outcome]) -> Outcome:
    try:
        return await measuring
    except CounterfoilError as error:
        return Outcome(None, _why(error))


def _why(error: CounterfoilError) -> str:
    """Return why a query failed. What DuckDB says of values is left out: incidents hold nothing of records."""
    cause = error.__cause__
    if cause is None or not isinstance(error, SqlInvalidError) or type(cause).__name__ in _ABOUT_NAMES:
        return error.message
    return "The query fails on a value of some record. Run it to see which."


def _column(compiled: Compiled, name: str) -> Column | None:
    return next((each for each in compiled.columns if each.name == name), None) if name else None


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
