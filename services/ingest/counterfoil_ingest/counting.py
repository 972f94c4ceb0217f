"""Counts what comes into datasets: each record of the lake once, by SQL, into the past that monitors compare with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from counterfoil_ingest.histories import HOURS_PER_SLOT, KEPT_HOURS, KEPT_SLOTS, Counted, Filling, History, Hour, Place
from counterfoil_ingest.plans import Subject
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.registry import Column, ColumnType
from counterfoil_ingest.store import HistoryTransactions, Log

_QUERY_SECONDS: Final = 30.0
_STEP: Final = 500_000
"""So many offsets are counted by one query: bounded in time, and in what a crash has counted again."""

_SECONDS: Final = 20.0
"""After so long a look counts no more steps: the next one goes on."""

_MOST_COLUMNS: Final = 60
_MOST_KEYS: Final = 300
_DOCUMENTS_AT_ONCE: Final = 8
"""Of so many columns the JSON objects' properties are counted by one query: most of what a small one costs is fixed."""

_KEY: Final = "[A-Za-z_$][A-Za-z0-9_$-]{0,62}"
"""Names of properties that are kept: what looks otherwise is rather a value, and may be somebody's."""

_TEXT_BUCKETS: Final = 32
_KINDS: Final = {
    "BIGINT": "number",
    "UBIGINT": "number",
    "DOUBLE": "number",
    "VARCHAR": "string",
    "BOOLEAN": "boolean",
    "OBJECT": "object",
    "ARRAY": "array",
}


