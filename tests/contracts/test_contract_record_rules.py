"""Rules over records as contracts compiles them, what is classified, who an object is closed for, lines of findings."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
import yaml
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil_contracts.check_entities import DatasetProfile, FieldProfile, ProfileSubject
from counterfoil_contracts.check_errors import ProfileEmptyError
from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.compatibility.readers import for_readers
from counterfoil_contracts.drafting import Named, draft
from counterfoil_contracts.entities import CheckedDocument, CompiledDataset, RecordRule, Verdict
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.odcs.expressions import ExpressionError, checked, holds
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.calls import Contracts, document

MANY: dict[str, Any] = {"logicalType": "array", "items": {"logicalType": "object"}}


def cel(implementation: Any, **more: Any) -> dict[str, Any]:
    return {"type": "custom", "engine": "cel", "implementation": implementation, **more}


def check(*properties: dict[str, Any], **dataset: Any) -> CheckedDocument:
    text = yaml.safe_load(document())
    text["schema"] = [{"name": "orders", "properties": list(properties), **dataset}]
    return check_document(yaml.safe_dump(text, allow_unicode=True))


def compiled(*properties: dict[str, Any], **dataset: Any) -> CompiledDataset:
    found = check(*properties, **dataset)
    assert not found.findings, found.findings
    return found.compiled[0]


def rules(*properties: dict[str, Any], **dataset: Any) -> tuple[RecordRule, ...]:
    return compiled(*properties, **dataset).record_rules


TOTAL = {"name": "total", "logicalType": "number"}


def test_a_rule_of_a_dataset_is_over_the_record() -> None:
    quality = [cel("record.total > 0.0", id="positive", description="Sold.", severity="error")]
    assert rules(TOTAL, quality=quality) == (
        RecordRule("positive", "record.total > 0.0", "Sold.", "error", "$", crossing=False),
    )


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ({"total": 1}, True),
        ({"total": -1}, False),
        ({"total": None}, True),
        ({}, True),
    ],
)
def test_a_rule_of_a_property_is_over_its_value_where_there_is_one(record: Any, kept: bool) -> None:
    (rule,) = rules({**TOTAL, "quality": [cel("value > 0.0 // or more")]})
    assert (rule.path, rule.rule_id) == ("$.total", "$.total 0")
    assert holds(rule.expression, record) is kept


def test_a_rule_of_an_items_property_is_over_every_value() -> None:
    price = {"name": "price", "logicalType": "number", "quality": [cel("value > 0.0")]}
    items = {"logicalType": "object", "properties": [price]}
    (rule,) = rules({"name": "order lines", "logicalType": "array", "items": items})
    assert rule.path == "$['order lines'][*].price"
    for values, kept in (([], True), ([None, {}], True), ([{"price": 1}], True), ([{"price": 1}, {"price": 0}], False)):
        assert holds(rule.expression, {"order lines": values}) is kept


def test_a_rule_of_a_maps_value_is_over_every_value() -> None:
    counted = {"key": {"logicalType": "string"}, "value": {"logicalType": "integer", "quality": [cel("value > 1")]}}
    (rule,) = rules({"name": "counts", "logicalType": "map", "map": counted})
    assert rule.path == "$.counts[*]"
    for value, kept in (({"a": 2, "b": None}, True), ({"a": 2, "b": 1}, False), (None, True)):
        assert holds(rule.expression, {"counts": value}) is kept


@pytest.mark.parametrize("name", ["in", "true", "a b", "a'b", 'a"b', "a\\b", "größe", "0"])
def test_any_name_a_property_can_have_can_have_a_rule(name: str) -> None:
    (rule,) = rules({"name": name, "logicalType": "integer", "quality": [cel("value == record['other']")]})
    assert holds(rule.expression, {name: 1, "other": 1})
    assert not holds(rule.expression, {name: 1, "other": 2})


@pytest.mark.parametrize(
    "text",
    [
        "1 + 'a'",
        "record.total >",
        "value > 0",
        "other > 0",
        "1 + 1",
        "'a'",
        "(" * 500,
        "x" * 3_000,
        "record.",
        "",
        "[true]",
    ],
)
def test_what_is_no_rule_is_told_with_its_place(text: str) -> None:
    (found,) = check(TOTAL, quality=[cel(text)]).findings
    assert (found.reason, found.path) == ("RULE_INVALID", "$.schema[0].quality[0].implementation")
    assert found.line > 0


def test_what_an_expression_says_beside_the_point_stays_beside_it() -> None:
    (rule,) = rules({**TOTAL, "quality": [cel("value > 1.0 // ) || true")]})
    assert not holds(rule.expression, {"total": 0})
    assert [each.reason for each in check({**TOTAL, "quality": [cel("true)) || ((true")]}).findings] == ["RULE_INVALID"]


def test_other_engines_are_not_ours() -> None:
    other = {"type": "custom", "engine": "soda", "implementation": "duplicate_percent"}
    assert rules(TOTAL, quality=[other]) == ()


def test_rules_have_names_of_their_own_and_are_not_too_many() -> None:
    twice = check(TOTAL, quality=[cel("true", id="a"), cel("true", name="a")])
    assert [each.reason for each in twice.findings] == ["RULE_TWICE"]
    assert [each.reason for each in check(TOTAL, quality=[cel({"a": 1})]).findings] == ["RULE_INVALID"]
    many = check(TOTAL, quality=[cel("true", id=f"r{number}") for number in range(51)])
    assert [each.reason for each in many.findings] == ["TOO_MANY_RULES"]


@pytest.mark.parametrize(
    ("text", "crossing"),
    [
        ("record.total > record.tax", False),
        ("record.lines.all(l, l.price > 0.0 && l.price < 9.0)", False),
        ("record.lines.all(l, l.parts.exists(p, p.size > 0))", False),
        ("record.lines.filter(l, l.price > 0.0).all(l, l.price < 9.0)", False),
        ("record.lines.all(l, l.record > 0)", False),
        ("record.lines.all(l, l.name in ['record', \"record\"])", False),
        ("record.lines.all(l, l.price > 0.0) && record.total > 0.0", False),
        ("record.lines.all(l, l.price <= record.total)", True),
        ("record.lines.all(l, l.parts.exists(p, p.size in l.sizes))", True),
        ("record.lines.all(l, record . lines.exists(m, m.price == 1.0))", True),
        ("record.lines.map(l, l.price + record.tax).all(p, p > 0.0)", True),
    ],
)
def test_a_rule_that_holds_items_against_the_rest_is_known(text: str, crossing: bool) -> None:
    assert checked(text, of_value=False).crossing is crossing


def test_a_list_of_constants_or_a_step_into_a_list_makes_nothing_more() -> None:
    for text in (
        "record.lines.all(l, l.parts.all(p, p.tags.all(t, t in ['a', 'b', 'c', 'd'] && record.lines[0].ok)))",
        "record.lines.all(l, l.sku in [record.a, record.b, record.c])",
        "record.lines.all(l, l.price + l.tax <= record.total)",
    ):
        assert checked(text, of_value=False).text == text


def test_a_rule_of_an_item_that_looks_at_the_record_holds_items_against_the_rest() -> None:
    price = {"name": "price", "logicalType": "number"}
    line = {"logicalType": "object", "properties": [{**price, "quality": [cel("value <= record.total")]}]}
    (rule,) = rules({"name": "lines", "logicalType": "array", "items": line}, TOTAL)
    assert rule.crossing
    (alone,) = rules({**price, "quality": [cel("value <= record.total")]}, TOTAL)
    assert not alone.crossing


@pytest.mark.parametrize(
    "text",
    [
        "[record.t].all(a, [a + a].all(b, [b + b].all(c, [c + c].all(d, [d + d].all(e, e != '')))))",
        "[record.t].map(a, a + a).map(b, b + b).map(c, c + c).map(d, d + d).map(e, e + e)[0] != ''",
        "[record.t].all(a, a" + " + a" * 20 + " != '')",
        "[record.t].map(a, [a, a]).map(b, [b, b]).map(c, [c, c]).map(d, [d, d]) == []",
        "[record.t].all(a, [{'x': a, 'y': a}].all(b, [{'x': b, 'y': b}].all(c, [{'x': c, 'y': c}] != [])))",
    ],
)
def test_a_rule_that_could_make_much_of_a_small_record_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="could make much"):
        checked(text, of_value=False)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("record.lv( )[]{}+&|!<>=,'\"\\/\n0a"), max_size=60))
def test_no_text_breaks_the_compiler_of_rules(text: str) -> None:
    try:
        expression = checked(text, of_value=True)
    except ExpressionError:
        return
    assert expression.text == text


def test_classified_fields_are_told_by_path_nested_ones_too() -> None:
    price = {"name": "price", "logicalType": "number", "classification": "internal"}
    lines = {"name": "lines", "logicalType": "array", "items": {"logicalType": "object", "properties": [price]}}
    email = {"name": "email", "logicalType": "string", "classification": "restricted"}
    assert compiled(email, lines).classifications == (("$.email", "restricted"), ("$.lines[*].price", "internal"))


async def test_rules_and_classifications_reach_ingest_with_their_hashes(contracts: Contracts) -> None:
    def text(version: str, expression: str, description: str) -> str:
        quality = [cel(expression, id="r", description=description)]
        properties = [{"name": "name", "logicalType": "string", "classification": "restricted", "quality": quality}]
        return document("shop", version, properties=properties)

    await contracts.submit(text("1.0.0", "value != ''", "Said."), activate=True)
    first = await contracts.look_up("orders")
    (rule,) = first.record_rules
    assert (rule.rule_id, rule.description, rule.path) == ("r", "Said.", "$.name")
    assert [(each.path, each.classification) for each in first.classifications] == [("$.name", "restricted")]
    same = await contracts.submit(text("1.0.1", "value != ''", "Said again."))
    other = await contracts.submit(text("2.0.0", "value != 'x'", "Said."))
    assert same.compiled[0].rules_sha256 == first.rules_sha256 != other.compiled[0].rules_sha256
    assert len(first.rules_sha256) == len(first.classifications_sha256) == 64
    plain = await contracts.submit(document("plain", datasets=("plains",)))
    assert (plain.compiled[0].rules_sha256, plain.compiled[0].classifications_sha256) == ("", "")


async def compared(contracts: Contracts, before: str, after: str) -> tuple[Any, Any]:
    """Return how the second version compares with the first, both ways."""
    await contracts.submit(before, activate=True)
    request = pb.CheckContractRequest(document=after)
    answer = await contracts.stub.CheckContract(request, **contracts.as_principal())
    (found,) = answer.comparisons
    return found.backward, found.forward


def priced(version: str, *expressions: str, golden: list[Any] | None = None) -> str:
    text = yaml.safe_load(document("shop", version))
    custom = [{"property": "goldenRecords", "value": golden}] if golden is not None else []
    properties = [TOTAL, {"name": "tax", "logicalType": "number"}]
    quality = [cel(expression, id=f"r{number}") for number, expression in enumerate(expressions)]
    text["schema"] = [{"name": "orders", "properties": properties, "quality": quality, "customProperties": custom}]
    return yaml.safe_dump(text)


BREAKING, COMPATIBLE = pb.SchemaComparison.PROVEN_BREAKING, pb.SchemaComparison.PROVEN_COMPATIBLE


async def test_a_new_rule_is_shown_to_break_by_a_record_that_the_schema_alone_would_take(contracts: Contracts) -> None:
    expression = "!has(record.total) || record.total == null || record.total < 3.0"
    backward, forward = await compared(contracts, priced("1.0.0"), priced("2.0.0", expression))
    assert (backward.verdict, forward.verdict) == (BREAKING, COMPATIBLE)
    (found,) = backward.breaks
    assert (found.keyword, found.detail) == ("quality", "the rule r0 does not hold")
    assert json.loads(found.witness)["total"] >= 3


async def test_a_rule_that_ends_breaks_who_reads_and_one_that_stays_breaks_nobody(contracts: Contracts) -> None:
    kept, ended = "!has(record.tax) || record.tax == null || record.tax >= 0.0", "has(record.total)"
    backward, forward = await compared(contracts, priced("1.0.0", kept, ended), priced("1.1.0", kept))
    assert (backward.verdict, forward.verdict) == (COMPATIBLE, BREAKING)
    assert "total" not in json.loads(forward.breaks[0].witness)


async def test_a_rule_of_which_no_record_is_found_is_unproven(contracts: Contracts) -> None:
    needle = "!has(record.total) || record.total == null || record.total != 7612.0 + 100.25"
    backward, forward = await compared(contracts, priced("1.0.0"), priced("2.0.0", needle))
    assert (backward.verdict, forward.verdict) == (pb.SchemaComparison.UNPROVEN, COMPATIBLE)


async def test_a_golden_record_shows_what_nobody_would_find(contracts: Contracts) -> None:
    needle = "!has(record.total) || record.total == null || record.total != 7612.0 + 100.25"
    golden = [{"total": 7712.25, "tax": 1}]
    backward, _ = await compared(contracts, priced("1.0.0", golden=golden), priced("2.0.0", needle))
    assert backward.verdict == BREAKING
    assert json.loads(backward.breaks[0].witness) == {"total": 7712.25}


def test_a_golden_record_keeps_its_own_contract() -> None:
    def faults(golden: Any, *expressions: str) -> list[tuple[str, str]]:
        found = check_document(priced("1.0.0", *expressions, golden=golden)).findings
        return [(each.reason, each.path.removeprefix("$.schema[0].customProperties[0].value")) for each in found]

    assert faults([{"total": 1}, {}]) == []
    assert faults([{"total": 1}, {"total": "1"}, 3]) == [("GOLDEN_RECORD", "[1]"), ("GOLDEN_RECORD", "[2]")]
    assert faults([{"total": 1}], "record.total > 1.0") == [("GOLDEN_RECORD", "[0]")]
    assert faults({"total": 1}) == faults([{}] * 21) == [("GOLDEN_RECORD", "")]


def test_an_object_can_be_closed_for_who_sends_and_open_for_who_reads() -> None:
    custom = [{"property": "contentModel", "value": "producer-closed"}]
    before, after = (
        orjson.loads(compiled(*properties, customProperties=custom).json_schema)
        for properties in ((TOTAL,), (TOTAL, {"name": "tax", "logicalType": "number"}))
    )
    assert before["additionalProperties"] is False
    assert compare(before, after).verdict is Verdict.PROVEN_COMPATIBLE
    assert compare(after, before).verdict is Verdict.PROVEN_BREAKING
    assert compare(after, for_readers(before)).verdict is Verdict.PROVEN_COMPATIBLE
    closed = orjson.loads(compiled(TOTAL).json_schema)
    assert for_readers(closed) == closed


LINES = """apiVersion: v3.2.0
kind: DataContract
id: shop
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - name: total
        logicalType: number
      - &second
        name: tax
        logicalType: string
        logicalTypeOptions: {pattern: "(",
          minLength: 3, maxLength: 1}
