"""A schema with what it refers to as one document: an independent validator judges by the parts and by the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from counterfoil_contracts.registry.bundling import Linked, bundled
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

WHOLE = {"definitions": {"w": {"type": "integer"}}, "$ref": "#/definitions/w"}
MONEY = {
    "type": "object",
    "properties": {"micros": {"$ref": "whole.json"}, "cents": {"$ref": "whole.json#/definitions/w"}},
    "definitions": {"code": {"type": "string", "maxLength": 3}},
    "additionalProperties": {"$ref": "#/definitions/code"},
}
RECORDS: list[Any] = [
    {},
    {"total": {"micros": 1}},
    {"total": {"micros": "1"}},
    {"total": {"cents": 1.5}},
    {"total": {"cents": 1, "currency": "EUR"}},
    {"total": {"currency": "EURO"}},
    {"total": []},
    {"parts": [{"total": {"micros": 1}}]},
    {"parts": [{"total": {"micros": None}}]},
    {"$ref": "money.json"},
    {"count": 1},
    {"count": "1"},
]


def order(**others: Any) -> dict[str, Any]:
    """Return a schema that refers to money in every way, and to itself."""
    return {
        "type": "object",
        "properties": {
            "total": {"$ref": "money.json"},
            "parts": {"type": "array", "items": {"$ref": "#"}},
            "count": {"$ref": "whole.json#/definitions/w"},
            "$ref": {"enum": ["money.json", {"$ref": "money.json"}]},
        },
        "default": {"$ref": "whole.json"},
        **others,
    }


@pytest.mark.parametrize("others", [{}, {"$defs": {"reference_1": {"type": "null"}}}])
def test_the_whole_accepts_what_the_parts_do(others: Mapping[str, Any]):
    whole = Linked(WHOLE)
    linked = Linked(order(**others), {"money.json": Linked(MONEY, {"whole.json": whole}), "whole.json": whole})
    made = bundled(linked)
    parts: Registry[Any] = Registry().with_resources(
        (name, Resource(contents=document, specification=DRAFT7))
        for name, document in (("money.json", MONEY), ("whole.json", WHOLE))
    )
    by_parts = jsonschema.Draft7Validator(order(**others), registry=parts)
    by_whole = jsonschema.Draft202012Validator(made)
    verdicts = [by_parts.is_valid(record) for record in RECORDS]
    assert [by_whole.is_valid(record) for record in RECORDS] == verdicts
    assert set(verdicts) == {True, False}
    assert made["default"] == {"$ref": "whole.json"}, "what is no schema is left alone"
    assert made["properties"]["$ref"]["enum"][1] == {"$ref": "money.json"}
    assert {**made["$defs"], **others.get("$defs", {})} == made["$defs"], "its own definitions stay"
    assert len(made["$defs"]) == 2 + len(others.get("$defs", {}))


def test_names_are_resolved_as_addresses_are():
    money = Linked({"$id": "https://example.com/schemas/money.json", "type": "integer"})
    for name in ("money.json", "https://example.com/schemas/money.json"):
        for reference in ("money.json", "/schemas/money.json", "https://example.com/schemas/money.json"):
            document = {"$id": "https://example.com/schemas/order.json", "properties": {"total": {"$ref": reference}}}
            made = bundled(Linked(document, {name: money}))
            valid = jsonschema.Draft202012Validator(made).is_valid
            assert (valid({"total": 1}), valid({"total": "1"})) == (True, False), (name, reference)


def test_parts_of_older_drafts_mean_the_same():
    pair = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": "pair.json",
        "minimum": 1,
        "exclusiveMinimum": True,
    }
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "pair.json", "maximum": 5}
    valid = jsonschema.Draft202012Validator(bundled(Linked(document, {"pair.json": Linked(pair)}))).is_valid
    assert [valid(number) for number in (1, 2, 5, 6)] == [False, True, True, False]


def test_true_and_false_are_schemas_too():
    assert bundled(Linked(False)) is False
    made = bundled(Linked({"properties": {"no": {"$ref": "never"}}}, {"never": Linked(False)}))
    assert not jsonschema.Draft202012Validator(made).is_valid({"no": 1})
