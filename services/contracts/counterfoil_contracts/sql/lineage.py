"""Lineage in SQL: one workspace's events, nodes, runs, versions and edges, of one open transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from counterfoil_chassis.database import Database
from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.lineage.entities import (
    AsOf,
    Belief,
    Edge,
    EdgeKind,
    KnownEdge,
    Node,
    NodeKind,
    Run,
    RunState,
    RunUse,
    Span,
    Told,
    Version,
)
from counterfoil_contracts.lineage.store import MOST_FOUND, LineageStores
from counterfoil_contracts.sql.compiled import to_compiled
from counterfoil_contracts.sql.lineage_rows import (
    edge_values,
    node_values,
    run_values,
    to_edge,
    to_known,
    to_node,
    to_run,
    to_use,
    to_version,
    use_values,
    version_values,
)
from counterfoil_contracts.sql.lineage_tables import EDGES, EVENTS, NODES, RUNS, USES, VERSIONS
from counterfoil_contracts.sql.tables import COMPILED, GOVERNED

HOUR: Final = 3_600_000_000
_AT_ONCE: Final = 500  # values of one statement; SQLite has room for 32,766 and PostgreSQL for 32,767
_COLUMN_KINDS: Final = (EdgeKind.DIRECT.value, EdgeKind.INDIRECT.value)


class _Part:
    def __init__(self, connection: AsyncConnection, workspace: str) -> None:
        self._connection = connection
        self._workspace = workspace

    def _mine(self, table: Table, **equal: Any) -> ColumnElement[bool]:
        return and_(table.c.workspace == self._workspace, *(table.c[name] == value for name, value in equal.items()))

    async def _add(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            await self._connection.execute(insert(table), [{"workspace": self._workspace, **row} for row in rows])

    async def _add_first(self, table: Table, row: Mapping[str, Any]) -> bool:
        make = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        statement = make(table).values(workspace=self._workspace, **row).on_conflict_do_nothing()
        return (await self._connection.execute(statement)).rowcount == 1

    async def _put(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows in place of those with their keys."""
        if not rows:
            return
        make = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        statement = make(table)
        keys = list(table.primary_key)
        changed = {column.name: statement.excluded[column.name] for column in table.c if column not in keys}
        upsert = statement.on_conflict_do_update(index_elements=keys, set_=changed)
        await self._connection.execute(upsert, [{"workspace": self._workspace, **row} for row in rows])

    async def _count(self, query: Select[Any]) -> int:
        return (await self._connection.execute(select(func.count()).select_from(query.subquery()))).scalar_one()


class SqlLineageEvents(_Part):
    """See `store.EventStore`."""

    async def add(self, told: Told, *, now: int) -> bool:
        """Keep an event; False = it is kept already."""
        row = {
            "event_id": told.event_id,
            "event_type": told.event_type,
            "at": told.at,
            "received_at": now,
            "payload": told.payload,
        }
        return await self._add_first(EVENTS, row)

    async def list(
        self, *, after: int | None, before: int | None, oldest_first: bool, skip: int, limit: int
    ) -> tuple[Sequence[bytes], int]:
        """Return events by event time, and how many there are in all."""
        place = self._mine(EVENTS)
        if after is not None:
            place = and_(place, EVENTS.c.at >= after)
        if before is not None:
            place = and_(place, EVENTS.c.at < before)
        order = (EVENTS.c.at, EVENTS.c.event_id)
        query = select(EVENTS.c.payload).where(place)
        ordered = query.order_by(*(order if oldest_first else [each.desc() for each in order]))
        rows = await self._connection.execute(ordered.offset(skip).limit(limit))
        return [row.payload for row in rows], await self._count(query)

    async def count_by_hour(self, *, since: int) -> Sequence[tuple[int, str, int]]:
        """Return hour (microseconds), event type and how many run events of that type happened in it."""
        hour = (EVENTS.c.at - EVENTS.c.at % HOUR).label("hour")
        query = (
            select(hour, EVENTS.c.event_type, func.count())
            .where(self._mine(EVENTS), EVENTS.c.at >= since, EVENTS.c.event_type != "")
            .group_by(hour, EVENTS.c.event_type)
        )
        return [(row[0], row[1], row[2]) for row in await self._connection.execute(query)]


