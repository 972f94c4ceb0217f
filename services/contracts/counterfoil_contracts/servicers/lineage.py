"""LineageService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import grpc
import orjson
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil.contracts.v1.lineage_pb2_grpc import LineageServiceServicer
from counterfoil_chassis.clock import Clock, from_micros, from_timestamp, to_micros, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import DEFAULT_LIMIT, Pager
from counterfoil_chassis.worker import Worker
from google.protobuf.message import Message

from counterfoil_contracts.contracts import get_version
from counterfoil_contracts.errors import (
    ImpactUnclearError,
    LineageNodeNotFoundError,
    LineageRunNotFoundError,
    SqlUnreadableError,
)
from counterfoil_contracts.lineage import impact, keeping, sql, statements
from counterfoil_contracts.lineage.entities import OURS, AsOf, KnownEdge, Name, Node, NodeKind, Run, Told
from counterfoil_contracts.lineage.events import EventRefusedError, read_event
from counterfoil_contracts.lineage.schemas import changed_fields
from counterfoil_contracts.lineage.store import LineageStores, LineageTransactions
from counterfoil_contracts.lineage.walking import Direction, walk, walk_columns
from counterfoil_contracts.servicers.lineage_messages import (
    to_analysis,
    to_column_edge,
    to_edge,
    to_impact,
    to_name,
    to_node,
    to_run,
    to_version,
)
from counterfoil_contracts.shipping import Shipping
from counterfoil_contracts.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]

HOUR: Final = 3_600_000_000
LATEST: Final = 253_402_300_799_999_999
"""What is valid and known without end: the last microsecond of the year 9999."""

_AT_ONCE: Final = 50  # events of one transaction
_FIELD_BYTES: Final = 1 << 20
_ANSWER_BYTES: Final = 7 << 20  # of the 8 MiB of a message
_DIRECTIONS: Final = {
    pb.GetLineageRequest.Direction.DIRECTION_UNSPECIFIED: Direction.BOTH,
    pb.GetLineageRequest.Direction.UPSTREAM: Direction.UPSTREAM,
    pb.GetLineageRequest.Direction.DOWNSTREAM: Direction.DOWNSTREAM,
}
_KINDS: Final = {pb.LineageNode.Kind.DATASET: NodeKind.DATASET, pb.LineageNode.Kind.JOB: NodeKind.JOB}


class LineageServicer(LineageServiceServicer):
    """Serves the lineage of the caller's workspace; `worker` reads SQL, one statement at a time."""

    def __init__(
        self,
        lineage: LineageTransactions,
        *,
        contracts: Transactions,
        shipping: Shipping,
        worker: Worker,
        pager: Pager,
        clock: Clock,
    ) -> None:
        self._lineage = lineage
        self._contracts = contracts
        self._shipping = shipping
        self._worker = worker
        self._pager = pager
        self._clock = clock

    async def EmitLineage(self, request: pb.EmitLineageRequest, context: Context) -> pb.EmitLineageResponse:
        """Keep OpenLineage events, each alone."""
        caller = current_caller()
        results = [pb.LineageResult() for _ in request.events]
        read: dict[str, list[Told]] = {}
        outcomes = await asyncio.to_thread(_read_all, [each.event for each in request.events])
        for event, outcome, result in zip(request.events, outcomes, results, strict=True):
            if isinstance(outcome, EventRefusedError):
                result.reason, result.path, result.detail = outcome.reason, outcome.path, outcome.detail
            else:
                read.setdefault(event.workspace if caller.service else caller.workspace, []).append(outcome)
        for workspace, events in read.items():
            told = [await self._with_links(workspace, each) for each in events]
            for some in _parts(told):
                async with self._lineage.begin(workspace) as stores:
                    for each in some:
                        await keeping.keep(stores, each, now=to_micros(self._clock.now()))
        return pb.EmitLineageResponse(results=results)

    async def GetImpact(self, request: pb.GetImpactRequest, context: Context) -> pb.Impact:
        """Say what a change of a dataset's fields, or of a contract, reaches."""
        workspace = await self._workspace()
        if bool(request.dataset) == bool(request.contract_id):
            raise ImpactUnclearError("Name either a dataset, with or without fields, or a contract.")
        if request.contract_id:
            changed = await self._changed_by_contract(workspace, request)
        else:
            name = Name(request.namespace or OURS, request.dataset)
            changed = [(name, field) for field in dict.fromkeys(request.fields) or ("",)]
        async with self._lineage.read(workspace) as stores:
            if request.dataset:
                await _require(stores, changed[0][0])
            found = await impact.impact(
                stores, changed, as_of=_as_of(request), receipts=request.receipts or DEFAULT_LIMIT
            )
        return to_impact(found, changed)

    async def GetLineage(self, request: pb.GetLineageRequest, context: Context) -> pb.LineageGraph:
        """Walk from a dataset or a job."""
        async with self._lineage.read(current_caller().workspace) as stores:
            start = await stores.nodes.find(request.node_id)
            if start is None:
                raise _unknown(request.node_id)
            walked = await walk(
                stores,
                start,
                depth=request.depth,
                direction=_DIRECTIONS[request.direction],
                as_of=_as_of(request),
            )
            runs = await stores.runs.of_ids([node.latest_run for node in walked.nodes if node.latest_run])
        nodes = {node.key: node for node in walked.nodes}
        answer = pb.LineageGraph(nodes=_shown(walked.nodes, runs), truncated=walked.truncated)
        ends = [each for each in walked.edges if each.edge.source in nodes and each.edge.target in nodes]
        answer.truncated |= not _fill(answer, answer.edges, (to_edge(each, nodes) for each in ends))
        return answer

    async def GetColumnLineage(self, request: pb.GetColumnLineageRequest, context: Context) -> pb.ColumnLineage:
        """Walk from a dataset or one of its fields along what is computed from what."""
        name = Name(request.namespace or OURS, request.dataset)
        async with self._lineage.read(await self._workspace()) as stores:
            await _require(stores, name)
            walked = await walk_columns(
                stores,
                (name.dataset, request.field),
                depth=request.depth,
                direction=_DIRECTIONS[request.direction],
                as_of=_as_of(request),
            )
            nodes = await _nodes_of(stores, walked.edges)
        answer = pb.ColumnLineage(truncated=walked.truncated)
        answer.truncated |= not _fill(answer, answer.edges, (to_column_edge(each, nodes) for each in walked.edges))
        return answer

    async def ListLineageNodes(
        self, request: pb.ListLineageNodesRequest, context: Context
    ) -> pb.ListLineageNodesResponse:
        """List or search datasets and jobs, by name."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListLineageNodes", workspace=workspace)
        after = None if page.after is None else (page.after[0], page.after[1], page.after[2])
        async with self._lineage.read(workspace) as stores:
            found, total = await stores.nodes.list(
                kind=_KINDS.get(request.kind),
                namespace=request.namespace,
                query=request.query,
                after=after,
                skip=0 if page.after else request.skip,
                limit=page.limit + 1,
            )
            runs = await stores.runs.of_ids([node.latest_run for node in found if node.latest_run])
        kept = found[: page.limit]
        answer = pb.ListLineageNodesResponse(nodes=_shown(kept, runs), total_size=total)
        if len(found) > page.limit:
            last = kept[-1]
            place = [last.name.namespace, last.name.name, last.kind.value]
            answer.next_page_token = self._pager.token(
                request, method="ListLineageNodes", workspace=workspace, after=place
            )
        return answer

    async def AnalyzeSql(self, request: pb.AnalyzeSqlRequest, context: Context) -> pb.AnalyzeSqlResponse:
        """Say which columns an SQL statement reads for each that it writes."""
        workspace = await self._workspace()
        statement = statements.Statement(request.sql, request.dialect, request.namespace or OURS, ())
        tables = await self._worker.run(sql.tables, request.sql, dialect=request.dialect)
        async with self._lineage.read(workspace) as stores:
            known = await statements.known_columns(stores, statement, tables)
        return to_analysis(await self._worker.run(statements.analyze_statement, statement, known), statement)

    async def GetLineageNode(self, request: pb.GetLineageNodeRequest, context: Context) -> pb.LineageNode:
        """Return one dataset or job with its facets."""
        name, kind = Name(request.namespace, request.name), _KINDS.get(request.kind, NodeKind.DATASET)
        key = name.job if kind is NodeKind.JOB else name.dataset
        as_of = AsOf(LATEST, LATEST)
        async with self._lineage.read(current_caller().workspace) as stores:
            node = (await stores.nodes.get([key])).get(key)
            if node is None:
                raise _unknown(f"{kind.value}:{name.namespace}:{name.name}")
            run = (await stores.runs.of_ids([node.latest_run])).get(node.latest_run)
            answer = to_node(node, run=run, whole=True)
            if kind is NodeKind.JOB:
                read = await stores.edges.into_targets([key], columns=False, as_of=as_of)
                written = await stores.edges.from_sources([key], columns=False, as_of=as_of)
                nodes = await _nodes_of(stores, [*read, *written])
                answer.inputs.extend(to_name(nodes[each.edge.source].name) for each in read)
                answer.outputs.extend(to_name(nodes[each.edge.target].name) for each in written)
        return answer

    async def ListLineageNamespaces(
        self, request: pb.ListLineageNamespacesRequest, context: Context
    ) -> pb.ListLineageNamespacesResponse:
        """List the namespaces that datasets and jobs were named in."""
        async with self._lineage.read(current_caller().workspace) as stores:
            found = await stores.nodes.namespaces(limit=1000)
        return pb.ListLineageNamespacesResponse(
            namespaces=[
                pb.LineageNamespace(
                    name=name,
                    created_at=to_timestamp(from_micros(created_at)),
                    updated_at=to_timestamp(from_micros(updated_at)),
                )
                for name, created_at, updated_at in found
            ]
        )

    async def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: Context
    ) -> pb.ListDatasetVersionsResponse:
        """List a dataset's versions, newest first."""
        name = Name(request.namespace, request.name)
        async with self._lineage.read(current_caller().workspace) as stores:
            if name.dataset not in await stores.nodes.get([name.dataset]):
                raise _unknown(f"dataset:{name.namespace}:{name.name}")
            found, total = await stores.versions.list(
                name.dataset, version=request.version, skip=request.skip, limit=request.page_size or DEFAULT_LIMIT
            )
        answer = pb.ListDatasetVersionsResponse(total_size=total)
        _fill(answer, answer.versions, (to_version(version) for version in found))
        return answer

    async def ListLineageRuns(self, request: pb.ListLineageRunsRequest, context: Context) -> pb.ListLineageRunsResponse:
        """List a job's runs, newest first."""
        name = Name(request.namespace, request.name)
        async with self._lineage.read(current_caller().workspace) as stores:
            if name.job not in await stores.nodes.get([name.job]):
                raise _unknown(f"job:{name.namespace}:{name.name}")
            runs, total = await stores.runs.list(name.job, skip=request.skip, limit=request.page_size or DEFAULT_LIMIT)
        return pb.ListLineageRunsResponse(runs=[to_run(run) for run in runs], total_size=total)

    async def GetLineageRun(self, request: pb.GetLineageRunRequest, context: Context) -> pb.LineageRun:
        """Return one run with its facets, inputs and outputs."""
        async with self._lineage.read(current_caller().workspace) as stores:
            run = await stores.runs.get(request.run_id.lower())
            if run is None:
                raise LineageRunNotFoundError(
                    f"No event named the run {request.run_id!r}.", metadata={"run_id": request.run_id}
                )
            return to_run(run, await stores.runs.uses(run.run_id), whole=True)

    async def ListLineageEvents(
        self, request: pb.ListLineageEventsRequest, context: Context
    ) -> pb.ListLineageEventsResponse:
        """List events as they came, by event time."""
        async with self._lineage.read(current_caller().workspace) as stores:
            found, total = await stores.events.list(
                after=_micros(request, "after"),
                before=_micros(request, "before"),
                oldest_first=request.oldest_first,
                skip=request.skip,
                limit=request.page_size or DEFAULT_LIMIT,
            )
        answer = pb.ListLineageEventsResponse(total_size=total)
        _fill(answer, answer.events, (pb.LineageEvent(event=payload) for payload in found))
        return answer

    async def GetLineageStats(self, request: pb.GetLineageStatsRequest, context: Context) -> pb.LineageStats:
        """Count run events by the hour."""
        hours = request.hours or 24
        now = to_micros(self._clock.now())
        first = now - now % HOUR - (hours - 1) * HOUR
        async with self._lineage.read(current_caller().workspace) as stores:
            counted = await stores.events.count_by_hour(since=first)
            nodes = await stores.nodes.counts()
        by = {(hour, event_type): count for hour, event_type, count in counted}
        starts = range(first, now + 1, HOUR)
        return pb.LineageStats(
            hours=[
                pb.LineageHour(
                    start_at=to_timestamp(from_micros(start)),
                    started=by.get((start, "START"), 0),
                    completed=by.get((start, "COMPLETE"), 0),
                    failed=by.get((start, "FAIL"), 0),
                    aborted=by.get((start, "ABORT"), 0),
                )
                for start in starts
            ],
            datasets=nodes.get(NodeKind.DATASET, 0),
            jobs=nodes.get(NodeKind.JOB, 0),
        )

    async def _with_links(self, workspace: str, told: Told) -> Told:
        """Return an event with what its SQL says of columns; one whose SQL cannot be read is kept as it is."""
        statement = statements.statement_of(told)
        if statement is None:
            return told
        try:
            tables = await self._worker.run(sql.tables, statement.sql, dialect=statement.dialect)
        except SqlUnreadableError:
            return told
        async with self._lineage.read(workspace) as stores:
            known = await statements.known_columns(stores, statement, tables, (*told.inputs, *told.outputs))
        return await self._worker.run(statements.with_links, told, statement, known)

    async def _changed_by_contract(self, workspace: str, request: pb.GetImpactRequest) -> list[tuple[Name, str]]:
        async with self._contracts.read() as stores:
            contract = await stores.contracts.get(workspace, request.contract_id)
            place = {"workspace": workspace, "contract_id": request.contract_id}
            active = await get_version(stores, **place, version=contract.active_version or contract.latest_version)
            wanted = await get_version(stores, **place, version=request.version) if request.version else None
        if wanted is None:
            return [(Name(OURS, dataset), "") for dataset in active.datasets]
        new = {compiled.dataset: orjson.loads(compiled.json_schema) for compiled in wanted.compiled}
        changed: list[tuple[Name, str]] = []
        for compiled in active.compiled:
            name = Name(OURS, compiled.dataset)
            if compiled.dataset not in new:
                changed.append((name, ""))
                continue
            old = orjson.loads(compiled.json_schema)
            changed += [(name, field) for field in changed_fields(old, new[compiled.dataset])]
        return changed

    async def _workspace(self) -> str:
        """Return the caller's workspace once it has the shipped contracts."""
        workspace = current_caller().workspace
        await self._shipping.ensure(workspace)
        return workspace


