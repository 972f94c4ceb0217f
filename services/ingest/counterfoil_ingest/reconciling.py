"""Compares reported totals with the lake: totals that ask alike share one query."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import orjson
from counterfoil_chassis.clock import to_micros
from counterfoil_chassis.errors import CounterfoilError

from counterfoil_ingest.errors import TooManyTotalsError, TotalInvalidError
from counterfoil_ingest.monitors import Outcome
from counterfoil_ingest.plans import Plans, Subject
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.registry import Column, ColumnType
from counterfoil_ingest.store import Log, ReconciliationStore, ReconciliationTransactions
from counterfoil_ingest.totals import Reconciliation, State, Total

COMPARED_DAYS: Final = 35
"""Totals of older days are looked at again only while they differ."""

KEPT_DAYS: Final = 400
MOST_TOTALS: Final = 20_000
_MOST_CELLS: Final = 50_000
_MOST_DAYS: Final = 100
_QUERY_SECONDS: Final = 30.0

_DAYS: Final = frozenset({ColumnType.DATE, ColumnType.TIMESTAMPTZ, ColumnType.VARCHAR})
_NUMBERS: Final = frozenset({ColumnType.BIGINT, ColumnType.DOUBLE})
_OPEN_TO_ALL: Final = frozenset({"", "public", "internal"})
_RESTATED: Final = (
    "platform", "account_id", "campaign_id", "ad_group_id", "ad_id", "network", "device", "date_day",
    "conversion_action", "attribution_window",
)  # fmt: skip
"""What tells which rows of advertising platforms are versions of one another: the newest `snapshot_at` counts."""

_VERSION: Final = "snapshot_at"


class Reconciling:
    """The totals of every workspace."""

    def __init__(self, transactions: ReconciliationTransactions, queries: Queries, *, log: Log, plans: Plans) -> None:
        self._transactions = transactions
        self._queries = queries
        self._log = log
        self._plans = plans
        self._known: dict[tuple[str, str], object] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def restore(self) -> None:
        """Learn which datasets have totals; before anything else."""
        async with self._transactions.read() as store:
            self._plans.see_totals(await store.places())

    async def report(self, subject: Subject, totals: Sequence[Total], *, now: datetime, principal: str) -> None:
        """Keep totals of one dataset and compare them; raise TotalInvalidError, TooManyTotalsError."""
        for each in totals:
            check_day(each, today=now.astimezone(UTC).date())
            check(subject, each)
        kept = {each.identity: Reconciliation(subject.workspace, each.identity, each, now) for each in totals}
        async with self._turns[subject.workspace], self._transactions.begin() as store:
            await store.forget_before(subject.workspace, subject.dataset, day=_day_before(now, KEPT_DAYS))
            there = {each.reconciliation_id for each in await store.get(subject.workspace, list(kept))}
            if await store.number(subject.workspace, subject.dataset) + len(kept.keys() - there) > MOST_TOTALS:
                raise TooManyTotalsError(
                    f"{MOST_TOTALS} totals of {subject.dataset} are kept at most. Report fewer, or withdraw some.",
                    metadata={"dataset": subject.dataset},
                )
            await store.put(list(kept.values()))
            await store.record(
                subject.workspace,
                principal=principal,
                action="totals.report",
                dataset=subject.dataset,
                details={"totals": len(kept)},
            )
            places = await store.places()
        self._plans.see_totals(places)
        await self.compare(subject, now=now)

    async def withdraw(self, workspace: str, reconciliation_id: str, *, principal: str) -> str:
        """Forget a total and return its dataset; raise ReconciliationNotFoundError."""
        async with self._turns[workspace], self._transactions.begin() as store:
            gone = await store.delete(workspace, reconciliation_id)
            await store.record(
                workspace,
                principal=principal,
                action="totals.withdraw",
                dataset=gone.total.dataset,
                details={"reconciliation_id": reconciliation_id, "day": gone.total.day},
            )
            places = await store.places()
        self._plans.see_totals(places)
        return gone.total.dataset

    async def outcome(self, subject: Subject, *, now: datetime) -> Outcome:
        """Compare what has to be and return how many totals differ, on which days."""
        await self.compare(subject, now=now)
        async with self._transactions.read() as store:
            found = await self._open(store, subject, now)
        differ = [each for each in found if each.differs]
        days = tuple(sorted({each.total.day for each in differ}))[-_MOST_DAYS:]
        gaps = [each for each in differ if each.state is State.GAP]
        if differ and not gaps:
            return Outcome(None, f"{len(differ)} totals: {differ[0].detail}", days=days)
        verb = "differs" if len(differ) == 1 else "differ"
        told = f"{len(differ)} of {len(found)} reported {verb}, on {_named(days)}." if differ else ""
        return Outcome(float(len(differ)), told, days=days)

    async def compare(self, subject: Subject, *, now: datetime) -> None:
        """Compare a dataset's totals when there are new records or totals, or some that waited are due.

        Nobody reports or withdraws meanwhile: what they say is not overwritten by how it compared before.
        """
        async with self._turns[subject.workspace]:
            await self._compare_open(subject, now=now)

    async def _compare_open(self, subject: Subject, *, now: datetime) -> None:
        place = subject.workspace, subject.dataset
        async with self._transactions.read() as store:
            found = await self._open(store, subject, now)
        offset = await asyncio.to_thread(self._log.next_offset, *place)
        state = self._log.epoch, offset, self._log.erasure_revision, subject.version
        due = any(each.state is State.ERROR or _is_due(each, now) for each in found)
        if not due and self._known.get(place) == state:
            return
        groups: defaultdict[object, list[Reconciliation]] = defaultdict(list)
        for each in found:
            groups[each.total.question].append(each)
        compared = [one for group in groups.values() for one in await self._compare(subject, group, now=now)]
        async with self._transactions.begin() as store:
            await store.put(compared)
        self._known[place] = state

    async def _open(self, store: ReconciliationStore, subject: Subject, now: datetime) -> Sequence[Reconciliation]:
        return await store.open(subject.workspace, subject.dataset, since=_day_before(now, COMPARED_DAYS))

    async def _compare(
        self, subject: Subject, group: Sequence[Reconciliation], *, now: datetime
    ) -> list[Reconciliation]:
        totals = [each.total for each in group]
        try:
            for total in totals:
                check(subject, total)
            cells = await self._cells(subject, totals)
        except CounterfoilError as error:
            return [each.failed(error.message, now=now) for each in group]
        found = []
        for each in group:
            received = cells.get(each.total.cell, 0.0)
            compared = each.compared(received, quarantined=0, now=now)
            if compared.state is not State.MATCHED and not (each.total.day_property or each.total.sum_of):
                quarantined = await self._quarantined(each)
                compared = each.compared(received, quarantined=quarantined, now=now)
            found.append(compared)
        return found

    async def _cells(self, subject: Subject, totals: Sequence[Total]) -> Mapping[tuple[str, ...], float]:
        sql, values = sql_of(subject, totals)
        found = await self._queries.run(
            subject.workspace, sql, orjson.dumps(values), max_rows=_MOST_CELLS, within=_QUERY_SECONDS
        )
        if found.truncated:
            raise TotalInvalidError("The totals' properties have too many values to compare. Report coarser totals.")
        rows: list[list[Any]] = orjson.loads(found.rows)
        return {tuple(cell): float(number or 0) for *cell, number in rows}

    async def _quarantined(self, each: Reconciliation) -> int:
        day = datetime.fromisoformat(f"{each.total.day}T00:00:00+00:00")
        async with self._transactions.read() as store:
            return await store.quarantined(
                each.workspace,
                each.total.dataset,
                each.total.source_id,
                since=to_micros(day),
                until=to_micros(day + timedelta(days=1)),
            )


def check_day(total: Total, *, today: date) -> None:
    """Raise TotalInvalidError when a total names no day, or one that is not kept."""
    try:
        day = date.fromisoformat(total.day)
    except ValueError:
        raise _invalid(total, f"{total.day!r} is no day. Write YYYY-MM-DD.") from None
    if not today - timedelta(days=KEPT_DAYS) <= day <= today + timedelta(days=1):
        raise _invalid(total, f"{total.day} is not within the last {KEPT_DAYS} days.")


def check(subject: Subject, total: Total) -> None:
    """Raise TotalInvalidError when a total names properties that cannot serve."""
    if total.day_property:
        _column(subject, total, total.day_property, _DAYS, "days")
    if total.sum_of:
        _column(subject, total, total.sum_of, _NUMBERS, "numbers")
    for name, _ in total.match:
        column = _column(subject, total, name, frozenset(ColumnType) - {ColumnType.JSON}, "plain values")
        if column.classification.lower() not in _OPEN_TO_ALL:
            raise _invalid(total, f"The contract classifies {name!r} as {column.classification}: match by another.")


def sql_of(subject: Subject, totals: Sequence[Total]) -> tuple[str, Sequence[str]]:
    """Return the SELECT of one question's cells, and its parameters; the names in it were checked."""
    first = totals[0]
    parts = [_day(subject, first)]
    parts += ['"_source_id"'] if first.source_id else []
    parts += [f"{_name(name)}::VARCHAR" for name, _ in first.match]
    values: list[str] = []
    limits: list[str] = []
    for at, part in enumerate(parts):
        wanted = sorted({each.cell[at] for each in totals})
        limits.append(f"{part} IN ({', '.join(f'${len(values) + number}' for number in range(1, len(wanted) + 1))})")
        values += wanted
    measure = f"sum({_name(first.sum_of)})::DOUBLE" if first.sum_of else "count(*)"
    cells = ", ".join(f"{part} AS cell{at}" for at, part in enumerate(parts))
    names = ", ".join(f"cell{at}" for at in range(len(parts)))
    where = " AND ".join(limits)
    return f"SELECT {cells}, {measure} FROM {_rows(subject)} WHERE {where} GROUP BY {names}", values  # noqa: S608 - quoted


