"""Keeps what an event tells: nodes, the run with what it used, versions of datasets, and edges in two times."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import orjson

from counterfoil_contracts.lineage import timeline
from counterfoil_contracts.lineage.entities import (
    Belief,
    ColumnLink,
    Edge,
    EdgeKind,
    Name,
    Node,
    NodeKind,
    Role,
    Run,
    RunState,
    RunUse,
    Told,
    ToldDataset,
    Version,
    uuid_of,
)
from counterfoil_contracts.lineage.events import schema_fields, time_of
from counterfoil_contracts.lineage.store import LineageStores

RECEIPT: Final = "counterfoil_receipt"
"""Our own run facet: the receipt of the output that the run made."""

MOST_FACETS: Final = 100
"""Facets that are kept of a node or a run: what comes later under other names is in the events alone."""

_LONGEST_TEXT: Final = 1000


async def keep(stores: LineageStores, told: Told, *, now: int) -> bool:
    """Keep an event with all that follows from it; False = it was kept before, and nothing changed."""
    if not await stores.events.add(told, now=now):
        return False
    before = await stores.runs.get(told.run_id)
    earlier = await stores.runs.uses(told.run_id) if before is not None else ()
    run = _run(told, before)
    uses = await _uses(stores, told, run, earlier)
    versions = {use.dataset: use.version for use in uses.values() if use.version}
    await stores.nodes.put(await _nodes(stores, told, run, versions))
    await stores.runs.put(run)
    await stores.runs.put_uses(list(uses.values()))
    edges = _edges(uses.values())
    await _tell(stores, run, edges, at=told.at, now=now)
    everything = {**{(use.role, use.dataset): use for use in earlier}, **uses}
    if run.state.complete and everything and run.ended_at is not None:
        if len(everything) > len(uses) or run.ended_at != told.at:
            edges = _edges(everything.values())
            await _tell(stores, run, edges, at=run.ended_at, now=now)
        await _leave_out(stores, run, everything.values(), edges.keys(), at=run.ended_at, now=now)
    return True


def use_edge(use: RunUse) -> Edge:
    """Return the edge between a job and a dataset that it used."""
    dataset = use.dataset.dataset
    if use.role is Role.INPUT:
        return Edge(use.job, EdgeKind.USE, source=dataset, target=use.job)
    return Edge(use.job, EdgeKind.USE, source=use.job, target=dataset)


def column_edge(job: str, link: ColumnLink, target: Name) -> Edge:
    """Return the edge that a link makes into an output."""
    return Edge(
        job=job,
        kind=EdgeKind.DIRECT if link.direct else EdgeKind.INDIRECT,
        source=link.source.dataset,
        target=target.dataset,
        source_field=link.source_field,
        target_field=link.target_field,
        subtype=link.subtype,
        description=link.description,
        masking=link.masking,
    )


def edges_of(use: RunUse) -> list[Edge]:
    """Return every edge that a run's use of a dataset tells; one that says it of itself is used by no job."""
    columns = [column_edge(use.job, link, use.dataset) for link in use.columns or ()]
    return columns if use.job == use.dataset.dataset else [use_edge(use), *columns]


def _edges(uses: Iterable[RunUse]) -> dict[str, Edge]:
    return {edge.key: edge for use in uses for edge in edges_of(use)}


async def _tell(stores: LineageStores, run: Run, edges: Mapping[str, Edge], *, at: int, now: int) -> None:
    known = await stores.edges.known(list(edges.values()))
    following = await stores.runs.next_completion(run.job, after=at)
    changes = []
    for key, edge in edges.items():
        before = known.get(key, ())
        after = timeline.told(before, at=at, next_completion=following)
        if after != list(before):
            changes.append(Belief(edge, before, after))
    await stores.edges.believe(changes, now=now)


