"""The graph as it is read, now or in an earlier state, in SQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_graph.entities import (
    CAMPAIGN,
    FOREVER,
    Counts,
    Decision,
    Edge,
    EventKind,
    IdentifierSeen,
    Link,
    Member,
    Name,
    Node,
    State,
)
from counterfoil_graph.sql.batches import among, parts
from counterfoil_graph.sql.tables import (
    ASSIGNMENT,
    BLOCK,
    CHASSIS,
    DECISION,
    EDGE,
    ERASED_PERSON,
    EVENT,
    FORGOTTEN,
    FORMER_MAPPINGS,
    GRAPH,
    IDENTIFIER,
    NODE,
    UNREAD,
)
from counterfoil_graph.sql.writing import decision_of, decisions_of, links_of, members
from counterfoil_graph.store import CONSUMER, EventKey, EventRow

_MOST_NAMED = 5_000
"""Campaigns of one question; with more, everybody who met a campaign is looked at."""

KINDS = {int(each): each for each in EventKind}
_EVENT = [
    EVENT.c[name]
    for name in (
        "place_of", "kind", "type", "key", "place", "time_us", "channel", "campaign", "value_micros", "currency",
        "dataset", "records",
    )
]  # fmt: skip


class SqlGraphReader:
    """See `store.GraphReader`."""

    def __init__(self, connection: AsyncConnection, workspace: str) -> None:
        self._connection = connection
        self._workspace = workspace

    async def state(self) -> State:
        """Return the state as it is now."""
        cursor = CHASSIS.cursor.c
        mine = and_(cursor.workspace == self._workspace, cursor.consumer == CONSUMER)
        place = (await self._connection.execute(select(cursor.log_epoch, cursor.next_offset).where(mine))).first()
        applied = select(GRAPH.c.mappings_sha256).where(GRAPH.c.workspace == self._workspace)
        sha256 = (await self._connection.execute(applied)).scalar() or ""
        epoch, next_offset = (place.log_epoch, place.next_offset) if place else ("", 0)
        forgotten = select(func.count()).select_from(FORGOTTEN).where(FORGOTTEN.c.workspace == self._workspace)
        erasures = (await self._connection.execute(forgotten)).scalar_one()
        return State(epoch, next_offset, sha256, await self.known_us(next_offset), erasures)

    async def known_us(self, next_offset: int) -> int | None:
        """Return when the newest record of a state was received, None when there is no such state."""
        wanted = select(BLOCK.c.known_us).where(
            BLOCK.c.workspace == self._workspace, BLOCK.c.next_offset == next_offset
        )
        found: int | None = (await self._connection.execute(wanted)).scalar()
        return found

    async def known_times(self, offsets: Collection[int]) -> dict[int, int]:
        """Return when the newest records of some states were received."""
        table = BLOCK.c
        found: dict[int, int] = {}
        for part in parts(offsets):
            here = and_(table.workspace == self._workspace, self._in(table.next_offset, part))
            rows = await self._connection.execute(select(table.next_offset, table.known_us).where(here))
            found |= {row.next_offset: row.known_us for row in rows}
        return found

    async def offset_known_at(self, known_us: int) -> int:
        """Return the exclusive offset of the newest state that was known at a time, 0 when nothing was."""
        wanted = select(func.max(BLOCK.c.next_offset))
        here = and_(BLOCK.c.workspace == self._workspace, BLOCK.c.known_us <= known_us)
        return (await self._connection.execute(wanted.where(here))).scalar() or 0

    async def former_until(self, mappings_sha256: str) -> int | None:
        """Return up to which offset states of former mappings are what they were, None = they are not."""
        table = FORMER_MAPPINGS.c
        here = and_(table.workspace == self._workspace, table.mappings_sha256 == mappings_sha256)
        found: int | None = (await self._connection.execute(select(table.until_offset).where(here))).scalar()
        return found

    async def rebuild_until(self) -> int:
        """Return the offset up to which the graph was read before it was last rebuilt, 0 = it never was."""
        wanted = select(GRAPH.c.rebuild_until).where(GRAPH.c.workspace == self._workspace)
        return (await self._connection.execute(wanted)).scalar() or 0

    async def counts(self) -> Counts:
        """Count what there is."""
        now = and_(ASSIGNMENT.c.workspace == self._workspace, ASSIGNMENT.c.tx_to == FOREVER)
        keys = select(EVENT.c.place_of, EVENT.c.kind, EVENT.c.type, EVENT.c.key)
        each = keys.where(EVENT.c.workspace == self._workspace).distinct().subquery()
        # one pass in the order of the key; grouping by kind would sort everything once more
        sums = [func.sum(case((each.c.kind == int(kind), 1), else_=0)) for kind in EventKind]
        of_kind = dict(zip(EventKind, (await self._connection.execute(select(*sums))).one(), strict=True))
        node = select(NODE.c.type, NODE.c.key).where(NODE.c.workspace == self._workspace, NODE.c.tx_to == FOREVER)
        edge = select(EDGE.c.from_id, EDGE.c.type, EDGE.c.to_id, EDGE.c.valid_from)
        unread = await self._connection.execute(
            select(UNREAD.c.dataset, UNREAD.c.reason, UNREAD.c.records).where(UNREAD.c.workspace == self._workspace)
        )
        return Counts(
            persons=await self._count(select(ASSIGNMENT.c.place).where(now, ASSIGNMENT.c.place == ASSIGNMENT.c.person)),
            identifiers=await self._count(select(IDENTIFIER.c.place).where(IDENTIFIER.c.workspace == self._workspace)),
            nodes=await self._count(node.distinct()),
            edges=await self._count(edge.where(EDGE.c.workspace == self._workspace).distinct()),
            touchpoints=of_kind[EventKind.TOUCHPOINT] or 0,
            conversions=of_kind[EventKind.CONVERSION] or 0,
            unread={(row.dataset, row.reason): row.records for row in unread},
        )

    async def _count(self, wanted: Any) -> int:
        return (await self._connection.execute(select(func.count()).select_from(wanted.subquery()))).scalar_one()

    async def place_of(self, name: Name) -> int | None:
        """Return an identifier's place."""
        table = IDENTIFIER.c
        here = and_(table.workspace == self._workspace, table.type == name.type, table.value == name.value)
        found: int | None = (await self._connection.execute(select(table.place).where(here))).scalar()
        return found

    async def persons(self, places: Collection[int], *, at: int | None = None) -> dict[int, int]:
        """Return the persons of identifiers, in a state (None = now)."""
        table = ASSIGNMENT.c
        found: dict[int, int] = {}
        for part in parts(places):
            rows = await self._connection.execute(
                select(table.place, table.person).where(self._assigned(at), self._in(table.place, part))
            )
            found |= {row.place: row.person for row in rows}
        return found

    async def page(self, *, after: int, limit: int, min_identifiers: int) -> list[int]:
        """Return persons in the order in which they were first seen."""
        table = ASSIGNMENT.c
        wanted = select(table.person).where(self._assigned(None), table.person > after)
        if min_identifiers > 1:
            wanted = wanted.group_by(table.person).having(func.count() >= min_identifiers)
        else:
            wanted = wanted.where(table.place == table.person)
        return list((await self._connection.execute(wanted.order_by(table.person).limit(limit))).scalars())

    async def identifiers(self, persons: Collection[int], *, at: int | None = None) -> dict[int, list[IdentifierSeen]]:
        """Return the identifiers of persons, by type and value, in a state (None = now)."""
        table = IDENTIFIER.c
        same = and_(table.workspace == ASSIGNMENT.c.workspace, table.place == ASSIGNMENT.c.place)
        columns = [table[name] for name in ("place", "type", "value", "first_us", "last_us", "records", "shared")]
        found: dict[int, list[IdentifierSeen]] = {person: [] for person in persons}
        for part in parts(persons):
            wanted = select(ASSIGNMENT.c.person, *columns).join(IDENTIFIER, same)
            rows = await self._connection.execute(wanted.where(self._assigned(at), self._in(ASSIGNMENT.c.person, part)))
            for person, place, type_, value, *seen in rows:
                found[person].append(IdentifierSeen(place, Name(type_, value), *seen))
        for each in found.values():
            each.sort(key=lambda one: one.name)
        return found

    async def is_erased_since(self, erasures: int, *, below: int) -> bool:
        """Tell whether an erasure after so many has changed what states say of the records below an offset."""
        table = FORGOTTEN.c
        here = and_(table.workspace == self._workspace, table.number > erasures, table.first_offset < below)
        return (await self._connection.execute(select(table.number).where(here).limit(1))).first() is not None

    async def is_erased(self, number: int) -> bool:
        """Tell whether a person of this number was erased."""
        table = ERASED_PERSON.c
        wanted = select(table.person).where(table.workspace == self._workspace, table.person == number)
        return (await self._connection.execute(wanted)).first() is not None

    async def were_persons(self, places: Collection[int]) -> set[int]:
        """Return those identifiers that were the first of a person once and are not now."""
        table = ASSIGNMENT.c
        found: set[int] = set()
        for part in parts(places):
            here = and_(
                table.workspace == self._workspace,
                self._in(table.place, part),
                table.place == table.person,
            )
            rows = await self._connection.execute(
                select(table.place, func.max(table.tx_to)).where(here).group_by(table.place)
            )
            found.update(place for place, until in rows if until < FOREVER)
        return found

    def _in(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        return among(self._connection, column, values)

    def _assigned(self, at: int | None) -> ColumnElement[bool]:
        table = ASSIGNMENT.c
        if at is None:
            return and_(table.workspace == self._workspace, table.tx_to == FOREVER)
        return and_(table.workspace == self._workspace, table.tx_from <= at, table.tx_to > at)

    async def members(self, places: Collection[int]) -> dict[int, Member]:
        """Return identifiers by place."""
        return await members(self._connection, self._workspace, places)

    async def links_of(self, places: Collection[int]) -> list[Link]:
        """Return the evidence that concerns any of some identifiers."""
        return await links_of(self._connection, self._workspace, places)

    async def decisions_of(self, places: Collection[int]) -> list[tuple[Decision, tuple[int, ...]]]:
        """Return the decisions about any of some identifiers."""
        return await decisions_of(self._connection, self._workspace, places)

    async def decision(self, decision_id: str) -> Decision | None:
        """Return one decision."""
        here = and_(DECISION.c.workspace == self._workspace, DECISION.c.decision_id == decision_id)
        row = (await self._connection.execute(select(DECISION).where(here))).first()
        return None if row is None else decision_of(row)

    async def events(self, places: Collection[int], *, at: int) -> list[EventRow]:
        """Return what was told of the journeys of some identifiers, in a state."""
        found: list[EventRow] = []
        for part in parts(places):
            here = and_(
                EVENT.c.workspace == self._workspace,
                self._in(EVENT.c.place_of, part),
                EVENT.c.tx_from <= at,
            )
            rows = await self._connection.execute(select(*_EVENT).where(here))
            found += [EventRow(place_of, KINDS[kind], *rest) for place_of, kind, *rest in rows]
        return found

    async def event_keys(self, places: Collection[int], *, at: int) -> list[EventKey]:
        """Return what was told of the journeys of some identifiers, in a state; one event may be told repeatedly."""
        table = EVENT.c
        found: list[EventKey] = []
        for part in parts(places):
            here = and_(table.workspace == self._workspace, self._in(table.place_of, part), table.tx_from <= at)
            wanted = select(table.place_of, table.kind, table.type, table.key).where(here)
            found += [
                EventKey(place, KINDS[kind], *rest) for place, kind, *rest in await self._connection.execute(wanted)
            ]
        return found

    async def persons_with_events(self, *, at: int, campaigns: Collection[str], since: int, until: int) -> list[int]:
        """Return, in order, the persons of a state to whom something happened in a time, or who met a campaign."""
        table = EVENT.c
        timeless: ColumnElement[bool] = table.time_us.is_(None)
        if len(campaigns) <= _MOST_NAMED:
            timeless = and_(timeless, self._in(table.campaign, campaigns))
        happened = or_(and_(table.time_us >= since, table.time_us < until), timeless)
        # first each identifier once: there are far more events than identifiers
        whose = select(table.workspace, table.place_of).where(
            table.workspace == self._workspace, table.tx_from <= at, happened
        )
        found = whose.distinct().subquery()
        same = and_(ASSIGNMENT.c.workspace == found.c.workspace, ASSIGNMENT.c.place == found.c.place_of)
        wanted = select(ASSIGNMENT.c.person).join(found, same).where(self._assigned(at)).distinct()
        return list((await self._connection.execute(wanted.order_by(ASSIGNMENT.c.person))).scalars())

    async def campaigns(self, *, at: int) -> dict[str, Node]:
        """Return the campaigns of a state by key; of several descriptions the one valid last."""
        wanted = select(NODE).where(self._described(at), NODE.c.type == CAMPAIGN).order_by(NODE.c.valid_from)
        return {row.key: _node(row) for row in await self._connection.execute(wanted)}

    async def node(self, type_: str, key: str, *, at: int, valid_us: int | None) -> Node | None:
        """Return a node in a state, valid at a time (None = its newest description)."""
        wanted = select(NODE).where(self._described(at), NODE.c.type == type_, NODE.c.key == key)
        rows = await self._connection.execute(_valid(wanted, valid_us).order_by(NODE.c.valid_from.desc()).limit(1))
        row = rows.first()
        return None if row is None else _node(row)

    async def nodes(self, keys: Collection[tuple[str, str]], *, at: int) -> dict[tuple[str, str], Node]:
        """Return the newest descriptions of nodes in a state."""
        by_type: dict[str, list[str]] = {}
        for type_, key in keys:
            by_type.setdefault(type_, []).append(key)
        found: dict[tuple[str, str], Node] = {}
        for type_, each in by_type.items():
            for part in parts(each):
                wanted = select(NODE).where(self._described(at), NODE.c.type == type_, self._in(NODE.c.key, part))
                rows = await self._connection.execute(wanted.order_by(NODE.c.valid_from))
                found |= {(type_, row.key): _node(row) for row in rows}
        return found

    async def node_page(self, type_: str, *, after: str, limit: int, at: int, valid_us: int | None) -> list[Node]:
        """Return the nodes of a type by key, each as it is described last."""
        wanted = select(NODE).where(self._described(at), NODE.c.type == type_, NODE.c.key > after)
        newest = _valid(wanted, valid_us).with_only_columns(NODE.c.key, func.max(NODE.c.valid_from).label("newest"))
        chosen = newest.group_by(NODE.c.key).order_by(NODE.c.key).limit(limit).subquery()
        same = and_(NODE.c.key == chosen.c.key, NODE.c.valid_from == chosen.c.newest)
        rows = await self._connection.execute(
            select(NODE).join(chosen, same).where(self._described(at), NODE.c.type == type_).order_by(NODE.c.key)
        )
        return [_node(row) for row in rows]

    def _described(self, at: int) -> ColumnElement[bool]:
        return and_(NODE.c.workspace == self._workspace, NODE.c.tx_from <= at, NODE.c.tx_to > at)

    async def edges(self, ends: Collection[str], *, outgoing: bool, type_: str, at: int) -> list[Edge]:
        """Return the edges that begin (or end) at any of some ends, rows of one key added up."""
        table = EDGE.c
        end = table.from_id if outgoing else table.to_id
        found: dict[tuple[str, str, str, int], Edge] = {}
        for part in parts(ends):
            wanted = select(EDGE).where(table.workspace == self._workspace, self._in(end, part), table.tx_from <= at)
            if type_:
                wanted = wanted.where(table.type == type_)
            for row in await self._connection.execute(wanted.order_by(table.tx_from)):
                key = (row.type, row.from_id, row.to_id, row.valid_from)
                first = found.get(key)
                found[key] = Edge(
                    type=row.type,
                    from_id=row.from_id,
                    to_id=row.to_id,
                    valid_from_us=row.valid_from,
                    valid_to_us=row.valid_to,
                    tx_from=first.tx_from if first else row.tx_from,
                    records=row.records + (first.records if first else 0),
                    offset=first.offset if first else row.offset,
                )
        return list(found.values())


def _valid(wanted: Any, valid_us: int | None) -> Any:
    if valid_us is None:
        return wanted
    return wanted.where(NODE.c.valid_from <= valid_us, or_(NODE.c.valid_to.is_(None), NODE.c.valid_to > valid_us))


def _node(row: Any) -> Node:
    return Node(
        type=row.type,
        key=row.key,
        name=row.name,
        attributes=row.attributes,
        valid_from_us=row.valid_from,
        valid_to_us=row.valid_to,
        tx_from=row.tx_from,
        offset=row.offset,
    )
