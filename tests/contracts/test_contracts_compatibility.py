"""Whether one schema accepts all that another accepts: laws over made-up pairs, and pairs that are known to be hard."""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema
import jsonschema_rs
from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.entities import Verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PAIRS = int(os.environ.get("COMPATIBILITY_PAIRS", "1000"))
NAMES = ("a", "b", "c")
TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")
PATTERNS = ("^a", "^ab?$", "b", "^[a-c]+$")
SCALARS: list[Any] = [None, True, False, 0, 1, 2, 3, 5, -1, 1.5, "", "a", "ab", "abc", "b"]


LISTS: list[Any] = [[], *([each] for each in SCALARS), *([a, b] for a in SCALARS[::3] for b in SCALARS[::2])]
OBJECTS: list[Any] = [
    {},
    *({name: each} for name in (*NAMES, "ab", "d") for each in (*SCALARS, [], {}, [1], {"a": 1}, {"b": "a"})),
    *({"a": a, "b": b} for a in SCALARS[::2] for b in SCALARS[1::2]),
    *({"a": a, "b": b, "c": c} for a in (0, "a", {}) for b in (1, "b", [0]) for c in (2, "ab", None)),
]
RECORDS: list[Any] = [*SCALARS, *LISTS, *OBJECTS, *([each] for each in OBJECTS[::7])]


def schemas() -> st.SearchStrategy[Any]:
    bounds, scalars = st.integers(0, 3), st.sampled_from(SCALARS)
    leaves = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"type": st.sampled_from(TYPES)}),
        st.fixed_dictionaries({"enum": st.lists(scalars, min_size=1, max_size=3, unique_by=repr)}),
        st.fixed_dictionaries({"const": scalars}),
        st.fixed_dictionaries(
            {"type": st.just("string")},
            optional={"minLength": bounds, "maxLength": bounds, "pattern": st.sampled_from(PATTERNS)},
        ),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["integer", "number"])},
            optional={
                "minimum": bounds, "maximum": bounds, "exclusiveMinimum": bounds, "exclusiveMaximum": bounds,
                "multipleOf": st.sampled_from([1, 2, 3, 0.5]),
            },
        ),
    )  # fmt: skip

    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.fixed_dictionaries(
                {"type": st.just("object")},
                optional={
                    "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
                    "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
                    "additionalProperties": st.one_of(st.booleans(), inner),
                    "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, min_size=1, max_size=1),
                    "minProperties": bounds, "maxProperties": bounds,
                    "propertyNames": st.fixed_dictionaries({"pattern": st.sampled_from(["^a", "^[ab]$"])}),
                    "dependentRequired": st.just({"a": ["b"]}),
                },
            ),
            st.fixed_dictionaries(
                {"type": st.just("array")},
                optional={
                    "items": inner, "minItems": bounds, "maxItems": bounds, "uniqueItems": st.booleans(),
                    "contains": inner, "prefixItems": st.lists(inner, min_size=1, max_size=2),
                },
            ),
            st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
            st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=2)}),
            st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
            st.fixed_dictionaries({"not": inner}),
            st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
        )  # fmt: skip

    return st.recursive(leaves, deeper, max_leaves=6)


SCHEMAS = schemas()
BOOLEANS = st.booleans()


@st.composite
def changed(draw: st.DrawFn) -> tuple[Any, Any]:
    """Draw a schema and what an edit makes of it: most changes in life are small."""
    before = draw(SCHEMAS)
    if draw(BOOLEANS) and isinstance(before, dict) and before:
        after = dict(before)
        key = draw(st.sampled_from(sorted(before)))
        other = draw(SCHEMAS)
        if key in other and draw(BOOLEANS):
            after[key] = other[key]
        else:
            del after[key]
        return (before, after) if draw(BOOLEANS) else (after, before)
    return before, draw(SCHEMAS)


def independent(schema: Any) -> Any:
    return jsonschema.Draft202012Validator(schema)


@settings(max_examples=PAIRS, deadline=None, suppress_health_check=list(HealthCheck))
@given(changed(), st.integers(0, 6))
def test_no_record_ever_contradicts_a_verdict(pair: tuple[Any, Any], first: int) -> None:
    writer, reader = pair
    found = compare(writer, reader)
    old, new = independent(writer), independent(reader)
    for each in found.breaks:
        assert old.is_valid(json.loads(each.witness))
        assert not new.is_valid(json.loads(each.witness))
    if found.verdict is Verdict.PROVEN_COMPATIBLE:
        # All by the engine that ingest has, and as many as there is time for by the independent one.
        ours, theirs = (jsonschema_rs.Draft202012Validator(each) for each in pair)
        assert [record for record in RECORDS if ours.is_valid(record) and not theirs.is_valid(record)] == []
        assert [record for record in RECORDS[first::7] if old.is_valid(record) and not new.is_valid(record)] == []


@settings(max_examples=PAIRS // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCHEMAS)
def test_a_schema_is_compatible_with_itself_or_nobody_knows(schema: Any) -> None:
    assert compare(schema, schema).verdict is not Verdict.PROVEN_BREAKING


def test_patterns_that_can_take_for_ever_do_not() -> None:
    before = {"type": "string", "minLength": 900}
    for pattern in ("(a|a)*c$", "^(a+)+$", "^(x+x+)+y$"):
        assert compare(before, {**before, "pattern": pattern}).verdict is not Verdict.PROVEN_COMPATIBLE
        assert compare({**before, "pattern": pattern}, before).verdict is not Verdict.PROVEN_BREAKING


def nested(levels: int, leaf: Any, *, wide: int = 1) -> Any:
    names = [f"p{number}" for number in range(wide)]
    for _ in range(levels):
        leaf = {"type": "object", "properties": dict.fromkeys(names, leaf), "required": names}
    return leaf


def test_what_breaks_deep_inside_is_found_and_a_large_schema_costs_no_more_than_its_size() -> None:
    for levels, wide in ((20, 1), (4, 4)):  # the latter allows a record of 256 numbers
        before, after = ({"type": "integer", "minimum": bound} for bound in (0, 3))
        found = compare(nested(levels, before, wide=wide), nested(levels, after, wide=wide))
        assert found.verdict is Verdict.PROVEN_BREAKING
        assert {each.keyword for each in found.breaks} == {"minimum"}