class SqlLineageNodes(_Part):
    """See `store.NodeStore`."""

    async def get(self, keys: Collection[str]) -> Mapping[str, Node]:
        """Return nodes by key; who is not there has no entry."""
        found: dict[str, Node] = {}
        for some in _parts(keys):
            rows = await self._connection.execute(select(NODES).where(self._mine(NODES), NODES.c.node.in_(some)))
            found.update((row.node, to_node(row)) for row in rows)
        return found

    async def find(self, node_id: str) -> Node | None:
        """Return the node that Marquez names so, or None; the oldest where two names are written the same."""
        query = select(NODES).where(self._mine(NODES, node_id=node_id)).order_by(NODES.c.created_at, NODES.c.node)
        row = (await self._connection.execute(query.limit(1))).first()
        return None if row is None else to_node(row)

    async def put(self, nodes: Sequence[Node]) -> None:
        """Keep nodes as they are now."""
        await self._put(NODES, [node_values(node) for node in nodes])

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
        place = self._mine(NODES)
        if kind is not None:
            place = and_(place, NODES.c.kind == kind.value)
        if namespace:
            place = and_(place, NODES.c.namespace == namespace)
        if query:
            place = and_(place, NODES.c.name.icontains(query, autoescape=True))
        order = (NODES.c.namespace, NODES.c.name, NODES.c.kind)
        light = select(*(column for column in NODES.c if column.name != "facets"))
        wanted = light.where(place if after is None else and_(place, tuple_(*order) > tuple_(*after)))
        rows = await self._connection.execute(wanted.order_by(*order).offset(skip).limit(limit))
        return [to_node(row) for row in rows], await self._count(select(NODES.c.node).where(place))

    async def namespaces(self, *, limit: int) -> Sequence[tuple[str, int, int]]:
        """Return the namespaces by name, each with when it was first and last named."""
        query = (
            select(NODES.c.namespace, func.min(NODES.c.created_at), func.max(NODES.c.updated_at))
            .where(self._mine(NODES))
            .group_by(NODES.c.namespace)
            .order_by(NODES.c.namespace)
            .limit(limit)
        )
        return [(row[0], row[1], row[2]) for row in await self._connection.execute(query)]

    async def counts(self) -> Mapping[NodeKind, int]:
        """Return how many nodes of each kind there are."""
        query = select(NODES.c.kind, func.count()).where(self._mine(NODES)).group_by(NODES.c.kind)
        return {NodeKind(row[0]): row[1] for row in await self._connection.execute(query)}


class SqlLineageRuns(_Part):
    """See `store.RunStore`."""

    async def get(self, run_id: str) -> Run | None:
        """Return one run, or None."""
        row = (await self._connection.execute(self._runs(facets=True).where(RUNS.c.run_id == run_id))).one_or_none()
        return None if row is None else to_run(row)

    async def put(self, run: Run) -> None:
        """Keep a run as it is now."""
        await self._put(RUNS, [run_values(run)])

    async def uses(self, run_id: str) -> Sequence[RunUse]:
        """Return what a run used, inputs first, by name."""
        query = select(USES).where(self._mine(USES, run_id=run_id)).order_by(USES.c.role, USES.c.namespace, USES.c.name)
        return [to_use(row) for row in await self._connection.execute(query)]

    async def put_uses(self, uses: Sequence[RunUse]) -> None:
        """Keep what a run used."""
        await self._put(USES, [use_values(use) for use in uses])

    async def next_completion(self, job: str, *, after: int) -> int | None:
        """Return when a job next told all it reads and writes after a time, None = not since."""
        query = select(func.min(RUNS.c.completed_at)).where(self._mine(RUNS, job=job), RUNS.c.completed_at > after)
        found: int | None = (await self._connection.execute(query)).scalar()
        return found

    async def later_uses(self, job: str, *, after: int) -> Sequence[tuple[RunUse, int | None]]:
        """Return what a job's runs used that was told, or completed, at a time or after, with the completion's time."""
        same = and_(USES.c.workspace == RUNS.c.workspace, USES.c.run_id == RUNS.c.run_id)
        query = (
            select(USES, RUNS.c.completed_at)
            .join(RUNS, same)
            .where(self._mine(USES, job=job), or_(USES.c.first_at >= after, RUNS.c.completed_at >= after))
        )
        return [(to_use(row), row.completed_at) for row in await self._connection.execute(query)]

    async def list(self, job: str, *, skip: int, limit: int) -> tuple[Sequence[Run], int]:
        """Return a job's runs, newest first, without facets, and how many there are."""
        query = self._runs().where(RUNS.c.job == job, RUNS.c.state != RunState.DECLARED.value)
        newest = query.order_by(RUNS.c.updated_at.desc(), RUNS.c.run_id.desc())
        rows = await self._connection.execute(newest.offset(skip).limit(limit))
        return [to_run(row) for row in rows], await self._count(query.with_only_columns(RUNS.c.run_id))

    async def of_ids(self, run_ids: Collection[str]) -> Mapping[str, Run]:
        """Return runs by id, without facets."""
        found: dict[str, Run] = {}
        for some in _parts(run_ids):
            rows = await self._connection.execute(self._runs().where(RUNS.c.run_id.in_(some)))
            found.update((row.run_id, to_run(row)) for row in rows)
        return found

    async def receipts(self, jobs: Collection[str], *, until: int, limit: int) -> tuple[Sequence[Run], int]:
        """Return the newest runs of these jobs that made a receipt until a time, and how many there are."""
        found: list[Run] = []
        total = 0
        for some in _parts(jobs):
            made = self._runs().where(RUNS.c.job.in_(some), RUNS.c.receipt_id != "", RUNS.c.updated_at <= until)
            newest = made.order_by(RUNS.c.updated_at.desc(), RUNS.c.run_id.desc()).limit(limit)
            found += [to_run(row) for row in await self._connection.execute(newest)]
            total += await self._count(made.with_only_columns(RUNS.c.run_id))
        found.sort(key=lambda run: (run.updated_at, run.run_id), reverse=True)
        return found[:limit], total

    def _runs(self, *, facets: bool = False) -> Select[Any]:
        columns = [column for column in RUNS.c if facets or not column.name.endswith("_facets")]
        job = and_(NODES.c.workspace == RUNS.c.workspace, NODES.c.node == RUNS.c.job)
        named = select(*columns, NODES.c.namespace, NODES.c.name)
        return named.select_from(RUNS.outerjoin(NODES, job)).where(self._mine(RUNS))


