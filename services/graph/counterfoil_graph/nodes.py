"""Nodes and their neighbours, in a state and at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from counterfoil_graph.entities import PERSON, Edge, Node, person_id
from counterfoil_graph.errors import NodeIdInvalidError, NodeNotFoundError, PersonNotFoundError
from counterfoil_graph.persons import resolve
from counterfoil_graph.store import GraphReader


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An edge, with the ids of both ends, and the node at its other end."""

    edge: Edge
    node: Node


@dataclass(frozen=True, slots=True)
class Followed:
    """Which edges are followed: of a type ("" = all), which ways, valid at a time (None = whenever)."""

    edge_type: str
    outgoing: bool
    incoming: bool
    valid_us: int | None


def parse(node_id: str) -> tuple[str, str]:
    """Return the type and key of a node's id; raise NodeIdInvalidError."""
    type_, dot, key = node_id.partition(".")
    if not (type_ and dot and key):
        raise NodeIdInvalidError("A node's id is its type, a dot and its key, e.g. campaign.18.")
    return type_, key


async def get(reader: GraphReader, node_id: str, *, at: int, valid_us: int | None) -> Node:
    """Return a node in a state, valid at a time (None = as it is described last); raise NodeNotFoundError."""
    type_, key = parse(node_id)
    if type_ == PERSON:
        try:
            number = await resolve(reader, key, at=at)
        except PersonNotFoundError:
            raise _not_found(node_id) from None
        return _person(number)
    found = await reader.node(type_, key, at=at, valid_us=valid_us)
    if found is None:
        raise _not_found(node_id)
    return found


def _not_found(node_id: str) -> NodeNotFoundError:
    return NodeNotFoundError(f"No record describes {node_id}, at that time.", metadata={"node_id": node_id})


def _person(number: int) -> Node:
    return Node(PERSON, person_id(number), offset=number // 256)


async def neighbors(reader: GraphReader, node_id: str, *, at: int, followed: Followed) -> list[Neighbor]:
    """Return what a node is connected with, by edge type and node.

    A node that no record describes can have neighbours, too. Raises NodeNotFoundError for one that has neither a record
    nor an edge of any kind, and for a person that there is not.
    """
    type_, key = parse(node_id)
    ends = [node_id]
    if type_ == PERSON:
        try:
            number = await resolve(reader, key, at=at)
        except PersonNotFoundError:
            raise _not_found(node_id) from None
        ends = [f"@{each.place}" for each in (await reader.identifiers([number], at=at))[number]]
        node_id = f"{PERSON}.{person_id(number)}"
    edges: list[tuple[Edge, bool]] = []
    for outgoing in (each for each in (True, False) if (followed.outgoing if each else followed.incoming)):
        found = await reader.edges(ends, outgoing=outgoing, type_=followed.edge_type, at=at)
        edges += [(edge, outgoing) for edge in found if _is_valid(edge, followed.valid_us)]
    if type_ != PERSON and not edges and not await _is_known(reader, type_, key, at=at):
        raise _not_found(node_id)
    named = await _named(reader, edges, node_id, at=at)
    nodes = await reader.nodes({parse(_other(each)) for each in named if not _other(each).startswith("person.")}, at=at)
    answer = [Neighbor(edge, _node(_other((edge, outgoing)), nodes)) for edge, outgoing in named]
    return sorted(answer, key=order)


async def _is_known(reader: GraphReader, type_: str, key: str, *, at: int) -> bool:
    if await reader.node(type_, key, at=at, valid_us=None) is not None:
        return True
    ends = [f"{type_}.{key}"]
    return any([await reader.edges(ends, outgoing=outgoing, type_="", at=at) for outgoing in (True, False)])


def order(of: Neighbor) -> tuple[str, str, str, str, int]:
    """Return the key that neighbours are sorted by."""
    node_id = f"{of.node.type}.{of.node.key}"
    return of.edge.type, node_id, of.edge.from_id, of.edge.to_id, of.edge.valid_from_us


async def _named(
    reader: GraphReader, edges: Sequence[tuple[Edge, bool]], own: str, *, at: int
) -> list[tuple[Edge, bool]]:
    """Return edges between nodes instead of identifiers; those of several identifiers of one person are one."""
    places = {int(end[1:]) for edge, _ in edges for end in (edge.from_id, edge.to_id) if end.startswith("@")}
    persons = await reader.persons(places, at=at)
    found: dict[tuple[str, str, str, int, bool], Edge] = {}
    for edge, outgoing in edges:
        from_id, to_id = (_end(end, persons) for end in (edge.from_id, edge.to_id))
        from_id, to_id = (own, to_id) if outgoing else (from_id, own)
        key = (edge.type, from_id, to_id, edge.valid_from_us, outgoing)
        found[key] = _together(replace(edge, from_id=from_id, to_id=to_id), found.get(key))
    return [(edge, key[4]) for key, edge in found.items()]


def _end(end: str, persons: dict[int, int]) -> str:
    return f"{PERSON}.{person_id(persons[int(end[1:])])}" if end.startswith("@") else end


def _together(edge: Edge, other: Edge | None) -> Edge:
    if other is None:
        return edge
    first = min(edge, other, key=lambda each: each.offset)
    return replace(first, records=edge.records + other.records, tx_from=min(edge.tx_from, other.tx_from))


def _is_valid(edge: Edge, valid_us: int | None) -> bool:
    if valid_us is None:
        return True
    return edge.valid_from_us <= valid_us and (edge.valid_to_us is None or edge.valid_to_us > valid_us)


def _other(of: tuple[Edge, bool]) -> str:
    edge, outgoing = of
    return edge.to_id if outgoing else edge.from_id


def _node(node_id: str, nodes: dict[tuple[str, str], Node]) -> Node:
    type_, key = parse(node_id)
    return nodes.get((type_, key), Node(type_, key))


def offsets_of(found: Iterable[Neighbor]) -> set[int]:
    """Return the states from which edges and nodes are known."""
    return {each for neighbor in found for each in (neighbor.edge.tx_from, neighbor.node.tx_from) if each}
