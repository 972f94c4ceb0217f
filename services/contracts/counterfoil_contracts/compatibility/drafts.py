"""Older drafts of JSON Schema said in 2020-12, so that schemas of any two drafts can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DRAFT_4, DRAFT_6, DRAFT_7, DRAFT_2019, DRAFT_2020 = 4, 6, 7, 2019, 2020

_NAMED: Mapping[str, int] = {
    "draft-04": DRAFT_4,
    "draft-06": DRAFT_6,
    "draft-07": DRAFT_7,
    "2019-09": DRAFT_2019,
    "2020-12": DRAFT_2020,
}
_SCHEMAS_BY_NAME = frozenset(
    {"properties", "patternProperties", "definitions", "$defs", "dependentSchemas", "dependencies"}
)
_SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS = frozenset(
    {
        "additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
        "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
_BESIDE_A_REFERENCE = frozenset({"$ref", "definitions", "$defs", "$id", "id", "$anchor", "$comment"})

_ANNOTATIONS = frozenset({"contentEncoding", "contentMediaType", "contentSchema"})


def draft_of(schema: Any, default: int = DRAFT_2020) -> int:
    """Return the draft that a schema's `$schema` names."""
    said = schema.get("$schema") if isinstance(schema, dict) else None
    return next((draft for name, draft in _NAMED.items() if isinstance(said, str) and name in said), default)


def in_2020(schema: Any, draft: int) -> Any:
    """Return a schema of an older draft as one of 2020-12 that accepts the same.

    What a draft says of the content of strings is an annotation in every one of them (Validation 2019-09, section 8.1).
    """
    if not isinstance(schema, dict):
        return schema
    said = schema
    if draft <= DRAFT_7 and isinstance(schema.get("$ref"), str):  # Core draft-07, section 8.3: others are ignored
        said = {key: value for key, value in schema.items() if key in _BESIDE_A_REFERENCE}
    kept = {key: value for key, value in said.items() if key != "$schema" and key not in _ANNOTATIONS}
    new = parts_of(kept, lambda part: in_2020(part, draft))
    if draft == DRAFT_4:
        _bounds_of_draft_4(new)
    if draft <= DRAFT_7:
        _names_of_draft_7(new)
    if draft <= DRAFT_2019:
        _items_of_2019(new)
    return new


def _bounds_of_draft_4(schema: dict[str, Any]) -> None:
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(bound), bool) and schema.pop(bound) and limit in schema:
            schema[bound] = schema.pop(limit)
    if isinstance(schema.get("id"), str):
        schema["$id"] = schema.pop("id")


def _names_of_draft_7(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("$id"), str) and schema["$id"].startswith("#"):
        schema["$anchor"] = schema.pop("$id")[1:]
    if isinstance(schema.get("dependencies"), dict):
        for name, part in schema.pop("dependencies").items():
            where = "dependentRequired" if isinstance(part, list) else "dependentSchemas"
            schema.setdefault(where, {})[name] = part


def _items_of_2019(schema: dict[str, Any]) -> None:
    others = schema.pop("additionalItems", None)  # says nothing beside an `items` that is one schema
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if others is not None:
            schema["items"] = others


def parts_of(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a copy of a schema with each schema in it changed; of any draft, and constants are no schemas."""
    return {key: _part(key, value, change) for key, value in schema.items()}


def _part(key: str, value: Any, change: Callable[[Any], Any]) -> Any:
    if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
        return {name: part if isinstance(part, list) else change(part) for name, part in value.items()}
    if (key in _SCHEMA_LISTS or key == "items") and isinstance(value, list):
        return [change(part) for part in value]
    return change(value) if key in _SCHEMAS else value
