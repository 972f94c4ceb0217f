"""One ODCS property, however deeply nested, as JSON Schema 2020-12."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jsonschema_rs

from counterfoil_contracts.entities import OPEN_TO_READERS, READERS
from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.names import check_nested
from counterfoil_contracts.odcs.quality import record_rules
from counterfoil_contracts.odcs.scalars import (
    boolean_schema,
    check_order,
    integer_schema,
    number_schema,
    string_schema,
)
from counterfoil_contracts.odcs.temporal import date_schema, time_schema, timestamp_schema

CONTENT_MODEL: Final = "contentModel"
RESERVED_PREFIX: Final = "x_"

_VECTOR_ELEMENTS: Final[Mapping[str, dict[str, Any]]] = {
    "int8": {"type": "integer", "minimum": -128, "maximum": 127},
    "uint8": {"type": "integer", "minimum": 0, "maximum": 255},
    "binary": {"type": "integer", "minimum": 0, "maximum": 1},
}


class ContentModel(enum.Enum):
    """What an object may hold beside its declared properties.

    ODCS has no word for it, so the custom property `contentModel` says it: nothing (`closed`), anything (`open`),
    only names that begin with `x_` (`reserved`), which no later version will declare, or nothing for who sends and
    anything for who reads (`producer-closed`), so that a later version can declare more without breaking a reader.
    """

    CLOSED = "closed"
    OPEN = "open"
    RESERVED = "reserved"
    PRODUCER_CLOSED = "producer-closed"

    @property
    def is_closed(self) -> bool:
        """Tell whether a record holds what is declared and nothing else."""
        return self in (ContentModel.CLOSED, ContentModel.PRODUCER_CLOSED)


def content_model(node: Mapping[str, Any], path: Path, found: Findings, *, default: ContentModel) -> ContentModel:
    """Return the content model that an object's custom properties say, or the default."""
    for index, custom in enumerate(node.get("customProperties", [])):
        if custom["property"] == CONTENT_MODEL:
            try:
                return ContentModel(custom["value"])
            except ValueError:
                place: Path = (*path, "customProperties", index, "value")
                found.add("CONTENT_MODEL", place, "contentModel is closed, open, reserved or producer-closed.")
    return default


def object_keywords(
    properties: Sequence[Mapping[str, Any]], path: Path, found: Findings, *, model: ContentModel
) -> dict[str, Any]:
    """Return the keywords of an object with declared properties; `path` is that of the object."""
    schemas: dict[str, Any] = {}
    required = []
    for index, node in enumerate(properties):
        schema = property_schema(node, (*path, "properties", index), found)
        schemas[node["name"]] = schema
        if not admits_null(schema):
            required.append(node["name"])
    keywords: dict[str, Any] = {"type": "object"}
    if schemas:
        keywords["properties"] = schemas
    if required:
        keywords["required"] = sorted(required)
    if model.is_closed:
        keywords["additionalProperties"] = False
        if model is ContentModel.PRODUCER_CLOSED:
            keywords[READERS] = OPEN_TO_READERS
    elif model is ContentModel.RESERVED:
        keywords["patternProperties"] = {f"^{RESERVED_PREFIX}": True}
        keywords["additionalProperties"] = False
    return keywords


def admits_null(schema: Mapping[str, Any]) -> bool:
    """Tell whether a property may be null, and hence absent too."""
    return "null" in schema["type"]


def property_schema(node: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of one property's value: nullable unless it is required."""
    kind = node["logicalType"]
    schema = _TYPES[kind](node, path, found)
    fits = jsonschema_rs.Draft202012Validator({"type": schema["type"]}).is_valid
    quality_path: Path = (*path, "quality")
    rules = record_rules(node.get("quality", []), quality_path, found, fits=fits, text=kind == "string")
    nullable = not (node.get("required", False) or rules.required)
    null = [None] if nullable else []
    if nullable:
        schema["type"] = [schema["type"], "null"]
    if values := _enumeration(node, path, found, fits=fits):
        schema["enum"] = values + null
    if rules.schemas:
        limits = [{"enum": rule["enum"] + null} if "enum" in rule else rule for rule in rules.schemas]
        schema["allOf"] = [*schema.get("allOf", []), *limits]
    if classification := node.get("classification"):
        schema["x-classification"] = classification
    return schema


def _enumeration(node: Mapping[str, Any], path: Path, found: Findings, *, fits: Callable[[Any], bool]) -> list[Any]:
    values = [item["value"] for item in node.get("enum", [])]
    for index, value in enumerate(values):
        if not fits(value):
            found.add("ENUM_TYPE", (*path, "enum", index, "value"), "The value is not of the property's logicalType.")
    return values


def _object(node: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    properties = node.get("properties", [])
    default = ContentModel.CLOSED if properties else ContentModel.OPEN
    model = content_model(node, path, found, default=default)
    check_nested(properties, (*path, "properties"), found)
    schema = object_keywords(properties, path, found, model=model)
    options, place = node.get("logicalTypeOptions", {}), (*path, "logicalTypeOptions")
    check_order(options, "minProperties", "maxProperties", place, found)
    for keyword in ("minProperties", "maxProperties"):
        if keyword in options:
            schema[keyword] = options[keyword]
    if wanted := options.get("required"):
        if model.is_closed and (unknown := sorted(set(wanted) - set(schema.get("properties", {})))):
            found.add(
                "REQUIRED_UNDECLARED", (*place, "required"), f"The object is closed and has no {', '.join(unknown)}."
            )
        schema["required"] = sorted({*schema.get("required", []), *wanted})
    return schema


def _array(node: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array"}
    if "items" in node:
        schema["items"] = property_schema(node["items"], (*path, "items"), found)
    options = node.get("logicalTypeOptions", {})
    check_order(options, "minItems", "maxItems", (*path, "logicalTypeOptions"), found)
    return schema | {key: options[key] for key in ("minItems", "maxItems", "uniqueItems") if key in options}


def _map(node: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    key, value = node["map"]["key"], node["map"]["value"]
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": property_schema(value, (*path, "map", "value"), found),
    }
    key_path: Path = (*path, "map", "key")
    if key.get("logicalType") != "string":
        found.add("MAP_KEY", key_path, "The keys of a JSON object are strings: say logicalType: string.")
        return schema
    names = property_schema({**key, "required": True}, key_path, found)
    if len(names) > 1:
        schema["propertyNames"] = names
    return schema


def _vector(node: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    options = node.get("logicalTypeOptions", {})
    dimensions = options.get("dimensions")
    if dimensions is None:
        found.add("VECTOR_DIMENSIONS", path, "A vector needs logicalTypeOptions.dimensions.")
    element = _VECTOR_ELEMENTS.get(options.get("elementType", "float32"), {"type": "number"})
    return {"type": "array", "items": dict(element), "minItems": dimensions, "maxItems": dimensions}


_Make = Callable[[Mapping[str, Any], Path, Findings], dict[str, Any]]


def _of_options(make: _Make) -> _Make:
    """Adapt a schema that depends on `logicalTypeOptions` alone."""

    def of_node(node: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
        return make(node.get("logicalTypeOptions", {}), (*path, "logicalTypeOptions"), found)

    return of_node


_TYPES: Final[Mapping[str, _Make]] = {
    "string": _of_options(string_schema),
    "integer": _of_options(integer_schema),
    "number": _of_options(number_schema),
    "boolean": _of_options(boolean_schema),
    "date": _of_options(date_schema),
    "time": _of_options(time_schema),
    "timestamp": _of_options(timestamp_schema),
    "object": _object,
    "array": _array,
    "map": _map,
    "vector": _vector,
}
