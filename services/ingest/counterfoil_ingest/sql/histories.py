"""The past of datasets in SQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from counterfoil_chassis.database import Database
from sqlalchemy import ColumnElement, Table, and_, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.histories import MOST_PROPERTIES, Counted, Filling, History, Hour, Place
from counterfoil_ingest.sql.tables import HISTORY_FILLING, HISTORY_HOUR, HISTORY_PLACE


class SqlHistoryTransactions:
    """Transactions on the past of datasets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlHistories]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield SqlHistories(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlHistories]:
        """Open one that reads."""
        async with self._database.read() as connection:
            yield SqlHistories(connection)


class SqlHistories:
    """The past of datasets in one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def place(self, workspace: str, dataset: str) -> Place:
        """Return up to where a dataset's records are counted."""
        found = await self._connection.execute(select(HISTORY_PLACE).where(_of(HISTORY_PLACE, workspace, dataset)))
        row = found.first()
        return Place() if row is None else Place(row.log_epoch, row.until_offset)

    async def add(self, workspace: str, dataset: str, counted: Counted, *, until: Place) -> None:
        """Add counts, and note up to where records are counted."""
        named = {"workspace": workspace, "dataset": dataset}
        slots = {each.slot for each in counted.fillings}
        hours = await self._hours(workspace, dataset, HISTORY_HOUR.c.hour.in_([each.hour for each in counted.hours]))
        known = await self._fillings(workspace, dataset, HISTORY_FILLING.c.slot.in_(slots))
        rows = []
        for hour in counted.hours:
            total = hours[hour.hour].plus(hour) if hour.hour in hours else hour
            rows.append({**named, "hour": total.hour, "records": total.records, "newest": total.newest})
        await self._put(HISTORY_HOUR, rows)
        for filling in counted.fillings:
            slot = known.setdefault(filling.slot, {})
            if filling.property in slot:
                slot[filling.property] = slot[filling.property].plus(filling)
            elif len(slot) < MOST_PROPERTIES:
                slot[filling.property] = filling
        rows = [{**named, "slot": slot, "properties": _written(known[slot])} for slot in slots]
        await self._put(HISTORY_FILLING, rows)
        await self._put(HISTORY_PLACE, [{**named, "log_epoch": until.epoch, "until_offset": until.offset}])

    async def history(self, workspace: str, dataset: str) -> History:
        """Return a dataset's past as far as it is kept."""
        return History(await self._hours(workspace, dataset), await self._fillings(workspace, dataset))

    async def forget(self, workspace: str, dataset: str) -> None:
        """Forget a dataset's past."""
        for table in (HISTORY_PLACE, HISTORY_HOUR, HISTORY_FILLING):
            await self._connection.execute(delete(table).where(_of(table, workspace, dataset)))

    async def forget_before(self, workspace: str, dataset: str, *, hour: int, slot: int) -> None:
        """Forget what is older than an hour, of fillings than a slot."""
        older = ((HISTORY_HOUR, HISTORY_HOUR.c.hour < hour), (HISTORY_FILLING, HISTORY_FILLING.c.slot < slot))
        for table, limit in older:
            await self._connection.execute(delete(table).where(_of(table, workspace, dataset), limit))

    async def _hours(self, workspace: str, dataset: str, *limits: ColumnElement[bool]) -> dict[int, Hour]:
        query = select(HISTORY_HOUR).where(_of(HISTORY_HOUR, workspace, dataset), *limits)
        rows = await self._connection.execute(query)
        return {row.hour: Hour(row.hour, row.records, row.newest) for row in rows}

    async def _fillings(
        self, workspace: str, dataset: str, *limits: ColumnElement[bool]
    ) -> dict[int, dict[str, Filling]]:
        query = select(HISTORY_FILLING).where(_of(HISTORY_FILLING, workspace, dataset), *limits)
        rows = [(row.slot, row.properties) for row in await self._connection.execute(query)]
        return await asyncio.to_thread(_fillings, rows)

    async def _put(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        insert = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        row = insert(table)
        key = [column.name for column in table.primary_key]
        changed = {name: row.excluded[name] for name in rows[0] if name not in key}
        await self._connection.execute(row.on_conflict_do_update(index_elements=key, set_=changed), list(rows))


def _of(table: Table, workspace: str, dataset: str) -> ColumnElement[bool]:
    return and_(table.c.workspace == workspace, table.c.dataset == dataset)


def _written(fillings: Mapping[str, Filling]) -> str:
    return orjson.dumps({name: [each.filled, dict(each.buckets)] for name, each in fillings.items()}).decode()


def _fillings(rows: Sequence[tuple[int, str]]) -> dict[int, dict[str, Filling]]:
    return {
        slot: {name: Filling(slot, name, filled, buckets) for name, (filled, buckets) in orjson.loads(text).items()}
        for slot, text in rows
    }
