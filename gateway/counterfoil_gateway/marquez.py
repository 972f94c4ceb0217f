"""Lineage in the words of Marquez's API, so that what reads Marquez reads us.

Source of the shapes: Marquez's `openapi.yml` (Apache-2.0), and what its web pages ask for beyond that.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final, TypeAlias

import orjson
from counterfoil.contracts.v1 import lineage_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

Json: TypeAlias = dict[str, Any]

_DATASET: Final = pb.LineageNode.Kind.DATASET
_STATES: Final = pb.LineageRun.State


def namespace(found: pb.LineageNamespace) -> Json:
    """Return a namespace."""
    return {
        "name": found.name,
        "createdAt": _time(found.created_at),
        "updatedAt": _time(found.updated_at),
        "ownerName": "",
        "description": None,
        "isHidden": False,
    }


def dataset(node: pb.LineageNode) -> Json:
    """Return a dataset."""
    return {
        "id": {"namespace": node.namespace, "name": node.name},
        **_dataset(node.namespace, node.name, node.type),
        "createdAt": _time(node.created_at),
        "updatedAt": _time(node.updated_at),
        "fields": [_field(field) for field in node.fields],
        "tags": list(node.tags),
        "lastModifiedAt": _time(node.updated_at),
        "lastLifecycleState": "DROP" if node.dropped else None,
        "description": node.description or None,
        "currentVersion": node.version or None,
        "columnLineage": None,
        "facets": _facets(node.facets),
        "deleted": node.dropped,
    }


def dataset_version(name: pb.DatasetName, version: pb.DatasetVersion, run: pb.LineageRun | None = None) -> Json:
    """Return one version of a dataset, with the run that wrote it where that was asked for."""
    facets = _facets(version.facets)
    kind = (facets.get("datasetType") or {}).get("datasetType", "")
    return {
        "id": {"namespace": name.namespace, "name": name.name, "version": version.version},
        **_dataset(name.namespace, name.name, kind),
        "createdAt": _time(version.created_at),
        "version": version.version,
        "fields": [_field(field) for field in version.fields],
        "tags": [],
        "lifecycleState": version.lifecycle_state or None,
        "description": (facets.get("documentation") or {}).get("description", ""),
        "createdByRun": None if run is None else run_of(run),
        "facets": facets,
    }


def job(node: pb.LineageNode) -> Json:
    """Return a job with its newest run."""
    latest = run_of(node.latest_run) if node.HasField("latest_run") else None
    facets = _facets(node.facets)
    return {
        "id": {"namespace": node.namespace, "name": node.name},
        "type": node.type,
        "name": node.name,
        "simpleName": node.name,
        "parentJobName": None,
        "createdAt": _time(node.created_at),
        "updatedAt": _time(node.updated_at),
        "namespace": node.namespace,
        "inputs": [_name(each) for each in node.inputs],
        "outputs": [_name(each) for each in node.outputs],
        "location": (facets.get("sourceCodeLocation") or {}).get("url"),
        "description": node.description or None,
        "latestRun": latest,
        "latestRuns": [] if latest is None else [latest],
        "tags": list(node.tags),
        "facets": facets,
    }


def run_of(run: pb.LineageRun) -> Json:
    """Return a run with the versions of what it read and wrote."""
    started, ended = (getattr(run, each) if run.HasField(each) else None for each in ("started_at", "ended_at"))
    return {
        "id": run.run_id,
        "createdAt": _time(run.created_at),
        "updatedAt": _time(run.updated_at),
        "nominalStartTime": _time(run.nominal_start_at) if run.HasField("nominal_start_at") else None,
        "nominalEndTime": _time(run.nominal_end_at) if run.HasField("nominal_end_at") else None,
        "state": _STATES.Name(run.state),
        "startedAt": None if started is None else _time(started),
        "endedAt": None if ended is None else _time(ended),
        "durationMs": None if started is None or ended is None else (_us(ended) - _us(started)) // 1000,
        "args": {},
        "jobVersion": {"namespace": run.job_namespace, "name": run.job_name},
        "inputDatasetVersions": [_version_id(each) for each in run.inputs],
        "outputDatasetVersions": [_version_id(each) for each in run.outputs],
        "facets": _facets(run.run_facets),
    }


def graph(found: pb.LineageGraph) -> Json:
    """Return a walk as a graph of datasets and jobs."""
    into: dict[str, list[Json]] = {}
    out: dict[str, list[Json]] = {}
    for edge in found.edges:
        told = {"origin": edge.source, "destination": edge.target}
        out.setdefault(edge.source, []).append(told)
        into.setdefault(edge.target, []).append(told)
    return {
        "graph": [
            {
                "id": node.node_id,
                "type": "DATASET" if node.kind == _DATASET else "JOB",
                "data": dataset(node) if node.kind == _DATASET else job(node),
                "inEdges": into.get(node.node_id, []),
                "outEdges": out.get(node.node_id, []),
            }
            for node in found.nodes
        ]
    }


def column_graph(found: pb.ColumnLineage) -> Json:
    """Return column edges as a graph of fields."""
    into: dict[str, list[pb.ColumnEdge]] = {}
    out: dict[str, list[pb.ColumnEdge]] = {}
    names: dict[str, pb.ColumnName] = {}
    for edge in found.edges:
        for end in (edge.source, edge.target):
            names[_field_id(end)] = end
        out.setdefault(_field_id(edge.source), []).append(edge)
        into.setdefault(_field_id(edge.target), []).append(edge)
    return {
        "graph": [
            {
                "id": node_id,
                "type": "DATASET_FIELD",
                "data": _field_data(name, into.get(node_id, ())),
                "inEdges": [_field_edge(edge) for edge in into.get(node_id, ())],
                "outEdges": [_field_edge(edge) for edge in out.get(node_id, ())],
            }
            for node_id, name in names.items()
        ]
    }


def search_result(node: pb.LineageNode) -> Json:
    """Return a node as a search shows it."""
    return {
        "type": "DATASET" if node.kind == _DATASET else "JOB",
        "name": node.name,
        "updatedAt": _time(node.updated_at),
        "namespace": node.namespace,
        "nodeId": node.node_id,
    }


def tags(nodes: Iterable[pb.LineageNode]) -> list[Json]:
    """Return every tag of these nodes and their fields, by name."""
    found = {tag for node in nodes for tag in (*node.tags, *(each for field in node.fields for each in field.tags))}
    return [{"name": tag, "description": None} for tag in sorted(found)]


def intervals(stats: pb.LineageStats, *, daily: bool) -> list[Json]:
    """Return the counts of run events by hour, or by day in UTC."""
    length = timedelta(days=1) if daily else timedelta(hours=1)

    def start_of(hour: pb.LineageHour) -> datetime:
        at = hour.start_at.ToDatetime(tzinfo=UTC)
        return at.replace(hour=0) if daily else at

    return [
        {
            "startInterval": start.isoformat().replace("+00:00", "Z"),
            "endInterval": (start + length).isoformat().replace("+00:00", "Z"),
            **_counted(list(hours)),
        }
        for start, hours in groupby(stats.hours, start_of)
    ]


def _counted(hours: list[pb.LineageHour]) -> Json:
    return {
        "fail": sum(hour.failed for hour in hours),
        "start": sum(hour.started for hour in hours),
        "complete": sum(hour.completed for hour in hours),
        "abort": sum(hour.aborted for hour in hours),
    }


def _dataset(namespace: str, name: str, kind: str) -> Json:
    return {
        "type": "STREAM" if kind in ("STREAM", "TOPIC") else "DB_TABLE",
        "name": name,
        "physicalName": name,
        "namespace": namespace,
        "sourceName": namespace,
    }


def _field(field: pb.LineageField) -> Json:
    return {
        "name": field.name,
        "type": field.type or None,
        "tags": list(field.tags),
        "description": field.description or None,
    }


def _name(name: pb.DatasetName) -> Json:
    return {"namespace": name.namespace, "name": name.name}


def _version_id(used: pb.RunDataset) -> Json:
    version = {"namespace": used.namespace, "name": used.name, "version": used.version}
    return {"datasetVersionId": version, "facets": _facets(used.facets)}


def _field_id(name: pb.ColumnName) -> str:
    return f"datasetField:{name.namespace}:{name.dataset}:{name.field or '*'}"


def _field_edge(edge: pb.ColumnEdge) -> Json:
    return {"origin": _field_id(edge.source), "destination": _field_id(edge.target)}


def _field_data(name: pb.ColumnName, into: Iterable[pb.ColumnEdge]) -> Json:
    inputs = [
        {
            "namespace": edge.source.namespace,
            "dataset": edge.source.dataset,
            "field": edge.source.field or "*",
            "transformationType": edge.subtype or None,
            "transformationDescription": edge.description or None,
        }
        for edge in into
    ]
    return {
        "namespace": name.namespace,
        "dataset": name.dataset,
        "datasetVersion": None,
        "field": name.field or "*",
        "fieldType": None,
        "transformationType": None,
        "transformationDescription": None,
        "inputFields": inputs,
    }


def _facets(text: bytes) -> Json:
    facets: Json = orjson.loads(text) if text else {}
    return facets


def _us(at: Timestamp) -> int:
    return at.seconds * 1_000_000 + at.nanos // 1000


def _time(at: Timestamp) -> str:
    return at.ToDatetime(tzinfo=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
