"""Rules over whole records: what is kept, what breaks one, and that an error is never a pass, on every way in."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pytest
from counterfoil_ingest import validation
from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import Candidate, Columns, Outcome
from counterfoil_ingest.files import Rows
from counterfoil_ingest.json_columns import lines
from counterfoil_ingest.judging import Judge, Target
from counterfoil_ingest.parquet_values import parquet_column
from counterfoil_ingest.registry import Compiled, validator_of
from counterfoil_ingest.rules import MOST_CROSSED, Fault, RecordRule, RecordRules

from tests.ingest.conftest import LogRig, batch, event

OPEN: dict[str, Any] = {"type": "object"}


class Line(msgspec.Struct):
    """A record as event protocols give it."""

    type: str


def rule(expression: str, *, name: str = "r", crossing: bool = False, description: str = "") -> RecordRule:
    return RecordRule(name, expression, description, "$", crossing)


def under(*rules: RecordRule, dataset: str = "events", schema: dict[str, Any] | None = None) -> Compiled:
    text = orjson.dumps(schema or OPEN)
    return Compiled("acme", dataset, dataset, "1.0.0", "", validator_of(text), (), text, rules=RecordRules(rules))


def findings(compiled: Compiled, record: Any) -> list[tuple[str, str]]:
    found = validation.findings_of(Candidate("", compiled.dataset, json.dumps(record).encode(), record), compiled)
    return [(each.reason, each.detail) for each in found]


def test_a_record_that_keeps_every_rule_has_no_finding() -> None:
    compiled = under(rule("record.total >= record.tax"), rule("record.currency in ['EUR', 'NOK']"))
    assert findings(compiled, {"total": 2, "tax": 1.5, "currency": "NOK"}) == []


def test_each_rule_that_is_broken_is_told_with_what_it_is_for() -> None:
    compiled = under(
        rule("record.total >= record.tax", name="tax", description="Tax is part of the total."),
        rule("record.total > 100", name="large"),
        rule("record.total > 0", name="positive"),
    )
    assert findings(compiled, {"total": 2, "tax": 3}) == [
        ("CONTRACT_RULE", "It breaks the rule `tax`: Tax is part of the total."),
        ("CONTRACT_RULE", "It breaks the rule `large`."),
    ]


@pytest.mark.parametrize(
    ("expression", "record"),
    [
        ("record.total > 0", {}),
        ("record.total > 0", {"total": "secret"}),
        ("record.total > 0", {"total": None}),
        ("record.paid", {}),
        ("1 / record.total > 0", {"total": 0}),
        ("timestamp(record.at) > timestamp('2020-01-01T00:00:00Z')", {"at": "secret"}),
        ("record.pattern.matches(record.pattern)", {"pattern": "("}),
        ("record.numbers.all(n, n >= 0)", {"numbers": [0] * 20_000}),
        ("record.total > 0", {"total": 1 << 70}),
    ],
)
def test_what_cannot_be_evaluated_is_a_fault_that_holds_no_value(expression: str, record: Any) -> None:
    ((reason, detail),) = findings(under(rule("true", name="other"), rule(expression)), record)
    assert reason == "CONTRACT_RULE_ERROR"
    assert "secret" not in detail


@pytest.mark.parametrize("paid", [1, 1.0, "true", None, False])
def test_only_true_is_true(paid: Any) -> None:
    compiled = under(rule("true", name="other"), rule("record.paid"))
    assert findings(compiled, {"paid": True}) == []
    assert [reason for reason, _ in findings(compiled, {"paid": paid})] == ["CONTRACT_RULE"]


def test_rules_are_for_records_that_the_schema_takes() -> None:
    compiled = under(rule("record.total > 0"), schema={"type": "object", "required": ["total"]})
    assert [reason for reason, _ in findings(compiled, {})] == ["CONTRACT_REQUIRED"]


def test_a_rule_that_holds_items_against_the_rest_has_a_bound_on_its_cost() -> None:
    rules = RecordRules([rule("record.a.all(x, record.a.exists(y, y == x))", crossing=True)])
    small, large = {"a": list(range(90))}, {"a": [0] * 3_000}
    assert rules.keep(small, orjson.dumps(small))
    text = orjson.dumps(large)
    assert len(text) * text.count(b",") > MOST_CROSSED
    begun = time.perf_counter()
    assert not rules.keep(large, text)
    assert [fault for _, fault in rules.faults(large, text)] == [Fault.TOO_MUCH]
    assert time.perf_counter() - begun < 10


def test_a_rule_that_does_not_compile_is_refused() -> None:
    with pytest.raises(ValueError, match="unusable"):
        RecordRules([rule("record.total >")])


async def test_the_log_takes_what_keeps_the_rules_and_quarantine_the_rest(rig: LogRig) -> None:
    rig.contracts.put(under(rule("record.total > 0", name="positive")))
    found = await rig.appender.append(
        batch("acme", event("a", total=1), event("b", total=-1), event("c"), event("d", total=2.5))
    )
    assert [each.outcome for each in found] == [
        Outcome.ACCEPTED,
        Outcome.QUARANTINED,
        Outcome.QUARANTINED,
        Outcome.ACCEPTED,
    ]
    assert [[each.reason for each in verdict.findings] for verdict in found] == [
        [],
        ["CONTRACT_RULE"],
        ["CONTRACT_RULE_ERROR"],
        [],
    ]


async def test_the_way_by_columns_never_passes_over_the_rules(rig: LogRig) -> None:
    schema = {"type": "object", "properties": {"type": {"type": "string"}}}
    columns = Columns("events", ["a"], [Line(type="track")], 10, {"type": ["track"]}, {})
    how: dict[str, Any] = {"workspace": "acme", "source_id": "s", "received_at": 1, "traceparent": ""}
    text = orjson.dumps(schema)
    without = Compiled("acme", "events", "events", "1.0.0", "", validator_of(text), (), text)
    appender: Appender = rig.appender
    rig.contracts.put(without)
    assert await appender.judge_columns(columns, **how) is not None
    assert appender.judge_singles(columns, workspace="acme", source_id="s", arrived=[(1, "")]) is not None
    rig.contracts.put(under(rule("false"), schema=schema))
    assert await appender.judge_columns(columns, **how) is None
    assert appender.judge_singles(columns, workspace="acme", source_id="s", arrived=[(1, "")]) is None


@pytest.mark.parametrize("in_columns", [True, False])
def test_an_import_is_held_against_the_same_rules(in_columns: bool) -> None:
    compiled = under(
        rule("record.total >= record.tax", name="tax"),
        dataset="sales",
        schema={"type": "object", "properties": {"total": {"type": "number"}, "tax": {"type": ["number", "null"]}}},
    )
    arrays = {"total": pa.array([2.0, 1.0, 3.0]), "tax": pa.array([1.0, 2.0, None])}
    columns = {name: parquet_column(array, None) for name, array in arrays.items()}
    texts = lines(columns, 3)
    values = [orjson.loads(text) for text in texts]
    rows = Rows(0, texts, {}, columns) if in_columns else Rows(0, texts, {}, values=values)
    judged = Judge(Target("acme", "sales", "s", "", "f"), new_id=lambda: "q").judge(
        rows, {"sales": compiled}, received_at=1
    )
    found = {index: [each.reason for each in refused.findings] for index, refused in judged.refused.items()}
    assert found == {1: ["CONTRACT_RULE"], 2: ["CONTRACT_RULE_ERROR"]}
