"""Walks along edges, breadth first and bounded, as of two times."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from counterfoil_contracts.lineage.entities import AsOf, KnownEdge, Node
from counterfoil_contracts.lineage.store import MOST_FOUND, LineageStores

MOST_NODES = 2000
MOST_EDGES = 5000
DEFAULT_DEPTH = 6


class Direction(enum.Enum):
    """Which way to walk."""

    BOTH = "both"
    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


@dataclass(frozen=True)
class Walked:
    """What was met: nodes by distance, and the edges between them."""

    nodes: Sequence[Node]
    edges: Sequence[KnownEdge]
    truncated: bool


async def walk(stores: LineageStores, start: Node, *, depth: int, direction: Direction, as_of: AsOf) -> Walked:
    """Return what lies within `depth` edges of a node."""
    met: dict[str, None] = {start.key: None}
    edges: dict[str, KnownEdge] = {}
    truncated = False
    ahead = {way: {start.key} for way in _ways(direction)}
    for _ in range(depth or DEFAULT_DEPTH):
        for way, frontier in ahead.items():
            found = await _next(stores, way, frontier, columns=False, as_of=as_of)
            truncated = truncated or len(found) >= MOST_FOUND
            reached: set[str] = set()
            for each in found:
                end = each.edge.target if way is Direction.DOWNSTREAM else each.edge.source
                if (len(met) >= MOST_NODES and end not in met) or len(edges) >= MOST_EDGES:
                    truncated = True
                    continue
                edges.setdefault(each.edge.key, each)
                if end not in met:
                    met[end] = None
                    reached.add(end)
            ahead[way] = reached
        if not any(ahead.values()):
            break
    known = await stores.nodes.get(list(met))
    return Walked([known[key] for key in met if key in known], list(edges.values()), truncated)


@dataclass(frozen=True)
class WalkedColumns:
    """The column edges that were met, by distance."""

    edges: Sequence[KnownEdge]
    truncated: bool


async def walk_columns(
    stores: LineageStores, start: tuple[str, str], *, depth: int, direction: Direction, as_of: AsOf
) -> WalkedColumns:
    """Return the column edges within `depth` of a field, given by its dataset's key and its name ("" = all of it)."""
    edges: dict[str, KnownEdge] = {}
    truncated = False
    for way in _ways(direction):
        met = {start}
        frontier = {start}
        for _ in range(depth or DEFAULT_DEPTH):
            found = await _next(stores, way, {node for node, _ in frontier}, columns=True, as_of=as_of)
            truncated = truncated or len(found) >= MOST_FOUND
            reached: set[tuple[str, str]] = set()
            for each in found:
                near, far = _ends(each, way)
                if not any(node == near[0] and touches(field, near[1]) for node, field in frontier):
                    continue
                if len(edges) >= MOST_EDGES and each.edge.key not in edges:
                    return WalkedColumns(list(edges.values()), truncated=True)
                edges.setdefault(each.edge.key, each)
                if far not in met:
                    reached.add(far)
            met |= reached
            frontier = reached
            if not frontier:
                break
    return WalkedColumns(list(edges.values()), truncated=truncated)


def touches(one: str, other: str) -> bool:
    """Say whether two fields of a dataset share anything: the same, one within the other, or the dataset as a whole."""
    return not one or not other or one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _ways(direction: Direction) -> list[Direction]:
    return [Direction.UPSTREAM, Direction.DOWNSTREAM] if direction is Direction.BOTH else [direction]


def _ends(known: KnownEdge, way: Direction) -> tuple[tuple[str, str], tuple[str, str]]:
    edge = known.edge
    source, target = (edge.source, edge.source_field), (edge.target, edge.target_field)
    return (source, target) if way is Direction.DOWNSTREAM else (target, source)


async def _next(
    stores: LineageStores, way: Direction, nodes: Collection[str], *, columns: bool, as_of: AsOf
) -> Sequence[KnownEdge]:
    if way is Direction.DOWNSTREAM:
        return await stores.edges.from_sources(nodes, columns=columns, as_of=as_of)
    return await stores.edges.into_targets(nodes, columns=columns, as_of=as_of)
