"""Event routes in the API document."""

from __future__ import annotations

from typing import Any

from counterfoil_gateway.events import EventRoute

EVENT_TAG = {"name": "Events", "description": "Routes that existing SDKs speak. They take a source's write key."}
_PROBLEM = {"$ref": "#/components/responses/Problem"}
_STATUSES = (400, 401, 413, 429, 500, 503)


def event_security() -> dict[str, Any]:
    """Return how a write key may be sent."""
    return {
        "write_key": {"type": "http", "scheme": "basic", "description": "The write key as the user name."},
        "write_key_header": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
        "write_key_query": {"type": "apiKey", "in": "query", "name": "writeKey"},
    }


def event_operation(route: EventRoute) -> dict[str, Any]:
    """Return one route's operation."""
    in_path = "{write_key}" in route.path
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "schema": {"type": "string"}, "description": text}
        for name, text in route.parameters.items()
        if name != "writeKey"
    ]
    if in_path:
        key: dict[str, Any] = {
            "name": "write_key",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        parameters.append({**key, "description": "The source's write key."})
    kind: dict[str, str] = (
        {"type": "object"} if route.gives == "application/json" else {"type": "string", "format": "binary"}
    )
    taken: dict[str, Any] = {"description": "Taken.", "content": {route.gives: {"schema": kind}}}
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [EVENT_TAG["name"]],
        "security": [] if in_path else [{name: []} for name in event_security()],
        "parameters": parameters,
        "responses": {"200": taken, **{str(status): _PROBLEM for status in _STATUSES}},
    }
    if route.media_types:
        body = {"description": "As the SDK sends it; may be gzip."}
        operation["requestBody"] = {"required": True, "content": {t: {"schema": body} for t in route.media_types}}
    return operation
