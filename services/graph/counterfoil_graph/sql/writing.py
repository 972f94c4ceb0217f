"""The graph as one block changes it, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Executable, Table, and_, bindparam, case, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_graph.entities import (
    FOREVER,
    Decision,
    DecisionKind,
    Edge,
    IdentifierSeen,
    Link,
    Member,
    Name,
    Node,
)
from counterfoil_graph.sql.batches import Rows, among, insert_rows, pair_among, parts, upsert
from counterfoil_graph.sql.tables import (
    ASSIGNMENT,
    BLOCK,
    DATASET,
    DECISION,
    DECISION_IDENTIFIER,
    EDGE,
    EVENT,
    IDENTIFIER,
    LINK,
    NODE,
    UNREAD,
)
from counterfoil_graph.store import EventRow, Partners


def names_text(names: Sequence[Name]) -> str:
    """Return identifiers as they are stored."""
    return orjson.dumps([[each.type, each.value] for each in names]).decode()


def names_of(text: str) -> tuple[Name, ...]:
    """Return stored identifiers."""
    return tuple(Name(*each) for each in orjson.loads(text))


async def decisions_of(
    connection: AsyncConnection, workspace: str, places: Collection[int]
) -> list[tuple[Decision, tuple[int, ...]]]:
    """Return the decisions about any of some identifiers, each with the places of those it is about."""
    about = DECISION_IDENTIFIER.c
    ids: set[str] = set()
    for part in parts(places):
        wanted = (
            select(about.decision_id)
            .where(about.workspace == workspace, among(connection, about.place, part))
            .distinct()
        )
        ids.update((await connection.execute(wanted)).scalars())
    found: list[tuple[Decision, tuple[int, ...]]] = []
    for some in parts(sorted(ids)):
        rows = await connection.execute(
            select(DECISION).where(DECISION.c.workspace == workspace, among(connection, DECISION.c.decision_id, some))
        )
        named = await connection.execute(
            select(about.decision_id, about.place).where(
                about.workspace == workspace, among(connection, about.decision_id, some)
            )
        )
        by_id: dict[str, list[int]] = {}
        for decision_id, place in named:
            by_id.setdefault(decision_id, []).append(place)
        found += [(decision_of(row), tuple(by_id[row.decision_id])) for row in rows]
    return found


def decision_of(row: Any) -> Decision:
    """Return a stored decision."""
    return Decision(
        decision_id=row.decision_id,
        kind=DecisionKind(row.kind),
        identifiers=names_of(row.identifiers),
        staying=names_of(row.staying),
        reverses=row.reverses,
        decided_by=row.decided_by,
        decided_us=row.decided_us,
        reason=row.reason,
        request_sha256=row.request_sha256,
        offset=row.offset,
        reversed_by=row.reversed_by,
    )


async def members(connection: AsyncConnection, workspace: str, places: Collection[int]) -> dict[int, Member]:
    """Return identifiers by place."""
    table = IDENTIFIER.c
    found: dict[int, Member] = {}
    for part in parts(places):
        wanted = select(table.place, table.type, table.value, table.shared)
        rows = await connection.execute(
            wanted.where(table.workspace == workspace, among(connection, table.place, part))
        )
        found |= {place: Member(place, Name(type_, value), shared) for place, type_, value, shared in rows}
    return found


async def links_of(connection: AsyncConnection, workspace: str, places: Collection[int]) -> list[Link]:
    """Return the evidence that concerns any of some identifiers, each piece once."""
    found: dict[tuple[int, int], Link] = {}
    for part in parts(places):
        for side in (LINK.c.low, LINK.c.high):
            rows = await connection.execute(
                select(*_LINK).where(LINK.c.workspace == workspace, among(connection, side, part))
            )
            found |= {(row[0], row[1]): Link(*row) for row in rows}
    return list(found.values())


_LINK = [LINK.c[name] for name in ("low", "high", "time_us", "record_id", "dataset", "offset", "records")]


class SqlGraphWriter:
    """See `store.GraphWriter`."""

    def __init__(self, connection: AsyncConnection, workspace: str, *, tx: int) -> None:
        self._connection = connection
        self._workspace = workspace
        self._tx = tx

    async def places(self, names: Collection[Name]) -> dict[Name, int]:
        """Return the places of the identifiers that are known."""
        table = IDENTIFIER.c
        by_type: dict[str, list[str]] = {}
        for name in names:
            by_type.setdefault(name.type, []).append(name.value)
        found: dict[Name, int] = {}
        for type_, values in by_type.items():
            for part in parts(values):
                here = and_(table.workspace == self._workspace, table.type == type_, self._in(table.value, part))
                rows = await self._connection.execute(select(table.value, table.place).where(here))
                found |= {Name(type_, value): place for value, place in rows}
        return found

    async def add_identifiers(self, found: Sequence[IdentifierSeen]) -> None:
        """Add identifiers, each a person of its own."""
        workspace = self._workspace
        rows = [
            (workspace, each.place, *each.name, each.first_us, each.last_us, each.records, 0, False) for each in found
        ]
        await insert_rows(self._connection, IDENTIFIER, rows)

    async def see_identifiers(self, found: Sequence[IdentifierSeen]) -> None:
        """Add what a block tells of known identifiers: earliest and latest time, records."""
        rows = [(self._workspace, each.place, each.first_us, each.last_us, each.records) for each in found]
        await _SEE.execute(self._connection, rows)

    async def members(self, places: Collection[int]) -> dict[int, Member]:
        """Return identifiers by place."""
        return await members(self._connection, self._workspace, places)

    async def partners(self, places: Collection[int]) -> dict[int, Partners]:
        """Return how many partners identifiers have."""
        table = IDENTIFIER.c
        found: dict[int, Partners] = {}
        for part in parts(places):
            wanted = select(table.place, table.partners, table.shared)
            rows = await self._connection.execute(
                wanted.where(table.workspace == self._workspace, self._in(table.place, part))
            )
            found |= {row[0]: Partners(*row) for row in rows}
        return found

    async def set_partners(self, found: Sequence[Partners]) -> None:
        """Keep how many partners identifiers have."""
        rows = [(self._workspace, each.place, each.partners, each.shared) for each in found]
        await _PARTNERS.execute(self._connection, rows)

    async def links(self, pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], Link]:
        """Return the evidence there is of pairs of places."""
        found: dict[tuple[int, int], Link] = {}
        for part in parts(pairs):
            these = pair_among(self._connection, (LINK.c.low, LINK.c.high), part)
            here = and_(LINK.c.workspace == self._workspace, these)
            rows = await self._connection.execute(select(*_LINK).where(here))
            found |= {(row[0], row[1]): Link(*row) for row in rows}
        return found

    async def put_links(self, links: Sequence[Link]) -> None:
        """Keep evidence: `records` add up, the rest replaces what is there."""
        rows = [
            (
                *(self._workspace, each.low, each.high, each.time_us),
                *(each.record_id.replace("\0", "\ufffd"), each.dataset),  # PostgreSQL's texts hold no NUL
                *(each.offset, each.records),
            )
            for each in links
        ]
        await _PUT_LINKS.execute(self._connection, rows)

    async def links_of(self, places: Collection[int]) -> list[Link]:
        """Return the evidence that concerns any of some identifiers."""
        return await links_of(self._connection, self._workspace, places)

    async def decisions_of(self, places: Collection[int]) -> list[tuple[Decision, tuple[int, ...]]]:
        """Return the decisions about any of some identifiers, each with the places of those it is about."""
        return await decisions_of(self._connection, self._workspace, places)

    async def add_decision(self, decision: Decision, places: Sequence[int]) -> None:
        """Keep a decision, and on the merge it takes back that it did; one that is there is kept as it is."""
        reversed_by = ""
        if decision.kind is DecisionKind.MERGE:  # the split that takes it back can lie before it in the log
            taken = select(DECISION.c.decision_id).where(
                DECISION.c.workspace == self._workspace, DECISION.c.reverses == decision.decision_id
            )
            reversed_by = (await self._connection.execute(taken.limit(1))).scalar() or ""
        row = {
            "workspace": self._workspace,
            "decision_id": decision.decision_id,
            "kind": decision.kind.value,
            "identifiers": names_text(decision.identifiers),
            "staying": names_text(decision.staying),
            "reverses": decision.reverses,
            "reversed_by": reversed_by,
            "decided_by": decision.decided_by,
            "decided_us": decision.decided_us,
            "reason": decision.reason,
            "request_sha256": decision.request_sha256,
            "offset": decision.offset,
        }
        await self._connection.execute(
            upsert(self._connection.dialect.name, DECISION).values(row).on_conflict_do_nothing()
        )
        about = [
            {"workspace": self._workspace, "place": place, "decision_id": decision.decision_id} for place in set(places)
        ]
        if about:
            statement = upsert(self._connection.dialect.name, DECISION_IDENTIFIER).on_conflict_do_nothing()
            await self._connection.execute(statement, about)
        if decision.reverses:
            merge = and_(
                DECISION.c.workspace == self._workspace,
                DECISION.c.decision_id == decision.reverses,
                DECISION.c.kind == DecisionKind.MERGE.value,
                DECISION.c.reversed_by == "",
            )
            await self._connection.execute(update(DECISION).where(merge).values(reversed_by=decision.decision_id))

    async def persons(self, places: Collection[int]) -> dict[int, int]:
        """Return the persons that identifiers belong to now."""
        table = ASSIGNMENT.c
        found: dict[int, int] = {}
        for part in parts(places):
            now = and_(table.workspace == self._workspace, self._in(table.place, part), table.tx_to == FOREVER)
            rows = await self._connection.execute(select(table.place, table.person).where(now))
            found |= {row.place: row.person for row in rows}
        return found

    async def assign(self, persons: Mapping[int, int]) -> None:
        """Give identifiers to persons from this state on."""
        table = ASSIGNMENT.c
        for part in parts(persons):
            now = and_(table.workspace == self._workspace, self._in(table.place, part), table.tx_to == FOREVER)
            await self._connection.execute(update(ASSIGNMENT).where(now).values(tx_to=self._tx))
        await self.add_persons(persons)

    async def add_persons(self, persons: Mapping[int, int]) -> None:
        """Give identifiers that are new to persons from this state on."""
        rows = [(self._workspace, place, self._tx, FOREVER, person) for place, person in persons.items()]
        await insert_rows(self._connection, ASSIGNMENT, rows)

    async def put_nodes(self, nodes: Sequence[Node]) -> None:
        """Keep nodes as they are described now; a description that says the same changes nothing."""
        known = await self._known_nodes(nodes)
        changed = [
            each for each in nodes if known.get(_node_key(each)) != (each.name, each.attributes, each.valid_to_us)
        ]
        replaced = [(self._workspace, *_node_key(each), self._tx) for each in changed if _node_key(each) in known]
        await _CLOSE_NODES.execute(self._connection, replaced)
        rows = [
            (
                *(self._workspace, *_node_key(each), self._tx, FOREVER),
                *(each.valid_to_us, each.name, each.attributes, each.offset),
            )
            for each in changed
        ]
        await insert_rows(self._connection, NODE, rows)

    async def _known_nodes(self, nodes: Sequence[Node]) -> dict[tuple[str, str, int], tuple[str, str, int | None]]:
        table = NODE.c
        by_type: dict[str, set[str]] = {}
        for each in nodes:
            by_type.setdefault(each.type, set()).add(each.key)
        found: dict[tuple[str, str, int], tuple[str, str, int | None]] = {}
        for type_, keys in by_type.items():
            for part in parts(keys):
                now = and_(table.workspace == self._workspace, table.type == type_, self._in(table.key, part))
                wanted = select(table.key, table.valid_from, table.name, table.attributes, table.valid_to)
                rows = await self._connection.execute(wanted.where(now, table.tx_to == FOREVER))
                found |= {(type_, row[0], row[1]): (row[2], row[3], row[4]) for row in rows}
        return found

    async def put_edges(self, edges: Sequence[Edge]) -> None:
        """Keep what a block tells of edges."""
        rows = [
            (
                *(self._workspace, each.from_id, each.type, each.to_id, each.valid_from_us, self._tx),
                *(each.valid_to_us, each.records, each.offset),
            )
            for each in edges
        ]
        await insert_rows(self._connection, EDGE, rows)

    async def put_events(self, events: Sequence[EventRow]) -> None:
        """Keep what a block tells of touchpoints and conversions."""
        rows = [
            (
                *(self._workspace, each.place_of, int(each.kind), each.type, each.key, self._tx),
                *(each.place, each.time_us, each.channel, each.campaign, each.value_micros, each.currency),
                *(each.dataset, each.records),
            )
            for each in events
        ]
        await insert_rows(self._connection, EVENT, rows)

    async def add_unread(self, unread: Mapping[tuple[str, str], int]) -> None:
        """Count records that could not be read, by dataset and reason."""
        rows = [(self._workspace, dataset, reason, records) for (dataset, reason), records in unread.items()]
        await _COUNT_UNREAD.execute(self._connection, rows)

    async def add_datasets(self, first_offsets: Mapping[str, int]) -> None:
        """Note datasets that the log has shown."""
        rows = [(self._workspace, dataset, offset) for dataset, offset in first_offsets.items()]
        await _SEE_DATASETS.execute(self._connection, rows)

    async def known_us(self) -> int:
        """Return when the newest record was received that is known so far, 0 when none is."""
        newest = select(BLOCK.c.known_us).where(BLOCK.c.workspace == self._workspace)
        newest = newest.order_by(BLOCK.c.next_offset.desc()).limit(1)
        return (await self._connection.execute(newest)).scalar() or 0

    async def has_decisions(self) -> bool:
        """Tell whether anybody ever decided anything."""
        some = select(DECISION.c.decision_id).where(DECISION.c.workspace == self._workspace).limit(1)
        return (await self._connection.execute(some)).first() is not None

    async def end_block(self, known_us: int) -> None:
        """Note that there is a state here, whose newest record was received then."""
        await insert_rows(self._connection, BLOCK, [(self._workspace, self._tx, known_us)])

    def _in(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        return among(self._connection, column, values)


def _node_key(of: Node) -> tuple[str, str, int]:
    return of.type, of.key, of.valid_from_us


def _here(table: Table, *names: str) -> ColumnElement[bool]:
    return and_(*(table.c[name] == _value(name) for name in names))


def _value(name: str) -> Any:
    return bindparam(f"b_{name}")


def _see(_dialect: str) -> Executable:
    table, first, last = IDENTIFIER.c, _value("first"), _value("last")
    return (
        update(IDENTIFIER)
        .where(_here(IDENTIFIER, "workspace", "place"))
        .values(
            first_us=case((first < table.first_us, first), else_=table.first_us),
            last_us=case((last > table.last_us, last), else_=table.last_us),
            records=table.records + _value("records"),
        )
    )


def _set_partners(_dialect: str) -> Executable:
    values = {"partners": _value("partners"), "shared": _value("shared")}
    return update(IDENTIFIER).where(_here(IDENTIFIER, "workspace", "place")).values(values)


def _put_links(dialect: str) -> Executable:
    made: Any = upsert(dialect, LINK)
    changed = {name: made.excluded[name] for name in ("time_us", "record_id", "dataset", "offset")}
    changed["records"] = LINK.c.records + made.excluded.records
    statement: Executable = made.on_conflict_do_update(index_elements=list(LINK.primary_key), set_=changed)
    return statement


def _close_nodes(_dialect: str) -> Executable:
    now = _here(NODE, "workspace", "type", "key", "valid_from")
    return update(NODE).where(now, NODE.c.tx_to == FOREVER).values(tx_to=_value("tx"))


def _count_unread(dialect: str) -> Executable:
    made: Any = upsert(dialect, UNREAD)
    added = {"records": UNREAD.c.records + made.excluded.records}
    statement: Executable = made.on_conflict_do_update(index_elements=list(UNREAD.primary_key), set_=added)
    return statement


def _see_datasets(dialect: str) -> Executable:
    statement: Executable = upsert(dialect, DATASET).on_conflict_do_nothing()
    return statement


_SEE = Rows(_see, ("b_workspace", "b_place", "b_first", "b_last", "b_records"))
_PARTNERS = Rows(_set_partners, ("b_workspace", "b_place", "b_partners", "b_shared"))
_PUT_LINKS = Rows(_put_links, LINK.columns.keys())
_CLOSE_NODES = Rows(_close_nodes, ("b_workspace", "b_type", "b_key", "b_valid_from", "b_tx"))
_COUNT_UNREAD = Rows(_count_unread, UNREAD.columns.keys())
_SEE_DATASETS = Rows(_see_datasets, DATASET.columns.keys())
