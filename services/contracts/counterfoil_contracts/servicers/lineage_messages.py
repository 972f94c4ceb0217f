"""Lineage as the protos say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil_chassis.clock import from_micros, to_timestamp
from google.protobuf.timestamp_pb2 import Timestamp

from counterfoil_contracts.lineage.entities import (
    EdgeKind,
    Field,
    KnownEdge,
    Name,
    Node,
    NodeKind,
    Role,
    Run,
    RunState,
    RunUse,
    Version,
)
from counterfoil_contracts.lineage.impact import Impact, Reached
from counterfoil_contracts.lineage.sql import Analysis
from counterfoil_contracts.lineage.statements import Statement

KINDS: Final = {NodeKind.DATASET: pb.LineageNode.Kind.DATASET, NodeKind.JOB: pb.LineageNode.Kind.JOB}
_MOST_BYTES: Final = 7 << 20  # of the 8 MiB of a message
_STATES: Final = {
    RunState.NEW: pb.LineageRun.State.NEW,
    RunState.RUNNING: pb.LineageRun.State.RUNNING,
    RunState.COMPLETED: pb.LineageRun.State.COMPLETED,
    RunState.ABORTED: pb.LineageRun.State.ABORTED,
    RunState.FAILED: pb.LineageRun.State.FAILED,
}
_OF_TYPE: Final = {
    "MODEL": pb.ImpactItem.Kind.MODEL_VERSION,
    "AUDIENCE": pb.ImpactItem.Kind.AUDIENCE,
    "GRAPH": pb.ImpactItem.Kind.GRAPH,
}


def to_node(node: Node, *, run: Run | None = None, whole: bool = False) -> pb.LineageNode:
    """Return a node; `whole` with its facets."""
    answer = pb.LineageNode(
        node_id=node.node_id,
        kind=KINDS[node.kind],
        namespace=node.name.namespace,
        name=node.name.name,
        type=node.type,
        description=node.description,
        created_at=_moment(node.created_at),
        updated_at=_moment(node.updated_at),
        fields=[to_field(field) for field in node.fields],
        tags=node.tags,
        version=node.version,
        dropped=node.dropped,
    )
    if whole:
        answer.facets = orjson.dumps(node.facets)
    if run is not None:
        answer.latest_run.CopyFrom(to_run(run))
    return answer


def to_field(field: Field) -> pb.LineageField:
    """Return one field of a dataset."""
    return pb.LineageField(name=field.name, type=field.type, description=field.description, tags=field.tags)


def to_run(run: Run, uses: Sequence[RunUse] = (), *, whole: bool = False) -> pb.LineageRun:
    """Return a run; `whole` with its facets."""
    answer = pb.LineageRun(
        run_id=run.run_id,
        job_namespace="" if run.job_name is None else run.job_name.namespace,
        job_name="" if run.job_name is None else run.job_name.name,
        state=_STATES.get(run.state, pb.LineageRun.State.COMPLETED),
        created_at=_moment(run.created_at),
        updated_at=_moment(run.updated_at),
        started_at=_moment(run.started_at),
        ended_at=_moment(run.ended_at),
        nominal_start_at=_moment(run.nominal_start),
        nominal_end_at=_moment(run.nominal_end),
        receipt_id=run.receipt_id,
        parent_run_id=run.parent_run_id,
        inputs=[_to_use(use) for use in uses if use.role is Role.INPUT],
        outputs=[_to_use(use) for use in uses if use.role is Role.OUTPUT],
    )
    if whole:
        answer.run_facets = orjson.dumps(run.run_facets)
        answer.job_facets = orjson.dumps(run.job_facets)
    return answer


def to_version(version: Version) -> pb.DatasetVersion:
    """Return a dataset's version."""
    return pb.DatasetVersion(
        version=version.version,
        stated_version=version.stated,
        fields=[to_field(field) for field in version.fields],
        facets=orjson.dumps(version.facets),
        created_at=_moment(version.created_at),
        run_id=version.run_id,
        lifecycle_state=version.lifecycle,
    )


def to_edge(known: KnownEdge, nodes: Mapping[str, Node]) -> pb.LineageEdge:
    """Return an edge between a job and a dataset."""
    return pb.LineageEdge(
        source=nodes[known.edge.source].node_id,
        target=nodes[known.edge.target].node_id,
        valid_from=_moment(known.span.start),
        valid_to=_moment(known.span.end),
        known_from=_moment(known.known_from),
    )