def _read_all(events: Iterable[bytes]) -> list[Told | EventRefusedError]:
    found: list[Told | EventRefusedError] = []
    for event in events:
        try:
            found.append(read_event(event))
        except EventRefusedError as refused:
            found.append(refused)
    return found


def _parts(told: Sequence[Told]) -> Iterable[Sequence[Told]]:
    return (told[at : at + _AT_ONCE] for at in range(0, len(told), _AT_ONCE))


def _shown(nodes: Iterable[Node], runs: Mapping[str, Run]) -> list[pb.LineageNode]:
    """Return nodes with their newest runs, and with fields as long as these have room in an answer."""
    found, size = [], 0
    for node in nodes:
        shown = to_node(node, run=runs.get(node.latest_run))
        size += shown.ByteSize()
        if size > _FIELD_BYTES:
            shown.ClearField("fields")
        found.append(shown)
    return found


def _fill(answer: Message, into: Any, items: Iterable[Message]) -> bool:
    """Add items to an answer as long as they have room in it; say whether all had."""
    size = answer.ByteSize()
    for item in items:
        size += item.ByteSize() + 8
        if size > _ANSWER_BYTES:
            return False
        into.append(item)
    return True


def _as_of(request: Any) -> AsOf:
    at, known = _micros(request, "as_of"), _micros(request, "known_at")
    return AsOf(LATEST if at is None else at, LATEST if known is None else known)


def _micros(request: Any, field: str) -> int | None:
    return to_micros(from_timestamp(getattr(request, field))) if request.HasField(field) else None


async def _require(stores: LineageStores, name: Name) -> None:
    """Raise LineageNodeNotFoundError for a dataset that neither an event nor a contract names."""
    if name.dataset in await stores.nodes.get([name.dataset]):
        return
    if name.namespace != OURS or not await stores.columns.columns(name.name):
        raise _unknown(f"dataset:{name.namespace}:{name.name}")


async def _nodes_of(stores: LineageStores, edges: Iterable[KnownEdge]) -> dict[str, Node]:
    keys = {key for each in edges for key in (each.edge.source, each.edge.target, each.edge.job)}
    return dict(await stores.nodes.get(keys))


def _unknown(node_id: str) -> LineageNodeNotFoundError:
    return LineageNodeNotFoundError(
        f"No event named {node_id!r}. List the nodes to find it.", metadata={"node_id": node_id[:200]}
    )