class SqlLineageVersions(_Part):
    """See `store.VersionStore`."""

    async def add(self, version: Version) -> None:
        """Keep a version unless it is kept."""
        await self._add_first(VERSIONS, version_values(version))

    async def list(self, dataset: str, *, version: str, skip: int, limit: int) -> tuple[Sequence[Version], int]:
        """Return a dataset's versions, newest first, or the one named, and how many there are."""
        query = select(VERSIONS).where(self._mine(VERSIONS, dataset=dataset))
        if version:
            query = query.where(VERSIONS.c.version == version)
        newest = query.order_by(VERSIONS.c.created_at.desc(), VERSIONS.c.version)
        rows = await self._connection.execute(newest.offset(skip).limit(limit))
        return [to_version(row) for row in rows], await self._count(query.with_only_columns(VERSIONS.c.version))


class SqlLineageEdges(_Part):
    """See `store.EdgeStore`."""

    async def known(self, edges: Collection[Edge]) -> Mapping[str, Sequence[Span]]:
        """Return what is believed now of each edge, by its key, ascending; none without an entry."""
        found: dict[str, list[Span]] = {}
        for some in _parts([edge.key for edge in edges]):
            query = select(EDGES.c.edge, EDGES.c.valid_from, EDGES.c.valid_to).where(
                self._mine(EDGES), EDGES.c.edge.in_(some), EDGES.c.known_to.is_(None)
            )
            for row in await self._connection.execute(query.order_by(EDGES.c.valid_from)):
                found.setdefault(row.edge, []).append(Span(row.valid_from, row.valid_to))
        return found

    async def of_job(self, job: str, *, at: int, target: str | None = None) -> Sequence[Edge]:
        """Return the uses of a job, or its column edges into a target, that began before a time and go on after it."""
        place = self._going_on(job, at, columns=target is not None)
        if target is not None:
            place = and_(place, EDGES.c.target == target)
        return [to_edge(row) for row in await self._connection.execute(select(EDGES).where(place))]

    async def targets_of_job(self, job: str, *, at: int) -> Collection[str]:
        """Return the datasets into which a job has column edges that began before a time and go on after it."""
        query = select(EDGES.c.target).distinct().where(self._going_on(job, at, columns=True))
        return set((await self._connection.execute(query)).scalars())

    async def believe(self, changes: Sequence[Belief], *, now: int) -> None:
        """Replace what is believed of edges from now on; what is superseded stays, with the time until which it was."""
        rows = []
        for change in changes:
            for span in set(change.before) - set(change.after):
                believed = and_(self._mine(EDGES, edge=change.edge.key), EDGES.c.known_to.is_(None))
                one = and_(believed, EDGES.c.valid_from == span.start)
                # What this very moment taught was never seen.
                await self._connection.execute(delete(EDGES).where(one, EDGES.c.known_from >= now))
                await self._connection.execute(update(EDGES).where(one).values(known_to=now))
            shared = edge_values(change.edge) | {"known_from": now, "known_to": None}
            new = [span for span in change.after if span not in change.before]
            rows += [shared | {"valid_from": span.start, "valid_to": span.end} for span in new]
        await self._add(EDGES, rows)

    async def from_sources(self, nodes: Collection[str], *, columns: bool, as_of: AsOf) -> Sequence[KnownEdge]:
        """Return the uses, or the column edges, that start at any of these nodes, at most `MOST_FOUND`."""
        return await self._at(EDGES.c.source, nodes, columns=columns, as_of=as_of)

    async def into_targets(self, nodes: Collection[str], *, columns: bool, as_of: AsOf) -> Sequence[KnownEdge]:
        """Return the uses, or the column edges, that end at any of these nodes, at most `MOST_FOUND`."""
        return await self._at(EDGES.c.target, nodes, columns=columns, as_of=as_of)

    async def _at(
        self, end: ColumnElement[str], nodes: Collection[str], *, columns: bool, as_of: AsOf
    ) -> Sequence[KnownEdge]:
        valid = and_(EDGES.c.valid_from <= as_of.at, or_(EDGES.c.valid_to.is_(None), EDGES.c.valid_to > as_of.at))
        known = and_(EDGES.c.known_from <= as_of.known, or_(EDGES.c.known_to.is_(None), EDGES.c.known_to > as_of.known))
        found: list[KnownEdge] = []
        for some in _parts(nodes):
            place = and_(self._mine(EDGES), _of_kind(columns=columns), end.in_(some), valid, known)
            order = (EDGES.c.source, EDGES.c.target, EDGES.c.source_field, EDGES.c.target_field, EDGES.c.edge)
            left = MOST_FOUND - len(found)
            rows = await self._connection.execute(select(EDGES).where(place).order_by(*order).limit(left))
            found += [to_known(row) for row in rows]
        return found

    def _going_on(self, job: str, at: int, *, columns: bool) -> ColumnElement[bool]:
        return and_(
            self._mine(EDGES, job=job),
            _of_kind(columns=columns),
            EDGES.c.known_to.is_(None),
            EDGES.c.valid_from < at,
            or_(EDGES.c.valid_to.is_(None), EDGES.c.valid_to > at),
        )


