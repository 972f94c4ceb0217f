"""JSON Schemas of messages for the API document: limits from the field rules, descriptions from the comments."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from counterfoil_gateway import rules
from counterfoil_gateway.fields import (
    OUTPUT_ONLY,
    RANGES,
    WIDE,
    F,
    behaves,
    enum_of,
    integer_range,
    is_json,
    is_number,
    map_entry,
    message_of,
)

Schema = dict[str, Any]
WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:30:00Z"]},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$", "examples": ["3.5s"]},
    "google.protobuf.FieldMask": {
        "type": "string",
        "pattern": r"^([A-Za-z0-9_.]+(,[A-Za-z0-9_.]+)*)?$",
        "examples": ["display_name,state"],
    },
    "google.protobuf.Value": {"description": "Any JSON value."},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
}
_BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_STRING = {"type": "string"}
PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem.",
    "required": ["type", "title", "status", "detail", "code", "reason", "metadata", "trace_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": _STRING,
        "status": {"type": "integer"},
        "detail": {**_STRING, "description": "What went wrong and what to do."},
        "code": {**_STRING, "description": "The gRPC code."},
        "reason": {**_STRING, "description": "Stable: write your handling against this."},
        "metadata": {"type": "object", "additionalProperties": _STRING},
        "trace_id": {**_STRING, "description": "The request's trace, 32 hex digits; quote it when you ask for help."},
        "errors": {
            "type": "array",
            "description": "Every fault of the request.",
            "items": {
                "type": "object",
                "required": ["field", "code", "detail"],
                "properties": {"field": _STRING, "code": _STRING, "detail": _STRING},
            },
        },
    },
}


def reference(name: str) -> Schema:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


class Schemas:
    """The schemas met so far, by name."""

    def __init__(self, comments: dict[str, str]) -> None:
        self._comments = comments
        self.named: dict[str, Schema] = {"Problem": PROBLEM}
        self._owners: dict[str, str] = {}

    def message(self, message: Descriptor) -> Schema:
        """Return a reference to a message's schema, or the schema itself of a well-known type."""
        if message.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[message.full_name])
        name = self._name(message)
        if name not in self.named:
            self.named[name] = {}  # a type may contain itself
            self.named[name] = self.object(message)
        return reference(name)

    def object(self, message: Descriptor, without: Collection[str] = ()) -> Schema:
        """Return a message's schema, some of its fields left out."""
        fields = [f for f in message.fields if f.name not in without]
        schema: Schema = {"type": "object"}
        if doc := self._comments.get(message.full_name):
            schema["description"] = doc
        schema["properties"] = {f.name: self.field(f) for f in fields}
        schema["additionalProperties"] = False
        if required := [f.name for f in fields if rules.is_required(f)]:
            schema["required"] = required
        groups = [[f.name for f in o.fields] for o in message.oneofs if len(o.fields) > 1]
        pairs = [(a, b) for group in groups for i, a in enumerate(group) for b in group[i + 1 :]]
        if pairs:
            schema["allOf"] = [{"not": {"required": [a, b]}} for a, b in pairs]
        return schema

    def patch(self, message: Descriptor, without: Collection[str]) -> Schema:
        """Return what a PATCH takes: any of the fields, null to clear one."""
        schema = self.object(message, without)
        schema.pop("required", None)
        properties = schema["properties"].items()
        schema["properties"] = {k: {"anyOf": [v, {"type": "null"}]} if v else v for k, v in properties}
        return self.put(f"{message.name}Patch", schema)

    def put(self, name: str, schema: Schema) -> Schema:
        """Keep a schema under a name of our own; return a reference to it."""
        self.named[name] = schema
        return reference(name)

    def _name(self, thing: Descriptor | EnumDescriptor) -> str:
        """Return `QueryColumn`, or with its service in front when two packages use the name."""
        package = thing.file.package
        short = thing.full_name.removeprefix(package + ".").replace(".", "")
        if self._owners.setdefault(short, thing.full_name) != thing.full_name:
            short = package.split(".")[-2].capitalize() + short
            self._owners[short] = thing.full_name
        return short

    def _enum(self, enum: EnumDescriptor) -> Schema:
        name = self._name(enum)
        if name not in self.named:
            lines = [self._comments.get(enum.full_name, "")]
            values = ((v.name, self._comments.get(f"{enum.full_name}.{v.name}")) for v in enum.values)
            lines += [f"- `{value}`: {comment}" for value, comment in values if comment]
            text = "\n".join(lines).strip()
            self.named[name] = {"type": "string", "enum": [v.name for v in enum.values], "description": text}
        return reference(name)

    def field(self, field: FieldDescriptor) -> Schema:
        """Return a field's schema."""
        rule = rules.rules_of(field)
        entry = map_entry(field)
        if entry is not None:
            schema = self._map(entry)
        elif field.is_repeated:
            schema = {"type": "array", "items": self._one(field, rule.repeated.items), **rules.for_list(rule)}
        else:
            schema = self._one(field, rule)
        if doc := self._comments.get(field.full_name):
            schema = {**schema, "description": doc}
        if behaves(field, OUTPUT_ONLY):
            schema["readOnly"] = True
        if field.GetOptions().deprecated:
            schema["deprecated"] = True
        return schema

    def _map(self, entry: Descriptor) -> Schema:
        value = entry.fields_by_name["value"]
        schema: Schema = {"type": "object", "additionalProperties": self._one(value, rules.rules_of(value))}
        if entry.fields_by_name["key"].type in RANGES:
            schema["propertyNames"] = {"pattern": "^-?[0-9]{1,19}$"}
        return schema

    def _one(self, field: FieldDescriptor, rule: Any) -> Schema:
        kind = field.type
        if kind == F.TYPE_MESSAGE:
            return self.message(message_of(field))
        if kind == F.TYPE_ENUM:
            return self._enum(enum_of(field))
        return _integer(field, rule) if kind in RANGES else _PLAIN[kind](field, rule)


def _string(_field: FieldDescriptor, rule: Any) -> Schema:
    return {"type": "string", **rules.for_string(rule)}


def _boolean(_field: FieldDescriptor, _rule: Any) -> Schema:
    return {"type": "boolean"}


def _bytes(field: FieldDescriptor, _rule: Any) -> Schema:
    return {} if is_json(field) else {"type": "string", "contentEncoding": "base64", "pattern": _BASE64}


def _double(_field: FieldDescriptor, rule: Any) -> Schema:
    return {"type": "number", "format": "double", **rules.for_number(rule)}


def _float(_field: FieldDescriptor, rule: Any) -> Schema:
    return {"type": "number", "format": "float", "minimum": -3.4028235e38, "maximum": 3.4028235e38} | rules.for_number(
        rule
    )


_PLAIN: dict[int, Callable[[FieldDescriptor, Any], Schema]] = {
    F.TYPE_STRING: _string,
    F.TYPE_BOOL: _boolean,
    F.TYPE_BYTES: _bytes,
    F.TYPE_DOUBLE: _double,
    F.TYPE_FLOAT: _float,
}


def _integer(field: FieldDescriptor, rule: Any) -> Schema:
    low, high = integer_range(field)
    if field.type in WIDE and not is_number(field):
        pattern = "^-?[0-9]{1,19}$" if low else "^[0-9]{1,20}$"
        return {"type": "string", "format": "int64", "pattern": pattern, "examples": ["1250000"]}
    width = "int64" if field.type in WIDE else "int32"
    return {"type": "integer", "format": width, **({"minimum": low, "maximum": high} | rules.for_number(rule))}
