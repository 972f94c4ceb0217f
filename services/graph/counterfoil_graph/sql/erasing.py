"""Erasure of persons in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson
from counterfoil_chassis.tables import TABLES
from sqlalchemy import ColumnElement, Table, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_graph.entities import FOREVER, Edge, ErasureWork, Member, Name, Node
from counterfoil_graph.sql.batches import among, insert_rows, parts, upsert
from counterfoil_graph.sql.tables import (
    ASSIGNMENT,
    DATASET,
    DECISION,
    DECISION_IDENTIFIER,
    EDGE,
    ERASED_PERSON,
    ERASURE,
    EVENT,
    EXPORT,
    FORGOTTEN,
    IDENTIFIER,
    LINK,
    NODE,
    UNREAD,
)
from counterfoil_graph.store import NodeKey

_PAGE: Final = 20_000
_EXPORTS: Final = 100


class SqlErasureStore:
    """See `store.ErasureStore`."""

    def __init__(self, connection: AsyncConnection, workspace: str) -> None:
        self._connection = connection
        self._workspace = workspace

    async def work(self, privacy_request_id: str) -> ErasureWork | None:
        """Return how far an erasure is, None = nothing was done yet."""
        row = (await self._connection.execute(select(ERASURE).where(self._is(ERASURE, privacy_request_id)))).first()
        if row is None:
            return None
        return ErasureWork(tuple(orjson.loads(row.offsets)), None if row.erased is None else orjson.loads(row.erased))

    async def keep_work(self, privacy_request_id: str, work: ErasureWork) -> None:
        """Keep how far an erasure is."""
        values = {
            "offsets": orjson.dumps(work.offsets).decode(),
            "erased": None if work.erased is None else orjson.dumps(dict(work.erased)).decode(),
        }
        row = upsert(self._connection.dialect.name, ERASURE).values(
            workspace=self._workspace, privacy_request_id=privacy_request_id, **values
        )
        await self._connection.execute(
            row.on_conflict_do_update(index_elements=["workspace", "privacy_request_id"], set_=values)
        )

    async def end_work(self, privacy_request_id: str) -> None:
        """Forget an erasure that is reported."""
        await self._connection.execute(delete(ERASURE).where(self._is(ERASURE, privacy_request_id)))

    async def identifiers(self, *, after: int) -> Sequence[Member]:
        """Return the next identifiers by place, none at the end."""
        table = IDENTIFIER.c
        wanted = select(table.place, table.type, table.value, table.shared)
        here = and_(table.workspace == self._workspace, table.place > after)
        rows = await self._connection.execute(wanted.where(here).order_by(table.place).limit(_PAGE))
        return [Member(place, Name(type_, value), shared) for place, type_, value, shared in rows]

    async def persons_identifiers(self, places: Collection[int]) -> Sequence[Member]:
        """Return the identifiers of everybody to whom any of some identifiers belongs now."""
        table = ASSIGNMENT.c
        persons: set[int] = set()
        for part in parts(places):
            persons.update(await self._scalars(select(table.person).where(self._now(), self._in(table.place, part))))
        found: list[Member] = []
        for part in parts(sorted(persons)):
            same = and_(IDENTIFIER.c.workspace == table.workspace, IDENTIFIER.c.place == table.place)
            columns = [IDENTIFIER.c[name] for name in ("place", "type", "value", "shared")]
            rows = await self._connection.execute(
                select(*columns).join(ASSIGNMENT, same).where(self._now(), self._in(table.person, part))
            )
            found += [Member(place, Name(type_, value), shared) for place, type_, value, shared in rows]
        return found

    async def describes(self, key: NodeKey, next_offset: int) -> bool:
        """Tell whether a node's description changed with a block."""
        wanted = select(NODE.c.key).where(self._node(key), NODE.c.tx_from == next_offset)
        return (await self._connection.execute(wanted)).first() is not None

    async def forget_persons(self, places: Sequence[int], *, privacy_request_id: str) -> None:
        """Delete everything about some identifiers, and keep their numbers so that nobody gets them again."""
        for part in parts(places):
            ends = [f"@{place}" for place in part]
            for table, columns in (
                (IDENTIFIER, [IDENTIFIER.c.place]),
                (ASSIGNMENT, [ASSIGNMENT.c.place]),
                (LINK, [LINK.c.low]),
                (LINK, [LINK.c.high]),
                (EVENT, [EVENT.c.place_of]),
                (DECISION_IDENTIFIER, [DECISION_IDENTIFIER.c.place]),
            ):
                await self._delete(table, self._in(columns[0], part))
            await self._delete(EDGE, self._in(EDGE.c.from_id, ends))
            await self._delete(EDGE, self._in(EDGE.c.to_id, ends))
        await self.keep_erased(places, privacy_request_id=privacy_request_id)

    async def count_erasure(self, first_offset: int) -> None:
        """Note that an erasure has changed all states from an offset on."""
        counted = select(func.count()).select_from(FORGOTTEN).where(FORGOTTEN.c.workspace == self._workspace)
        number = (await self._connection.execute(counted)).scalar_one() + 1
        row = {"workspace": self._workspace, "number": number, "first_offset": first_offset}
        await self._connection.execute(insert(FORGOTTEN).values(row))

    async def keep_erased(self, places: Sequence[int], *, privacy_request_id: str) -> None:
        """Note the numbers of erased persons, take them out of exports, and drop kept answers that may show them."""
        statement = upsert(self._connection.dialect.name, ERASED_PERSON).on_conflict_do_nothing()
        rows = [
            {"workspace": self._workspace, "person": place, "privacy_request_id": privacy_request_id}
            for place in places
        ]
        if rows:
            await self._connection.execute(statement, rows)
        await self._forget_in_exports(frozenset(places))
        kept = TABLES.idempotency.c
        answers = and_(kept.workspace == self._workspace, kept.method == "ExportPersons")
        await self._connection.execute(delete(TABLES.idempotency).where(answers))

    async def _forget_in_exports(self, persons: frozenset[int]) -> None:
        table, after = EXPORT.c, ""
        while True:
            wanted = select(table.export_id, table.persons).where(
                table.workspace == self._workspace, table.export_id > after
            )
            rows = list(await self._connection.execute(wanted.order_by(table.export_id).limit(_EXPORTS)))
            for row in rows:
                had = orjson.loads(row.persons)
                left = [each for each in had if each not in persons]
                if len(left) < len(had):
                    changed = update(EXPORT).where(table.workspace == self._workspace, table.export_id == row.export_id)
                    values = {"persons": orjson.dumps(left).decode(), "erased": table.erased + len(had) - len(left)}
                    await self._connection.execute(changed.values(values))
            if len(rows) < _EXPORTS:
                return
            after = rows[-1].export_id

    async def forget_decisions(self, decision_ids: Collection[str]) -> None:
        """Delete decisions."""
        for part in parts(decision_ids):
            await self._delete(DECISION, self._in(DECISION.c.decision_id, part))
            await self._delete(DECISION_IDENTIFIER, self._in(DECISION_IDENTIFIER.c.decision_id, part))

    async def has_decisions_beside(self, places: Collection[int], decision_ids: Collection[str]) -> bool:
        """Tell whether decisions about some identifiers are more than these, or these concern others."""
        table = DECISION_IDENTIFIER.c
        about: set[str] = set()
        for part in parts(places):
            about.update(
                await self._scalars(
                    select(table.decision_id).where(table.workspace == self._workspace, self._in(table.place, part))
                )
            )
        if about != set(decision_ids):
            return True
        others: set[int] = set()
        linked: set[str] = set()
        for some in parts(about):
            here = and_(table.workspace == self._workspace, self._in(table.decision_id, some))
            others.update(await self._scalars(select(table.place).where(here)))
            mine = and_(DECISION.c.workspace == self._workspace, self._in(DECISION.c.decision_id, some))
            for row in await self._connection.execute(select(DECISION.c.reverses, DECISION.c.reversed_by).where(mine)):
                linked.update(each for each in row if each)
        return not others <= set(places) or not linked <= about

    async def retell_edges(self, next_offset: int, edges: Sequence[Edge]) -> None:
        """Replace what a block says of edges between things; an edge without records it does not speak of."""
        table = EDGE.c
        for each in edges:
            here = and_(
                table.workspace == self._workspace,
                table.from_id == each.from_id,
                table.type == each.type,
                table.to_id == each.to_id,
                table.valid_from == each.valid_from_us,
                table.tx_from == next_offset,
            )
            if each.records == 0:
                await self._connection.execute(delete(EDGE).where(here))
            else:
                said = {"records": each.records, "valid_to": each.valid_to_us, "offset": each.offset}
                await self._connection.execute(update(EDGE).where(here).values(said))

    async def count_unread(self, fewer: Mapping[tuple[str, str], int]) -> None:
        """Count fewer records that could not be read, by dataset and reason."""
        table = UNREAD.c
        for (dataset, reason), records in fewer.items():
            here = and_(table.workspace == self._workspace, table.dataset == dataset, table.reason == reason)
            await self._connection.execute(update(UNREAD).where(here).values(records=table.records - records))
            await self._connection.execute(delete(UNREAD).where(here, table.records <= 0))

    async def set_first_offsets(self, firsts: Mapping[str, int | None]) -> None:
        """Say where datasets begin now; None = no record of it is left."""
        for dataset, first in firsts.items():
            place = and_(DATASET.c.workspace == self._workspace, DATASET.c.dataset == dataset)
            if first is None:
                await self._connection.execute(delete(DATASET).where(place))
            else:
                await self._connection.execute(update(DATASET).where(place).values(first_offset=first))

    async def retell_nodes(self, told: Mapping[NodeKey, Sequence[Node]]) -> None:
        """Replace the descriptions of nodes; they are in the order of the blocks they came with."""
        for key, chain in told.items():
            await self._connection.execute(delete(NODE).where(self._node(key)))
            ends = [*(each.tx_from for each in chain[1:]), FOREVER]
            rows = [
                (self._workspace, *key, each.tx_from, end, each.valid_to_us, each.name, each.attributes, each.offset)
                for each, end in zip(chain, ends, strict=False)
            ]
            await insert_rows(self._connection, NODE, rows)

    async def remaining(self, places: Collection[int]) -> int:
        """Count the rows that still speak of some identifiers."""
        count = 0
        for part in parts(places):
            ends = [f"@{place}" for place in part]
            for table, condition in (
                (IDENTIFIER, self._in(IDENTIFIER.c.place, part)),
                (ASSIGNMENT, or_(self._in(ASSIGNMENT.c.place, part), self._in(ASSIGNMENT.c.person, part))),
                (LINK, or_(self._in(LINK.c.low, part), self._in(LINK.c.high, part))),
                (EVENT, self._in(EVENT.c.place_of, part)),
                (DECISION_IDENTIFIER, self._in(DECISION_IDENTIFIER.c.place, part)),
                (EDGE, or_(self._in(EDGE.c.from_id, ends), self._in(EDGE.c.to_id, ends))),
            ):
                wanted = select(func.count()).select_from(table).where(table.c.workspace == self._workspace, condition)
                count += (await self._connection.execute(wanted)).scalar_one()
        return count

    def _is(self, table: Table, privacy_request_id: str) -> ColumnElement[bool]:
        return and_(table.c.workspace == self._workspace, table.c.privacy_request_id == privacy_request_id)

    def _node(self, key: NodeKey) -> ColumnElement[bool]:
        type_, name, since = key
        return and_(
            NODE.c.workspace == self._workspace, NODE.c.type == type_, NODE.c.key == name, NODE.c.valid_from == since
        )

    def _now(self) -> ColumnElement[bool]:
        return and_(ASSIGNMENT.c.workspace == self._workspace, ASSIGNMENT.c.tx_to == FOREVER)

    def _in(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        return among(self._connection, column, values)

    async def _scalars(self, wanted: Any) -> list[Any]:
        return list((await self._connection.execute(wanted)).scalars())

    async def _delete(self, table: Table, condition: ColumnElement[bool]) -> None:
        await self._connection.execute(delete(table).where(table.c.workspace == self._workspace, condition))