class SqlGovernedColumns(_Part):
    """See `store.ColumnSource`."""

    async def columns(self, dataset: str) -> Sequence[str]:
        """Return the columns of one of our datasets; none when no contract governs it."""
        same = and_(
            COMPILED.c.workspace == GOVERNED.c.workspace,
            COMPILED.c.contract_id == GOVERNED.c.contract_id,
            COMPILED.c.version == GOVERNED.c.version,
            COMPILED.c.dataset == GOVERNED.c.dataset,
        )
        query = select(COMPILED).join(GOVERNED, same).where(self._mine(GOVERNED, dataset=dataset))
        row = (await self._connection.execute(query)).one_or_none()
        return [] if row is None else [column.name for column in to_compiled(row).columns]


class SqlLineageTransactions:
    """See `store.LineageTransactions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def begin(self, workspace: str) -> AsyncIterator[LineageStores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield _stores(connection, workspace)

    @asynccontextmanager
    async def read(self, workspace: str) -> AsyncIterator[LineageStores]:
        """Open a transaction that reads one state."""
        async with self._database.read() as connection:
            yield _stores(connection, workspace)


def _stores(connection: AsyncConnection, workspace: str) -> LineageStores:
    return LineageStores(
        edges=SqlLineageEdges(connection, workspace),
        runs=SqlLineageRuns(connection, workspace),
        nodes=SqlLineageNodes(connection, workspace),
        versions=SqlLineageVersions(connection, workspace),
        events=SqlLineageEvents(connection, workspace),
        columns=SqlGovernedColumns(connection, workspace),
    )


def _of_kind(*, columns: bool) -> ColumnElement[bool]:
    return EDGES.c.kind.in_(_COLUMN_KINDS) if columns else EDGES.c.kind == EdgeKind.USE.value


def _parts(values: Collection[str]) -> Iterator[list[str]]:
    listed = sorted(set(values))
    return (listed[at : at + _AT_ONCE] for at in range(0, len(listed), _AT_ONCE))