"""


def found_lines(text: str) -> dict[str, int]:
    return {each.path.removeprefix("$.schema[0]"): each.line for each in check_document(text).findings}


def test_a_finding_tells_the_line_of_its_key() -> None:
    second = ".properties[1].logicalTypeOptions"
    assert found_lines(LINES) == {second: 14, f"{second}.pattern": 14}
    assert found_lines(LINES.replace("number", "numbr"))[".properties[0].logicalType"] == 10
    assert found_lines("id: a\nid: b\n") == {"$.id": 2}
    assert found_lines("a: 1\nb: [1") == {"$": 3}


def test_a_finding_in_json_tells_its_line_whatever_it_is_indented_by() -> None:
    text = yaml.safe_load(LINES)
    for indent in ("\t", "  "):
        written = json.dumps(text, indent=indent)
        line = next(number for number, each in enumerate(written.splitlines(), 1) if '"pattern"' in each)
        assert found_lines(written)[".properties[1].logicalTypeOptions.pattern"] == line


def test_a_text_that_wants_to_take_for_ever_takes_no_time() -> None:
    bomb = "a: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"b{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    for text in (bomb, "[" * 100_000, "a: " * 50_000, "- " * 50_000, '{"a":' * 50_000, "? " * 10_000, "&a " * 10_000):
        began = time.perf_counter()
        assert check_document(text).findings
        assert time.perf_counter() - began < 10


names = st.text(max_size=8) | st.sampled_from(["select", "_x", "email", "context", "Größe", "a.b", "*"])
types = st.lists(
    st.tuples(st.sampled_from(["string", "integer", "number", "boolean", "object", "array"]), st.integers(1, 200)),
    max_size=3,
    unique_by=lambda each: each[0],
)


@st.composite
def fields(draw: st.DrawFn) -> FieldProfile:
    steps = draw(st.lists(names | st.just(None), min_size=1, max_size=3))
    path = "$" + "".join("[*]" if step is None else "['" + _escaped(step) + "']" for step in steps)
    seen = draw(types)
    values = draw(st.lists(st.integers(-5, 5).map(str) | st.text(max_size=3), max_size=4, unique=True))
    if any(name != "string" for name, _ in seen):
        values = [each for each in values if each.lstrip("-").isdigit() and each.isascii()]
    return FieldProfile(
        path=path,
        parents=200,
        present=draw(st.integers(1, 200)),
        nulls=draw(st.integers(0, 1)),
        types=tuple(seen),
        format=draw(st.sampled_from(["", "date-time", "date", "time", "uuid", "email", "ipv4", "uri"])),
        values=tuple((value, 9) for value in values),
        distinct=len(values),
        personal=draw(st.sampled_from(["", "email"])),
    )


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("'", "\\'")


@settings(max_examples=150, deadline=None)
@given(st.lists(fields(), max_size=6, unique_by=lambda each: each.path))
def test_whatever_was_seen_a_draft_can_be_submitted(found: list[FieldProfile]) -> None:
    profile = DatasetProfile("unplanned", 200, tuple(found))
    try:
        drafted = draft(profile, ProfileSubject("unplanned", event="Select"), Named("shop", owner="growth"))
    except ProfileEmptyError:
        return
    assert not check_document(drafted.document).findings, drafted.document
    assert all(question.endswith(".") for question in drafted.open_questions)