async def _leave_out(
    stores: LineageStores, run: Run, uses: Iterable[RunUse], kept: Collection[str], *, at: int, now: int
) -> None:
    """End what a completed run no longer tells: uses, and what is made of what in outputs whose fields it tells."""
    over = list(await stores.edges.of_job(run.job, at=at))
    outputs = {use.dataset.dataset: use for use in uses if use.role is Role.OUTPUT}
    for target in await stores.edges.targets_of_job(run.job, at=at):
        written = outputs.get(target)
        if written is None or written.columns is not None:
            over += await stores.edges.of_job(run.job, at=at, target=target)
    over = [edge for edge in over if edge.key not in kept]
    if not over:
        return
    again: dict[str, list[int]] = {}
    for use, completed_at in await stores.runs.later_uses(run.job, after=at):
        moments = [moment for moment in (use.first_at, completed_at) if moment is not None and moment >= at]
        for edge in edges_of(use):
            again.setdefault(edge.key, []).extend(moments)
    known = await stores.edges.known(over)
    changes = []
    for edge in over:
        told_again = min(again.get(edge.key, ()), default=None)
        after = timeline.left_out(known[edge.key], at=at, told_again=told_again)
        changes.append(Belief(edge, known[edge.key], after))
    await stores.edges.believe(changes, now=now)


def _run(told: Told, before: Run | None) -> Run:
    """Return the run as it is after an event; a run that ended is never said to go on."""
    parent = (told.run_facets.get("parent") or {}).get("run") or {}
    nominal = told.run_facets.get("nominalTime") or {}
    receipt = told.run_facets.get(RECEIPT) or {}
    if before is None:
        job = told.outputs[0].name.dataset if told.job is None else told.job.job
        before = Run(told.run_id, job, told.job, RunState.NEW, created_at=told.at, updated_at=told.at)
    newer = told.at >= before.updated_at
    state = _state(before, told, newer=newer)
    started = told.at if told.event_type == "START" else before.started_at
    if before.started_at is not None and started is not None:
        started = min(started, before.started_at)
    return replace(
        before,
        state=state,
        created_at=min(before.created_at, told.at),
        updated_at=max(before.updated_at, told.at),
        started_at=started,
        ended_at=told.at if told.state.ended and state is told.state else before.ended_at,
        nominal_start=time_of(nominal.get("nominalStartTime")) or before.nominal_start,
        nominal_end=time_of(nominal.get("nominalEndTime")) or before.nominal_end,
        receipt_id=_text(receipt.get("receiptId")) or before.receipt_id,
        parent_run_id=_text(parent.get("runId")) or before.parent_run_id,
        run_facets=_merged(before.run_facets, told.run_facets, newer=newer),
        job_facets=_merged(before.job_facets, told.job_facets, newer=newer),
    )


def _state(before: Run, told: Told, *, newer: bool) -> RunState:
    if told.state is RunState.NEW:
        return before.state
    if before.state is RunState.NEW or (told.state.ended and not before.state.ended):
        return told.state
    return told.state if newer and (told.state.ended or not before.state.ended) else before.state


async def _uses(
    stores: LineageStores, told: Told, run: Run, earlier_uses: Sequence[RunUse]
) -> dict[tuple[Role, Name], RunUse]:
    """Return what the event adds to a run's uses, each with what earlier events told of it; keep new versions."""
    before = {(use.role, use.dataset): use for use in earlier_uses}
    known = await stores.nodes.get([each.name.dataset for each in (*told.inputs, *told.outputs)])
    found: dict[tuple[Role, Name], RunUse] = {}
    for role, datasets in ((Role.INPUT, told.inputs), (Role.OUTPUT, told.outputs)):
        for each in datasets:
            version = await _version(stores, told, each, known.get(each.name.dataset), role)
            earlier = found.get((role, each.name)) or before.get((role, each.name))
            use = RunUse(
                run_id=run.run_id,
                job=run.job,
                role=role,
                dataset=each.name,
                version=version,
                facets=each.role_facets,
                columns=each.columns,
                first_at=told.at,
            )
            found[role, each.name] = use if earlier is None else _joined(earlier, use)
    return found


def _joined(earlier: RunUse, use: RunUse) -> RunUse:
    columns = use.columns
    if earlier.columns is not None:
        columns = tuple(dict.fromkeys((*earlier.columns, *(use.columns or ()))))
    return replace(
        use,
        version=use.version or earlier.version,
        facets={**earlier.facets, **use.facets},
        columns=columns,
        first_at=min(earlier.first_at, use.first_at),
    )


