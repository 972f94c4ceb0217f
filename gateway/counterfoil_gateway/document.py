"""The OpenAPI 3.1 document, from the same bindings that are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from counterfoil_gateway.api import Api, Binding, Method, field_at, variables
from counterfoil_gateway.event_operations import EVENT_TAG, event_operation, event_security
from counterfoil_gateway.events import EventRoute
from counterfoil_gateway.exports import EXPORT, ExportAudit
from counterfoil_gateway.fields import descriptor, message_name, message_of, raw_field, raw_media_types
from counterfoil_gateway.imports import UPLOAD, UploadImport
from counterfoil_gateway.lineage_operations import LINEAGE_TAG, lineage_operations
from counterfoil_gateway.own_operations import CONSOLE_TAG, OWN_TAG, SESSION, own_operations
from counterfoil_gateway.query_results import FORMATS, RUN
from counterfoil_gateway.registry_document import REGISTRY_SECURITY, REGISTRY_TAG, registry_operations
from counterfoil_gateway.rules import is_required
from counterfoil_gateway.schemas import WELL_KNOWN, Schema, Schemas
from counterfoil_gateway.values import AS_TEXT

TITLE = "Counterfoil"
VERSION = "1"
STATUSES = (400, 401, 403, 404, 405, 409, 412, 413, 415, 429, 500, 501, 503, 504)
_PROBLEM = {"$ref": "#/components/responses/Problem"}
_TIMEOUT = {
    "name": "Request-Timeout",
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 60},
    "description": "Seconds to wait for the answer.",
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 128},
    "description": "Send the same key to retry safely for 24 hours.",
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "Only when the resource still has this ETag.",
}

_LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
    "description": "The id of the last server-sent event: the stream goes on after it, whatever the query says.",
}


class Document:
    """Builds the document of one API."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._schemas = Schemas(api.comments)

    def text(self, events: Sequence[EventRoute]) -> bytes:
        """Return the document as JSON, indented, so that a change reads as a diff."""
        return orjson.dumps(self.build(events), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def build(self, events: Sequence[EventRoute]) -> dict[str, Any]:
        """Return the document."""
        paths: dict[str, dict[str, Any]] = {}
        for method in self._api.methods:
            for i, binding in enumerate(method.bindings):
                paths.setdefault(_path(binding), {})[binding.verb.lower()] = self._operation(method, binding, i)
            if method.name == UPLOAD:
                paths.setdefault(UploadImport.binding.path, {})["post"] = self._upload(method)
            if method.name == EXPORT:
                paths.setdefault(ExportAudit.binding.path, {})["get"] = self._download(method)
        paths |= own_operations()
        paths |= lineage_operations()
        paths |= registry_operations(self._api)
        for route in events:
            paths.setdefault(route.path, {})[route.verb.lower()] = event_operation(route)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": TITLE,
                "version": VERSION,
                "description": "A marketing data platform where every number comes with a receipt.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": self._tags(),
            "paths": dict(sorted(paths.items())),
            "security": [{"api_key": []}, {"bearer": []}, {"session": []}],
            "components": self._components(),
        }

    def _tags(self) -> list[dict[str, str]]:
        services = {m.service: m for m in self._api.methods}
        comments = {s: self._api.comments.get(m.name[1:].split("/")[0], "") for s, m in services.items()}
        return [{"name": _tag(m), "description": comments[s]} for s, m in services.items()] + [
            EVENT_TAG,
            REGISTRY_TAG,
            CONSOLE_TAG,
            OWN_TAG,
            LINEAGE_TAG,
        ]

    def _components(self) -> dict[str, Any]:
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        return {
            "schemas": dict(sorted(self._schemas.named.items())),
            "responses": {"Problem": {"description": "What went wrong and what to do.", "content": problem}},
            "securitySchemes": {
                "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "The same API key."},
                "session": SESSION,
                **REGISTRY_SECURITY,
                **event_security(),
            },
        }

    def _operation(self, method: Method, binding: Binding, index: int) -> dict[str, Any]:
        operation = _described(method, method.rpc + (str(index + 1) if index else ""))
        operation["parameters"] = self._parameters(method, binding)
        if binding.body:
            operation["requestBody"] = self._body(method, binding)
        operation["responses"] = self._responses(method)
        return operation

    def _parameters(self, method: Method, binding: Binding) -> list[dict[str, Any]]:
        inside = descriptor(method.input)
        named = variables(binding.segments)
        found = []
        for name in named:
            schema = self._schemas.field(field_at(inside, name))
            if schema.get("type") == "string" and "enum" not in schema:
                schema = {"minLength": 1, **schema}
            found.append({"name": name.rpartition(".")[2], "in": "path", "required": True, **_split(schema)})
        raw = raw_field(inside) if binding.body == "*" else None
        if binding.body != "*":
            found += self._query(inside, {*named, binding.body})
        elif raw is not None:
            beside = "application/json" not in raw_media_types(raw)
            found += [_beside(p) if beside else p for p in self._query(inside, {*named, raw.name})]
        if "request_id" in inside.fields_by_name:
            found.append(_IDEMPOTENCY)
        if "etag" in inside.fields_by_name:
            found.append(_IF_MATCH)
        if method.follows:
            found.append(_LAST_EVENT)
        return [*found, _TIMEOUT]

    def _query(self, message: Descriptor, closed: set[str], prefix: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for field in message.fields:
            name = prefix + field.name
            if name in closed:
                continue
            if field.type == FieldDescriptor.TYPE_MESSAGE and message_name(field) not in WELL_KNOWN:
                if not field.is_repeated and not prefix:
                    found += self._query(message_of(field), closed, f"{name}.")
            elif field.type != FieldDescriptor.TYPE_MESSAGE or message_name(field) in AS_TEXT:
                parameter = {"name": name, "in": "query", **_split(self._schemas.field(field))}
                found.append({**parameter, "required": True} if is_required(field) and not prefix else parameter)
        return found

    def _body(self, method: Method, binding: Binding) -> dict[str, Any]:
        inside = descriptor(method.input)
        named = variables(binding.segments)
        if binding.body != "*":
            return {"required": True, "content": {"application/json": {"schema": self._part(inside, binding, named)}}}
        raw = raw_field(inside)
        content: dict[str, Any] = {}
        if raw is None or "application/json" not in raw_media_types(raw):
            content["application/json"] = {"schema": self._whole(inside, named)}
        for media_type in raw_media_types(raw) if raw is not None else ():
            content[media_type] = {"schema": self._raw(raw, media_type) if raw is not None else {}}
        needed = any(is_required(f) for f in inside.fields if f.name not in named)
        return {"required": needed, "content": content}

    def _raw(self, field: FieldDescriptor, media_type: str) -> Schema:
        """Return what a body is that is the field itself."""
        doc = self._api.comments.get(field.full_name, "")
        return {"description": doc} if media_type == "application/json" else {"type": "string", "description": doc}

    def _whole(self, message: Descriptor, named: list[str]) -> Schema:
        if not named:
            return self._schemas.message(message)
        return self._schemas.put(f"{message.name}Body", self._schemas.object(message, named))

    def _part(self, inside: Descriptor, binding: Binding, named: list[str]) -> Schema:
        """Return the schema of a body that is one field; what the path names is not in it."""
        message = message_of(inside.fields_by_name[binding.body])
        if binding.verb != "PATCH":
            return self._schemas.message(message)
        return self._schemas.patch(message, [n.split(".", 1)[1] for n in named if n.startswith(binding.body + ".")])

    def _responses(self, method: Method) -> dict[str, Any]:
        problems: dict[str, Any] = {str(status): _PROBLEM for status in STATUSES}
        output = descriptor(method.output)
        schema = self._schemas.message(output)
        if output.full_name == "google.protobuf.Empty":
            return {"204": {"description": "Done."}, **problems}
        if method.server_streaming:
            kinds = ("application/x-ndjson", "text/event-stream")
            content = {kind: {"schema": {"type": "string"}} for kind in kinds}
            text = f"One line or event per item: {output.name}."
            return {"200": {"description": text, "content": content}, **problems}
        done: dict[str, Any] = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
        if method.name == RUN:
            done["content"] |= {kind: {"schema": {"type": "string"}} for kind in FORMATS}
        if "etag" in output.fields_by_name:
            done["headers"] = {"ETag": {"schema": {"type": "string"}}}
        return {"200": done, **problems}

    def _upload(self, method: Method) -> dict[str, Any]:
        """Return the operation that takes a file as its body."""
        header = message_of(descriptor(method.input).fields_by_name["header"])
        operation = _described(method, method.rpc)
        operation["parameters"] = self._query(header, set())
        for parameter in operation["parameters"]:
            if parameter["name"] == "format":
                parameter["schema"] = {"type": "string", "enum": ["csv", "jsonl", "parquet"]}
                parameter["required"] = True
        kinds = ("text/csv", "application/x-ndjson", "application/vnd.apache.parquet", "application/octet-stream")
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
        operation["requestBody"] = {"required": True, "content": content}
        operation["responses"] = self._responses(method)
        return operation

    def _download(self, method: Method) -> dict[str, Any]:
        """Return the operation that answers a file."""
        operation = _described(method, method.rpc)
        archive = {"schema": {"type": "string", "format": "binary"}}
        done = {"description": "The archive.", "content": {"application/zip": archive}}
        problems = {str(status): _PROBLEM for status in STATUSES}
        return {**operation, "parameters": [_TIMEOUT], "responses": {"200": done, **problems}}


def _described(method: Method, operation_id: str) -> dict[str, Any]:
    summary, _, rest = method.doc.partition("\n")
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "tags": [_tag(method)],
        "x-scope": method.scope,
    }
    if rest.strip():
        operation["description"] = rest.strip()
    if method.deprecated:
        operation["deprecated"] = True
    return operation


def _tag(method: Method) -> str:
    return method.service.removesuffix("Service")


def _path(binding: Binding) -> str:
    """Return the path, its parameters named by the leaf field: `{person.person_id}` and `{person_id}` are one."""
    path = binding.path
    for name in variables(binding.segments):
        path = path.replace(f"{{{name}}}", f"{{{name.rpartition('.')[2]}}}")
    return path


def _split(schema: Schema) -> dict[str, Any]:
    schema = dict(schema)
    doc = schema.pop("description", None)
    return {"schema": schema, **({"description": doc} if doc else {})}


def _beside(parameter: dict[str, Any]) -> dict[str, Any]:
    doc = f"{parameter.get('description', '')} Only when the body is not `application/json`.".strip()
    return {**parameter, "description": doc}