def to_column_edge(known: KnownEdge, nodes: Mapping[str, Node]) -> pb.ColumnEdge:
    """Return an edge between two fields."""
    edge = known.edge
    job = nodes.get(edge.job)
    told = job is not None and job.kind is NodeKind.JOB
    return pb.ColumnEdge(
        source=_column(nodes[edge.source].name, edge.source_field),
        target=_column(nodes[edge.target].name, edge.target_field),
        job_namespace=job.name.namespace if told and job is not None else "",
        job_name=job.name.name if told and job is not None else "",
        kind=pb.ColumnEdge.Kind.INDIRECT if edge.kind is EdgeKind.INDIRECT else pb.ColumnEdge.Kind.DIRECT,
        subtype=edge.subtype,
        description=edge.description,
        masking=edge.masking,
        valid_from=_moment(known.span.start),
        valid_to=_moment(known.span.end),
        known_from=_moment(known.known_from),
    )


def to_analysis(analysis: Analysis, statement: Statement) -> pb.AnalyzeSqlResponse:
    """Return what a statement reads and writes."""
    written = statement.name_of(analysis.output) if analysis.output else Name("", "")
    origins = [(origin, column) for column, found in analysis.columns.items() for origin in found]
    edges = [
        pb.ColumnEdge(
            source=_column(statement.name_of(origin.table), "" if origin.column == "*" else origin.column),
            target=_column(written, "" if column == "*" else column),
            kind=pb.ColumnEdge.Kind.DIRECT if origin.direct else pb.ColumnEdge.Kind.INDIRECT,
            subtype=origin.subtype,
            description=origin.description,
            masking=origin.masking,
        )
        for origin, column in [*origins, *((origin, "") for origin in analysis.rows)]
    ]
    return pb.AnalyzeSqlResponse(
        inputs=[to_name(statement.name_of(table)) for table in analysis.inputs],
        outputs=[to_name(written)] if analysis.output else [],
        edges=edges,
        columns=list(analysis.columns),
    )


def to_impact(impact: Impact, changed: Iterable[tuple[Name, str]]) -> pb.Impact:
    """Return what a change reaches."""
    answer = pb.Impact(
        changed=[_column(name, field) for name, field in changed],
        receipts_total=impact.receipts_total,
        receipts=[
            pb.ImpactReceipt(
                receipt_id=run.receipt_id,
                job="" if run.job_name is None else run.job_name.name,
                made_at=_moment(run.updated_at),
            )
            for run in impact.receipts
        ],
        truncated=impact.truncated,
    )
    size = answer.ByteSize()
    for item in (item for each in impact.reached for item in _items(each, impact)):
        size += item.ByteSize() + 8
        if size > _MOST_BYTES:
            answer.truncated = True
            break
        answer.items.append(item)
    return answer


def to_name(name: Name) -> pb.DatasetName:
    """Return a dataset's name."""
    return pb.DatasetName(namespace=name.namespace, name=name.name)


def _items(reached: Reached, impact: Impact) -> list[pb.ImpactItem]:
    node = impact.nodes[reached.key]
    through = impact.nodes.get(reached.through)
    kind = pb.ImpactItem.Kind.JOB
    if node.kind is NodeKind.DATASET:
        kind = _OF_TYPE.get(node.type, pb.ImpactItem.Kind.DATASET)
    item = pb.ImpactItem(
        kind=kind,
        node_id=node.node_id,
        name=node.name.name,
        fields=[] if "" in reached.fields else sorted(reached.fields),
        distance=reached.distance,
        through="" if through is None else through.name.name,
        assumed=reached.assumed,
    )
    stated = [version.stated for version in impact.versions.get(reached.key, ()) if version.stated]
    if not stated:
        return [item]
    return [_of_version(item, version) for version in stated]


def _of_version(item: pb.ImpactItem, version: str) -> pb.ImpactItem:
    copy = pb.ImpactItem()
    copy.CopyFrom(item)
    copy.version = version
    return copy


def _to_use(use: RunUse) -> pb.RunDataset:
    return pb.RunDataset(
        namespace=use.dataset.namespace,
        name=use.dataset.name,
        version=use.version,
        facets=orjson.dumps(use.facets),
    )


def _column(name: Name, field: str) -> pb.ColumnName:
    return pb.ColumnName(namespace=name.namespace, dataset=name.name, field=field)


def _moment(us: int | None) -> Timestamp | None:
    return None if us is None else to_timestamp(from_micros(us))
