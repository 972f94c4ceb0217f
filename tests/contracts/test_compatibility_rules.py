"""Compatibility by the rules that other registries have: what each policy allows, and where the rules do not look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from counterfoil_contracts.compatibility.drafts import DRAFT_7, draft_of, in_2020
from counterfoil_contracts.compatibility.rules import LENIENT, STRICT, TooMuchToCompareError, violations
from hypothesis import HealthCheck, given, settings

from tests.contracts.test_compatibility_vectors import apicurio
from tests.contracts.test_contracts_compatibility import schemas

OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED = {**OPEN, "additionalProperties": False}
PARTLY = {**OPEN, "additionalProperties": {"type": "string"}}
TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def having(schema: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """Return an object's schema with more properties."""
    return {**schema, "properties": {**schema["properties"], **properties}}


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object's schema with a property less."""
    return {**schema, "properties": {key: part for key, part in schema["properties"].items() if key != name}}


def kinds(writer: Any, reader: Any, *, allowed: frozenset[str] = STRICT) -> list[str]:
    """Return the kinds of the differences that break."""
    written, read = (in_2020(each, draft_of(each, DRAFT_7)) for each in (writer, reader))
    return [each.kind for each in violations(written, read, allowed=allowed)]


@pytest.mark.parametrize(
    ("writer", "reader", "strict", "lenient"),
    [
        (OPEN, having(OPEN, b=TEXT), "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", ""),
        (OPEN, having(OPEN, b={}), "", ""),
        (OPEN, without(OPEN, "a"), "", ""),
        (CLOSED, having(CLOSED, b=TEXT), "", ""),
        (CLOSED, without(CLOSED, "a"), "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", ""),
        (having(CLOSED, b=False), CLOSED, "", ""),
        (PARTLY, having(PARTLY, b=TEXT), "", ""),
        (PARTLY, having(PARTLY, b=WHOLE), "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", ""),
        (having(PARTLY, b=TEXT), PARTLY, "", ""),
        (having(PARTLY, b=WHOLE), PARTLY, "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", ""),
        (OPEN, CLOSED, "ADDITIONAL_PROPERTIES_REMOVED", ""),
        (OPEN, PARTLY, "ADDITIONAL_PROPERTIES_NARROWED", ""),
        (CLOSED, OPEN, "", ""),
        (CLOSED, PARTLY, "", ""),
    ],
)
def test_a_content_model_decides_how_properties_come_and_go(
    writer: dict[str, Any], reader: dict[str, Any], strict: str, lenient: str
):
    assert kinds(writer, reader) == ([strict] if strict else [])
    assert kinds(writer, reader, allowed=LENIENT) == ([lenient] if lenient else [])


