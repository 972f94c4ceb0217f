"""What the rules of lineage need from storage; every method is about one workspace, of one open transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from counterfoil_contracts.lineage.entities import (
    AsOf,
    Belief,
    Edge,
    KnownEdge,
    Node,
    NodeKind,
    Run,
    RunUse,
    Span,
    Told,
    Version,
)

MOST_FOUND: Final = 20_000
"""Edges of one look-up."""


class EdgeStore(Protocol):
    """Edges with two times: what is superseded stays, with the time until which it was believed."""

    async def known(self, edges: Collection[Edge]) -> Mapping[str, Sequence[Span]]:
        """Return what is believed now of each edge, by its key, ascending; none without an entry."""

    async def of_job(self, job: str, *, at: int, target: str | None = None) -> Sequence[Edge]:
        """Return the uses of a job, or its column edges into a target, that began before a time and go on after it."""

    async def targets_of_job(self, job: str, *, at: int) -> Collection[str]:
        """Return the datasets into which a job has column edges that began before a time and go on after it."""

    async def believe(self, changes: Sequence[Belief], *, now: int) -> None:
        """Replace what is believed of edges from now on; what is superseded stays, with the time until which it was."""

    async def from_sources(self, nodes: Collection[str], *, columns: bool, as_of: AsOf) -> Sequence[KnownEdge]:
        """Return the uses, or the column edges, that start at any of these nodes, at most `MOST_FOUND`."""

    async def into_targets(self, nodes: Collection[str], *, columns: bool, as_of: AsOf) -> Sequence[KnownEdge]:
        """Return the uses, or the column edges, that end at any of these nodes, at most `MOST_FOUND`."""


class RunStore(Protocol):
    """Runs and what they used."""

    async def get(self, run_id: str) -> Run | None:
        """Return one run, or None."""

    async def put(self, run: Run) -> None:
        """Keep a run as it is now."""

    async def uses(self, run_id: str) -> Sequence[RunUse]:
        """Return what a run used, inputs first, by name."""

    async def put_uses(self, uses: Sequence[RunUse]) -> None:
        """Keep what a run used."""

    async def next_completion(self, job: str, *, after: int) -> int | None:
        """Return when a job next told all it reads and writes after a time, None = not since."""

    async def later_uses(self, job: str, *, after: int) -> Sequence[tuple[RunUse, int | None]]:
        """Return what a job's runs used that was told, or completed, at a time or after, with the completion's time."""

    async def list(self, job: str, *, skip: int, limit: int) -> tuple[Sequence[Run], int]:
        """Return a job's runs, newest first, without facets, and how many there are."""

    async def of_ids(self, run_ids: Collection[str]) -> Mapping[str, Run]:
        """Return runs by id, without facets."""

    async def receipts(self, jobs: Collection[str], *, until: int, limit: int) -> tuple[Sequence[Run], int]:
        """Return the newest runs of these jobs that made a receipt until a time, and how many there are."""


class NodeStore(Protocol):
    """Datasets and jobs."""

    async def get(self, keys: Collection[str]) -> Mapping[str, Node]:
        """Return nodes by key; who is not there has no entry."""

    async def find(self, node_id: str) -> Node | None:
        """Return the node that Marquez names so, or None; the oldest where two names are written the same."""

    async def put(self, nodes: Sequence[Node]) -> None:
        """Keep nodes as they are now."""

    async def list(
        self,
        *,
        kind: NodeKind | None,
        namespace: str,
        query: str,
        after: tuple[str, str, str] | None,
        skip: int,
        limit: int,
    ) -> tuple[Sequence[Node], int]:
        """Return nodes by namespace, name and kind after a place, without facets, and how many there are in all."""

    async def namespaces(self, *, limit: int) -> Sequence[tuple[str, int, int]]:
        """Return the namespaces by name, each with when it was first and last named."""

    async def counts(self) -> Mapping[NodeKind, int]:
        """Return how many nodes of each kind there are."""


class VersionStore(Protocol):
    """Versions of datasets."""

    async def add(self, version: Version) -> None:
        """Keep a version unless it is kept."""

    async def list(self, dataset: str, *, version: str, skip: int, limit: int) -> tuple[Sequence[Version], int]:
        """Return a dataset's versions, newest first, or the one named, and how many there are."""


class EventStore(Protocol):
    """Events as they came."""

    async def add(self, told: Told, *, now: int) -> bool:
        """Keep an event; False = it is kept already."""

    async def list(
        self, *, after: int | None, before: int | None, oldest_first: bool, skip: int, limit: int
    ) -> tuple[Sequence[bytes], int]:
        """Return events by event time, and how many there are in all."""

    async def count_by_hour(self, *, since: int) -> Sequence[tuple[int, str, int]]:
        """Return hour (microseconds), event type and how many run events of that type happened in it."""


class ColumnSource(Protocol):
    """What columns a dataset has, by the contracts in force."""

    async def columns(self, dataset: str) -> Sequence[str]:
        """Return the columns of one of our datasets; none when no contract governs it."""


@dataclass(frozen=True)
class LineageStores:
    """Every store of lineage for one workspace, of one open transaction."""

    edges: EdgeStore
    runs: RunStore
    nodes: NodeStore
    versions: VersionStore
    events: EventStore
    columns: ColumnSource


class LineageTransactions(Protocol):
    """Opens transactions on one workspace's lineage."""

    def begin(self, workspace: str) -> AbstractAsyncContextManager[LineageStores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""

    def read(self, workspace: str) -> AbstractAsyncContextManager[LineageStores]:
        """Open a transaction that reads one state."""