async def _version(stores: LineageStores, told: Told, each: ToldDataset, known: Node | None, role: Role) -> str:
    """Return the version an event names, kept if it is new; without a word on it, it is the newest known, or none."""
    stated = _text((each.facets.get("version") or {}).get("datasetVersion"))
    lifecycle = _text((each.facets.get("lifecycleStateChange") or {}).get("lifecycleStateChange"))
    fields = schema_fields(each.facets)
    if not (stated or lifecycle or fields):
        return "" if known is None else known.version
    if not fields and known is not None:
        fields = known.fields
    shape = orjson.dumps([[field.name, field.type] for field in fields]).decode()
    version = Version(
        dataset=each.name.dataset,
        version=uuid_of("version", each.name.namespace, each.name.name, stated, lifecycle, shape),
        stated=stated,
        fields=fields,
        facets=each.facets,
        created_at=told.at,
        run_id=told.run_id if role is Role.OUTPUT and told.state is not RunState.DECLARED else "",
        lifecycle=lifecycle,
    )
    await stores.versions.add(version)
    return version.version


async def _nodes(stores: LineageStores, told: Told, run: Run, versions: Mapping[Name, str]) -> list[Node]:
    """Return the job and the datasets as they are after an event, with every dataset that its columns come from."""
    facets: dict[Name, dict[str, Any]] = {}
    for each in (*told.inputs, *told.outputs):
        facets.setdefault(each.name, {}).update(each.facets)
        for link in each.columns or ():
            facets.setdefault(link.source, {})
    keys = [name.dataset for name in facets]
    known = await stores.nodes.get(keys if told.job is None else [*keys, told.job.job])
    nodes = []
    for name, some in facets.items():
        node = _node(NodeKind.DATASET, name, known.get(name.dataset), some, at=told.at)
        if name in versions and (told.at >= node.updated_at or not node.version):
            node = replace(node, version=versions[name])
        nodes.append(node)
    if told.job is not None:
        job = _node(NodeKind.JOB, told.job, known.get(told.job.job), told.job_facets, at=told.at)
        if told.state is not RunState.DECLARED and told.at >= job.updated_at:
            job = replace(job, latest_run=run.run_id)
        nodes.append(job)
    return nodes


def _node(kind: NodeKind, name: Name, known: Node | None, facets: Mapping[str, Any], *, at: int) -> Node:
    key = name.dataset if kind is NodeKind.DATASET else name.job
    before = known or Node(key, kind, name, "", "", at, at, {}, (), ())
    newer = at >= before.updated_at
    merged = _merged(before.facets, facets, newer=newer)
    about = merged.get("documentation") or {}
    lifecycle = (merged.get("lifecycleStateChange") or {}).get("lifecycleStateChange", "")
    tags = (merged.get("tags") or {}).get("tags") or ()
    return replace(
        before,
        type=_type(kind, merged),
        description=_text(about.get("description")),
        created_at=min(before.created_at, at),
        updated_at=max(before.updated_at, at),
        facets=merged,
        fields=schema_fields(merged) if kind is NodeKind.DATASET else (),
        tags=tuple(dict.fromkeys(_text(tag["key"]) for tag in tags if not tag.get("field"))),
        dropped=lifecycle == "DROP",
    )


def _type(kind: NodeKind, facets: Mapping[str, Any]) -> str:
    if kind is NodeKind.DATASET:
        told = (facets.get("datasetType") or {}).get("datasetType")
        return _text(told).upper() or "TABLE"
    told = (facets.get("jobType") or {}).get("processingType")
    return "STREAM" if _text(told).upper().startswith("STREAM") else "BATCH"


def _merged(before: Mapping[str, Any], told: Mapping[str, Any], *, newer: bool) -> dict[str, Any]:
    """Return facets with those of an event; an older event adds only what was not told, `_deleted` takes one away."""
    merged = {**before, **told} if newer else {**told, **before}
    kept = {name: facet for name, facet in merged.items() if facet.get("_deleted") is not True}
    return dict(islice(kept.items(), MOST_FACETS))


def _text(value: Any) -> str:
    """Return a facet's text as a store can keep it."""
    return value.replace("\0", "")[:_LONGEST_TEXT] if isinstance(value, str) else ""
