"""OpenLineage's and Marquez's routes in the API document."""

from __future__ import annotations

from typing import Any

from counterfoil_gateway.lineage import READS, Read

LINEAGE_TAG = {
    "name": "OpenLineage",
    "description": "OpenLineage's events in, and lineage out as Marquez's clients read it. The platform's own reads of "
    "lineage, with impact and as-of times, are under Lineage.",
}
_PROBLEM = {"$ref": "#/components/responses/Problem"}
_STATUSES = (400, 401, 403, 404, 413, 429, 500, 503, 504)
_OBJECT = {"type": "object"}


def lineage_operations() -> dict[str, dict[str, Any]]:
    """Return the operations by path and verb."""
    paths: dict[str, dict[str, Any]] = {}
    for read in READS:
        paths.setdefault(read.path, {})["get"] = _read(read)
    paths.setdefault("/api/v1/lineage", {})["post"] = _emit(
        "EmitOpenLineageEvent",
        "Keep an OpenLineage event: a RunEvent, a JobEvent or a DatasetEvent.",
        body=_OBJECT,
        responses={"201": {"description": "It is kept, or was before."}},
    )
    paths["/api/v1/lineage/batch"] = {
        "post": _emit(
            "EmitOpenLineageEvents",
            "Keep OpenLineage events, at most 1,000, each alone.",
            body={"type": "array", "items": _OBJECT, "maxItems": 1000},
            responses={"200": _answer("How many were kept, and why others were not.")},
        )
    }
    return paths


def _read(read: Read) -> dict[str, Any]:
    names = [segment[1:-1] for segment in read.path.split("/") if segment.startswith("{")]
    text = {"type": "string"}
    in_path = [{"name": name, "in": "path", "required": True, "schema": {**text, "minLength": 1}} for name in names]
    in_query = [
        {"name": name, "in": "query", "schema": text, "description": about} for name, about in read.parameters.items()
    ]
    return {
        "operationId": f"Marquez{_operation_of(read)}",
        "summary": read.summary,
        "tags": [LINEAGE_TAG["name"]],
        "x-scope": "contracts.read",
        "parameters": [*in_path, *in_query],
        "responses": {"200": _answer("It, as Marquez writes it."), **_problems()},
    }


def _operation_of(read: Read) -> str:
    return "".join(part.title() for part in read.answer.__name__.split("_")) + (
        "OfNamespace" if read.path.endswith("{namespace}/jobs") else ""
    )


def _emit(operation: str, summary: str, *, body: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "tags": [LINEAGE_TAG["name"]],
        "x-scope": "contracts.write",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {**responses, **_problems()},
    }


def _problems() -> dict[str, Any]:
    return {str(status): _PROBLEM for status in _STATUSES}


def _answer(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {}}}}
