"""The schema registry's API in the API document."""

from __future__ import annotations

from typing import Any

from counterfoil_gateway.api import Api, variables
from counterfoil_gateway.registry_operations import OPERATIONS, Operation
from counterfoil_gateway.schema_registry import MEDIA_TYPES, PREFIX, SERVICE

REGISTRY_TAG = {
    "name": "SchemaRegistry",
    "description": "The API of Kafka's schema registries for JSON Schema, for their clients. An error is an "
    "`error_code` and a `message`; an API key is the password of Basic authentication.",
}
REGISTRY_SECURITY = {"registry": {"type": "http", "scheme": "basic", "description": "An API key as the password."}}
_STATUSES = (400, 401, 403, 404, 405, 409, 415, 422, 429, 500, 503, 504)


def registry_operations(api: Api) -> dict[str, dict[str, Any]]:
    """Return the operations by path and verb."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = PREFIX if operation.path == "/" else PREFIX + operation.path
        paths.setdefault(path, {})[operation.verb.lower()] = _operation(api, operation)
    return paths


def _operation(api: Api, operation: Operation) -> dict[str, Any]:
    in_path = [_parameter(name, "path", "As in the registry.") for name in variables(operation.segments)]
    in_query = [_parameter(name, "query", text) for name, text in operation.parameters.items()]
    error = {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {
            "error_code": {"type": "integer", "description": "What went wrong, as registries number it."},
            "message": {"type": "string", "description": "What to do."},
        },
    }
    refused = {"description": "What went wrong and what to do.", "content": {MEDIA_TYPES[0]: {"schema": error}}}
    scope = api.named(SERVICE + operation.rpc).scope
    described: dict[str, Any] = {
        "operationId": f"Registry{operation.name or operation.rpc}",
        "summary": operation.summary,
        "description": f"Needs the scope `{scope}`.",
        "tags": [REGISTRY_TAG["name"]],
        "security": [{"registry": []}, {"api_key": []}, {"bearer": []}, {"session": []}],
        "parameters": [*in_path, *in_query],
        "responses": {
            "200": {"description": "Done.", "content": {MEDIA_TYPES[0]: {"schema": {}}}},
            **{str(status): refused for status in _STATUSES},
        },
    }
    if operation.has_body:
        content = {kind: {"schema": {"type": "object"}} for kind in MEDIA_TYPES}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameter(name: str, where: str, text: str) -> dict[str, Any]:
    required = {"required": True} if where == "path" else {}
    return {"name": name, "in": where, **required, "schema": {"type": "string"}, "description": text}