@pytest.mark.parametrize(
    ("writer", "reader", "kind"),
    [
        (WHOLE, NUMBER, ""),
        (NUMBER, WHOLE, "TYPE_NARROWED"),
        (TEXT, NUMBER, "TYPE_CHANGED"),
        ({}, TEXT, "TYPE_NARROWED"),
        (TEXT, {}, ""),
        ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 6}, ""),
        ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 4}, "MAX_LENGTH_DECREASED"),
        ({"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}, "PATTERN_CHANGED"),
        ({"type": "integer", "multipleOf": 6}, {"type": "integer", "multipleOf": 3}, ""),
        ({"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 6}, "MULTIPLE_OF_EXPANDED"),
        ({"minimum": 1}, {"exclusiveMinimum": 0}, ""),
        ({"exclusiveMinimum": 1}, {"minimum": 1}, ""),
        ({"minimum": 1}, {"exclusiveMinimum": 1}, "EXCLUSIVE_MINIMUM_ADDED"),
        ({"maximum": 5}, {"maximum": 4}, "MAXIMUM_DECREASED"),
        ({"maximum": 4}, {"maximum": 5}, ""),
        ({"enum": [1, 2]}, {"enum": [1, 2, 3]}, ""),
        ({"enum": [1, 2]}, {"enum": [True, 2]}, "ENUM_ARRAY_CHANGED"),
        ({"enum": [1, 2]}, {"enum": [1]}, "ENUM_ARRAY_NARROWED"),
        ({"const": 1.0}, {"enum": [1]}, ""),
        ({"type": ["string", "null"]}, {"type": ["null", "string", "integer"]}, ""),
        ({"type": ["string", "null"]}, {"type": "string"}, "SUM_TYPE_NARROWED"),
        (TEXT, {"oneOf": [NUMBER, TEXT]}, ""),
        ({"oneOf": [TEXT, NUMBER]}, {"oneOf": [TEXT, WHOLE]}, "COMBINED_TYPE_SUBSCHEMAS_CHANGED"),
        ({"allOf": [TEXT, {"minLength": 1}]}, TEXT, ""),
        ({"allOf": [TEXT, {"minLength": 1}]}, {"oneOf": [TEXT, {"minLength": 1}]}, "COMBINED_TYPE_CHANGED"),
        ({"not": {"enum": [1, 2]}}, {"not": {"enum": [1]}}, ""),
        ({"not": {"enum": [1]}}, {"not": {"enum": [1, 2]}}, "NOT_TYPE_EXTENDED"),
        ({**OPEN, "required": ["a"]}, OPEN, ""),
        (OPEN, {**OPEN, "required": ["a"]}, "REQUIRED_ATTRIBUTE_ADDED"),
        (OPEN, {**OPEN, "required": ["unnamed"]}, "REQUIRED_ATTRIBUTE_ADDED"),
        (CLOSED, {**having(CLOSED, b=TEXT), "required": ["b"]}, "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL"),
        (CLOSED, {**having(CLOSED, b={**TEXT, "default": ""}), "required": ["b"]}, ""),
        ({"dependencies": {"a": ["b", "c"]}}, {"dependencies": {"a": ["b"]}}, ""),
        ({"dependencies": {"a": ["b"]}}, {"dependencies": {"a": ["b", "c"]}}, "DEPENDENCY_ARRAY_EXTENDED"),
        ({"items": [TEXT]}, {"items": [TEXT, TEXT]}, "ITEM_ADDED_TO_OPEN_CONTENT_MODEL"),
        ({"items": [TEXT], "additionalItems": False}, {"items": [TEXT, TEXT], "additionalItems": False}, ""),
        ({"type": "array", "items": TEXT}, {"type": "array"}, ""),
        ({"type": "array"}, {"type": "array", "items": TEXT}, "ADDITIONAL_ITEMS_NARROWED"),
        ({"uniqueItems": True}, {"uniqueItems": False, "minItems": 0}, "MIN_ITEMS_ADDED"),
    ],
)
def test_each_kind_of_difference_is_allowed_or_not(writer: Any, reader: Any, kind: str):
    assert kinds(writer, reader)[:1] == ([kind] if kind else [])


def test_a_difference_says_where_it_is():
    inner = {"type": "object", "properties": {"list": {"type": "array", "items": {"type": "string", "maxLength": 3}}}}
    tighter = {"type": "object", "properties": {"list": {"type": "array", "items": {"type": "string", "maxLength": 2}}}}
    [found] = violations(inner, tighter, allowed=STRICT)
    assert found.path == ("properties", "list", "items", "maxLength")


def recursive(value: Any) -> dict[str, Any]:
    """Return the schema of a tree."""
    node = {
        "type": "object",
        "properties": {"value": value, "left": {"$ref": "#/$defs/n"}, "right": {"$ref": "#/$defs/n"}},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"n": node}, "$ref": "#/$defs/n"}


def test_schemas_that_contain_themselves_are_compared_to_the_end():
    assert kinds(recursive(WHOLE), recursive(NUMBER)) == []
    assert "TYPE_NARROWED" in kinds(recursive(NUMBER), recursive(WHOLE))
    either = [{"anyOf": [recursive(each)["$defs"]["n"], {"type": "null"}]} for each in (NUMBER, WHOLE)]
    wrapped = [{**recursive(NUMBER), "$defs": {"n": part}} for part in either]
    assert kinds(wrapped[1], wrapped[0]) == []
    assert kinds(wrapped[0], wrapped[1]) != []
    itself = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#"}
    assert kinds(itself, itself) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"anyOf": [{"required": [f"p{number}"]} for number in range(n)]},
        lambda n: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {
                **{f"d{number}": {"properties": {"x": {"$ref": f"#/$defs/d{number + 1}"}}} for number in range(n)},
                f"d{n}": {"type": "string"},
            },
            "$ref": "#/$defs/d0",
        },
    ],
)
def test_what_has_no_bound_is_given_up(make: Callable[[int], Any]):
    assert kinds(make(5), make(5)) == []
    with pytest.raises(TooMuchToCompareError):
        kinds(make(3000), make(3000))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas(), schemas())
def test_a_schema_is_compatible_with_itself_and_lenient_allows_what_strict_does(one: Any, other: Any):
    assert kinds(one, one) == []
    assert set(kinds(one, other, allowed=LENIENT)) <= set(kinds(one, other))


BLIND = ("String: format", "String: content", "Object: propertyNames", "Object: patternProperties", "Array: contains")
"""What the rules do not look at; with them, `if`."""


def test_the_rules_agree_with_published_verdicts_wherever_they_look():
    other = [
        (pair.name, pair.way)
        for pair in apicurio()
        if (kinds(pair.writer, pair.reader) == []) is not pair.compatible
        and not pair.name.startswith((*BLIND, "Conditional: "))
    ]
    assert other == []