def _rows(subject: Subject) -> str:
    """Return the records that count: of those that advertising platforms restate, the newest version."""
    if any(subject.column(name) is None for name in (*_RESTATED, _VERSION)):
        return f'"{subject.dataset}"'
    same = ", ".join(map(_name, _RESTATED))
    newest = f"row_number() OVER (PARTITION BY {same} ORDER BY {_name(_VERSION)} DESC NULLS LAST, _offset DESC)"
    return f'(SELECT *, {newest} AS version FROM "{subject.dataset}" QUALIFY version = 1)'  # noqa: S608 - quoted


def _day(subject: Subject, total: Total) -> str:
    column = subject.column(total.day_property)
    if column is None:
        return '"_received_at"::DATE::VARCHAR'
    if column.type is ColumnType.VARCHAR:
        return f"TRY_CAST({_name(column.name)} AS DATE)::VARCHAR"
    return f"{_name(column.name)}::DATE::VARCHAR"


def _column(subject: Subject, total: Total, name: str, types: Iterable[ColumnType], what: str) -> Column:
    column = subject.column(name)
    if column is None:
        names = ", ".join(each.name for each in subject.columns) or "none"
        raise _invalid(total, f"{total.dataset} has no property {name!r}. Its contract has: {names}.")
    if column.type not in types:
        raise _invalid(total, f"{name!r} of {total.dataset} holds no {what}.")
    return column


def _invalid(total: Total, message: str) -> TotalInvalidError:
    return TotalInvalidError(message, metadata={"dataset": total.dataset, "day": total.day})


def _is_due(each: Reconciliation, now: datetime) -> bool:
    if each.compared_at is None:
        return True
    after = each.total.judge_after
    return each.state is State.WAITING and after is not None and now >= after


def _day_before(now: datetime, days: int) -> str:
    return (now.astimezone(UTC).date() - timedelta(days=days)).isoformat()


def _named(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