class Counting:
    """Brings the past of a dataset up to date, whenever a monitor needs it."""

    def __init__(self, transactions: HistoryTransactions, queries: Queries, *, log: Log) -> None:
        self._transactions = transactions
        self._queries = queries
        self._log = log

    async def history(self, subject: Subject, *, now: datetime) -> History | None:
        """Return a dataset's past with all that is in the log counted; None = there is more to count.

        Of a long log some steps are counted at a time, in the log's order. Raises what queries raise.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _SECONDS
        workspace, dataset = subject.workspace, subject.dataset
        head = await asyncio.to_thread(self._log.next_offset, workspace, dataset)
        async with self._transactions.read() as store:
            place = await store.place(workspace, dataset)
        if place.epoch != self._log.epoch:  # a restore: offsets mean something else, and the lake is another
            place = Place(self._log.epoch)
        while place.offset < head:
            if loop.time() > end:
                return None
            until = min(head, place.offset + _STEP)
            counted = await self._count(subject, place.offset, until)
            async with self._transactions.begin() as store:
                if place.offset == 0:
                    await store.forget(workspace, dataset)
                await store.add(workspace, dataset, counted, until=Place(self._log.epoch, until))
                await store.forget_before(
                    workspace, dataset, hour=_hour(now) - KEPT_HOURS, slot=_slot(now) - KEPT_SLOTS
                )
            place = Place(self._log.epoch, until)
        async with self._transactions.read() as store:
            return await store.history(workspace, dataset)

    async def _count(self, subject: Subject, first: int, until: int) -> Counted:
        columns = subject.columns[:_MOST_COLUMNS]
        rows = await self._rows(subject, columns_sql(subject, columns), first, until, most=KEPT_HOURS)
        hours: list[Hour] = []
        fillings: dict[tuple[int, str], Filling] = {}
        for hour, records, newest, *rest in rows:
            hours.append(Hour(hour, records, newest))
            for column, filled, buckets in zip(columns, rest[::2], rest[1::2], strict=True):
                one = Filling(hour // HOURS_PER_SLOT, column.name, filled, orjson.loads(buckets or "{}"))
                place = one.slot, one.property
                fillings[place] = fillings[place].plus(one) if place in fillings else one
        documents = ["_extra", *(each.name for each in columns if each.type is ColumnType.JSON)]
        for at in range(0, len(documents), _DOCUMENTS_AT_ONCE):
            some = documents[at : at + _DOCUMENTS_AT_ONCE]
            sql = " UNION ALL ".join(f"({keys_sql(subject.dataset, each)})" for each in some)
            for document, slot, key, kind, number in await self._rows(
                subject, sql, first, until, most=_MOST_KEYS * len(some)
            ):
                if kind in _KINDS:
                    one = Filling(slot, f"{document}.{key}", number, {_KINDS[kind]: number})
                    place = one.slot, one.property
                    fillings[place] = fillings[place].plus(one) if place in fillings else one
        return Counted(hours, list(fillings.values()))

    async def _rows(self, subject: Subject, sql: str, first: int, until: int, *, most: int) -> Sequence[list[Any]]:
        found = await self._queries.run(
            subject.workspace, sql, orjson.dumps([first, until]), max_rows=most, within=_QUERY_SECONDS
        )
        rows: list[list[Any]] = orjson.loads(found.rows)
        return rows


def columns_sql(subject: Subject, columns: Sequence[Column]) -> str:
    """Return the SELECT that counts records between two offsets by hour: how many, the newest event, each column."""
    event = subject.event_time
    newest = "_received_at" if event is None else _name(event)
    if event is not None and event.type is ColumnType.DATE:  # a day is over at its end
        newest = f"({newest} + INTERVAL 1 DAY)::TIMESTAMPTZ"
    counted = "".join(f", {each}" for column in columns for each in _counted(column))
    return (
        f"SELECT epoch(_received_at)::BIGINT // 3600 AS hour, count(*), "  # noqa: S608 - quoted names
        f"epoch_us(max({newest}) FILTER ({newest} <= _received_at)){counted} "
        f'FROM "{subject.dataset}" WHERE _offset >= $1 AND _offset < $2 GROUP BY hour ORDER BY hour DESC'
    )


def keys_sql(dataset: str, document: str) -> str:
    """Return the SELECT that counts the properties of a column's JSON objects by slot and type, the most frequent."""
    name = document.replace("'", "''")
    return (
        f"SELECT '{name}' AS document, slot, pair.key, pair.type, count(*) AS number FROM "  # noqa: S608 - quoted names
        f"(SELECT epoch(_received_at)::BIGINT // "
        f'{HOURS_PER_SLOT * 3600} AS slot, {_quoted(document)} AS document FROM "{dataset}" '
        f"WHERE _offset >= $1 AND _offset < $2 AND {_quoted(document)} LIKE '{{%'), json_each(document) AS pair "
        f"WHERE regexp_full_match(pair.key, '{_KEY}') GROUP BY ALL "
        f"ORDER BY number DESC, pair.key LIMIT {_MOST_KEYS}"
    )


def _counted(column: Column) -> Iterator[str]:
    name = _name(column)
    yield f"count({name})"
    if column.type is ColumnType.JSON:
        yield "NULL"
        return
    if column.type in (ColumnType.BIGINT, ColumnType.DOUBLE):
        # Two buckets per doubling, by sign; 2200 keeps the smallest magnitude above 0.
        bucket = (
            f"CASE WHEN NOT isfinite({name}::DOUBLE) THEN 9999 WHEN {name} = 0 THEN 0 "
            f"ELSE sign({name}) * (floor(2 * log2(abs({name}::DOUBLE))) + 2200) END"
        )
    elif column.type is ColumnType.BOOLEAN:
        bucket = name
    elif column.type is ColumnType.VARCHAR:
        bucket = f"md5_number_lower({name}) % {_TEXT_BUCKETS}"
    else:  # how long before it was received, by doublings of a minute
        age = f"(epoch(_received_at) - epoch({name}::TIMESTAMPTZ)) / 60"
        bucket = f"sign({age}) * floor(log2(abs({age}) + 1))"
    yield f"to_json(histogram(({bucket})::SMALLINT))"


def _name(column: Column) -> str:
    return _quoted(column.name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _hour(now: datetime) -> int:
    return int(now.timestamp() // 3600)


def _slot(now: datetime) -> int:
    return _hour(now) // HOURS_PER_SLOT
