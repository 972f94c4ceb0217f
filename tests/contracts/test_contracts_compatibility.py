"""Whether one schema accepts all that another accepts: laws over made-up pairs, and pairs that are known to be hard."""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema
from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.entities import Verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PAIRS = int(os.environ.get("COMPATIBILITY_PAIRS", "1000"))
NAMES = ("a", "b", "c")
TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")
PATTERNS = ("^a", "^ab?$", "b", "^[a-c]+$")
SCALARS: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 3, 5, -1, 1.5, "", "a", "ab", "abc", "b"]
)


def records(depth: int = 3) -> st.SearchStrategy[Any]:
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from((*NAMES, "d")), inner, max_size=3)
        ),
        max_leaves=depth,
    )


def schemas() -> st.SearchStrategy[Any]:
    bounds = st.integers(0, 3)
    leaves = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"type": st.sampled_from(TYPES)}),
        st.fixed_dictionaries({"enum": st.lists(SCALARS, min_size=1, max_size=3, unique_by=repr)}),
        st.fixed_dictionaries({"const": SCALARS}),
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


@st.composite
def changed(draw: st.DrawFn) -> tuple[Any, Any]:
    """Draw a schema and what an edit makes of it: most changes in life are small."""
    before = draw(schemas())
    if draw(st.booleans()) and isinstance(before, dict) and before:
        after = dict(before)
        key = draw(st.sampled_from(sorted(before)))
        other = draw(schemas())
        if key in other and draw(st.booleans()):
            after[key] = other[key]
        else:
            del after[key]
        return (before, after) if draw(st.booleans()) else (after, before)
    return before, draw(schemas())


def independent(schema: Any) -> Any:
    return jsonschema.Draft202012Validator(schema)


@settings(max_examples=PAIRS, deadline=None, suppress_health_check=list(HealthCheck))
@given(changed(), st.lists(records(), min_size=20, max_size=20))
def test_no_record_ever_contradicts_a_verdict(pair: tuple[Any, Any], tried: list[Any]) -> None:
    writer, reader = pair
    found = compare(writer, reader)
    old, new = independent(writer), independent(reader)
    for each in found.breaks:
        assert old.is_valid(json.loads(each.witness))
        assert not new.is_valid(json.loads(each.witness))
    against = [record for record in tried if old.is_valid(record) and not new.is_valid(record)]
    if against:
        assert found.verdict is not Verdict.PROVEN_COMPATIBLE, against[0]


@settings(max_examples=PAIRS // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas())
def test_a_schema_is_compatible_with_itself_or_nobody_knows(schema: Any) -> None:
    assert compare(schema, schema).verdict is not Verdict.PROVEN_BREAKING


def test_patterns_that_can_take_for_ever_do_not() -> None:
    before = {"type": "string", "minLength": 900}
    for pattern in ("(a|a)*c$", "^(a+)+$", "^(x+x+)+y$"):
        assert compare(before, {**before, "pattern": pattern}).verdict is not Verdict.PROVEN_COMPATIBLE
        assert compare({**before, "pattern": pattern}, before).verdict is not Verdict.PROVEN_BREAKING
