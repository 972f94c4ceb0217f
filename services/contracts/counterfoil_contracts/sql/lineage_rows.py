"""Rows of lineage as entities, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row

from counterfoil_contracts.lineage.entities import (
    ColumnLink,
    Edge,
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
    Span,
    Version,
)


def node_values(node: Node) -> dict[str, Any]:
    """Return a node's row."""
    return {
        "node": node.key,
        "kind": node.kind.value,
        "namespace": node.name.namespace,
        "name": node.name.name,
        "node_id": node.node_id,
        "type": node.type,
        "description": node.description,
        "created_at": node.created_at,
        "updated_at": node.updated_at,
        "facets": orjson.dumps(node.facets),
        "fields": _dump_fields(node.fields),
        "tags": orjson.dumps(node.tags),
        "version": node.version,
        "latest_run": node.latest_run,
        "dropped": node.dropped,
    }


def to_node(row: Row[Any]) -> Node:
    """Return the node of a row, with facets where the row has them."""
    return Node(
        key=row.node,
        kind=NodeKind(row.kind),
        name=Name(row.namespace, row.name),
        type=row.type,
        description=row.description,
        created_at=row.created_at,
        updated_at=row.updated_at,
        facets=orjson.loads(row.facets) if "facets" in row._fields else {},
        fields=_load_fields(row.fields),
        tags=tuple(orjson.loads(row.tags)),
        version=row.version,
        latest_run=row.latest_run,
        dropped=row.dropped,
    )


def run_values(run: Run) -> dict[str, Any]:
    """Return a run's row."""
    return {
        "run_id": run.run_id,
        "job": run.job,
        "state": run.state.value,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "completed_at": run.ended_at if run.state.complete else None,
        "nominal_start": run.nominal_start,
        "nominal_end": run.nominal_end,
        "receipt_id": run.receipt_id,
        "parent_run_id": run.parent_run_id,
        "run_facets": orjson.dumps(run.run_facets),
        "job_facets": orjson.dumps(run.job_facets),
    }


def to_run(row: Row[Any]) -> Run:
    """Return the run of a row joined with its job's names, with facets where the row has them."""
    return Run(
        run_id=row.run_id,
        job=row.job,
        job_name=None if row.namespace is None else Name(row.namespace, row.name),
        state=RunState(row.state),
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        nominal_start=row.nominal_start,
        nominal_end=row.nominal_end,
        receipt_id=row.receipt_id,
        parent_run_id=row.parent_run_id,
        run_facets=orjson.loads(row.run_facets) if "run_facets" in row._fields else {},
        job_facets=orjson.loads(row.job_facets) if "job_facets" in row._fields else {},
    )


def use_values(use: RunUse) -> dict[str, Any]:
    """Return the row of a dataset that a run used."""
    return {
        "run_id": use.run_id,
        "role": use.role.value,
        "dataset": use.dataset.dataset,
        "job": use.job,
        "namespace": use.dataset.namespace,
        "name": use.dataset.name,
        "version": use.version,
        "facets": orjson.dumps(use.facets),
        "columns": None if use.columns is None else orjson.dumps([_dump_link(link) for link in use.columns]),
        "first_at": use.first_at,
    }


def to_use(row: Row[Any]) -> RunUse:
    """Return the use of a row."""
    return RunUse(
        run_id=row.run_id,
        job=row.job,
        role=Role(row.role),
        dataset=Name(row.namespace, row.name),
        version=row.version,
        facets=orjson.loads(row.facets),
        columns=None if row.columns is None else tuple(_load_link(each) for each in orjson.loads(row.columns)),
        first_at=row.first_at,
    )


def version_values(version: Version) -> dict[str, Any]:
    """Return a dataset version's row."""
    return {
        "dataset": version.dataset,
        "version": version.version,
        "stated": version.stated,
        "fields": _dump_fields(version.fields),
        "facets": orjson.dumps(version.facets),
        "created_at": version.created_at,
        "run_id": version.run_id,
        "lifecycle": version.lifecycle,
    }


def to_version(row: Row[Any]) -> Version:
    """Return the dataset version of a row."""
    return Version(
        dataset=row.dataset,
        version=row.version,
        stated=row.stated,
        fields=_load_fields(row.fields),
        facets=orjson.loads(row.facets),
        created_at=row.created_at,
        run_id=row.run_id,
        lifecycle=row.lifecycle,
    )


def edge_values(edge: Edge) -> dict[str, Any]:
    """Return what an edge's rows share."""
    return {
        "edge": edge.key,
        "job": edge.job,
        "kind": edge.kind.value,
        "source": edge.source,
        "target": edge.target,
        "source_field": edge.source_field,
        "target_field": edge.target_field,
        "subtype": edge.subtype,
        "description": edge.description,
        "masking": edge.masking,
    }


def to_edge(row: Row[Any]) -> Edge:
    """Return the edge of a row."""
    return Edge(
        job=row.job,
        kind=EdgeKind(row.kind),
        source=row.source,
        target=row.target,
        source_field=row.source_field,
        target_field=row.target_field,
        subtype=row.subtype,
        description=row.description,
        masking=row.masking,
    )


def to_known(row: Row[Any]) -> KnownEdge:
    """Return the edge of a row with its times."""
    return KnownEdge(to_edge(row), Span(row.valid_from, row.valid_to), row.known_from)


def _dump_fields(fields: Sequence[Field]) -> bytes:
    return orjson.dumps([[field.name, field.type, field.description, field.tags] for field in fields])


def _load_fields(text: bytes) -> tuple[Field, ...]:
    return tuple(Field(name, type_, about, tuple(tags)) for name, type_, about, tags in orjson.loads(text))


def _dump_link(link: ColumnLink) -> dict[str, Any]:
    return vars(link) | {"source": [link.source.namespace, link.source.name]}


def _load_link(values: Mapping[str, Any]) -> ColumnLink:
    return ColumnLink(**{**values, "source": Name(*values["source"])})
