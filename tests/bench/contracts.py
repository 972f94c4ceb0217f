"""Measure what contracts cost: a record held against one with every fault told, its rules, and a change that is judged.

The rival of validation is PyPI's jsonschema with its own list of errors, from the same JSON texts; that of a verdict
with its record is the proof alone, by the library that proves.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema
import orjson
from cel_expr_python import cel
from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.compatibility.containment import contained
from counterfoil_contracts.entities import Verdict
from counterfoil_ingest.registry import Compiled, validator_of
from counterfoil_ingest.rules import RecordRule, RecordRules
from counterfoil_ingest.validation import contract_findings

from tests.bench.measuring import Options, Report, Row, Target

RECORDS = 4_000
BAD_EVERY = 10
FIELDS = 20


def schema() -> dict[str, Any]:
    """Return the contract of an order: some twenty fields, as marketing teams have them."""
    text, number = {"type": ["string", "null"]}, {"type": ["number", "null"], "minimum": 0}
    line = {
        "type": "object",
        "required": ["product_id", "price", "quantity"],
        "additionalProperties": False,
        "properties": {
            "product_id": {"type": "string", "minLength": 1},
            "sku": text,
            "name": text,
            "price": {"type": "number", "minimum": 0},
            "quantity": {"type": "integer", "minimum": 1},
            "category": text,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["message_id", "type", "event", "timestamp", "order_id", "currency", "lines"],
        "additionalProperties": False,
        "properties": {
            "message_id": {"type": "string", "minLength": 1},
            "type": {"type": "string", "enum": ["track"]},
            "event": {"type": "string", "enum": ["Order Completed"]},
            "timestamp": {"type": "string", "format": "date-time"},
            "user_id": text,
            "anonymous_id": text,
            "order_id": {"type": "string", "pattern": "^o-[0-9]+$"},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "medium": {"type": ["string", "null"], "enum": ["email", "cpc", "organic", None]},
            **dict.fromkeys(("total", "revenue", "shipping", "tax", "discount"), number),
            "coupon": text,
            "campaign": text,
            "country": text,
            "is_first": {"type": ["boolean", "null"]},
            "tags": {"type": ["array", "null"], "items": {"type": "string"}, "uniqueItems": True},
            "lines": {"type": "array", "minItems": 1, "items": line},
        },
    }


def order(number: int) -> dict[str, Any]:
    """Return a record that keeps it."""
    lines = [
        {"product_id": f"p{item}", "sku": f"s{item}", "name": "Tea", "price": 4.5, "quantity": 2, "category": "food"}
        for item in range(2)
    ]
    return {
        "message_id": f"m{number}",
        "type": "track",
        "event": "Order Completed",
        "timestamp": "2026-01-02T03:04:05Z",
        "user_id": f"u{number}",
        "anonymous_id": f"a{number}",
        "order_id": f"o-{number}",
        "currency": "EUR",
        "medium": "email",
        "total": 30.0 + number,
        "revenue": 25.0,
        "shipping": 3.0,
        "tax": 2.0,
        "discount": 0.0,
        "coupon": None,
        "campaign": "spring",
        "country": "NO",
        "is_first": number % 2 == 0,
        "tags": ["loyal", "app"],
        "lines": lines,
    }


def broken(number: int) -> dict[str, Any]:
    """Return a record with faults at four places."""
    made = order(number)
    made["currency"], made["total"], made["medium"] = "euro", -1, "fax"
    del made["lines"][0]["price"]
    return made


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "optional field more": lambda s: s["properties"].update(note={"type": ["string", "null"]}),
    "field less": lambda s: s["properties"].pop("coupon"),
    "required": lambda s: s["required"].append("country"),
    "no longer required": lambda s: s["required"].remove("order_id"),
    "value more": lambda s: s["properties"]["medium"]["enum"].append("sms"),
    "value less": lambda s: s["properties"]["medium"]["enum"].remove("cpc"),
    "narrower pattern": lambda s: s["properties"]["currency"].update(pattern="^E[A-Z]{2}$"),
    "another type": lambda s: s["properties"]["total"].update(type=["integer", "null"]),
    "another bound": lambda s: s["properties"]["tax"].update(minimum=1),
    "inside a line": lambda s: s["properties"]["lines"]["items"]["properties"]["quantity"].update(maximum=10),
}

RULES = [
    "record.total >= record.tax",
    "record.total >= record.discount",
    "record.revenue <= record.total",
    "record.shipping >= 0.0",
    "record.currency.matches('^[A-Z]{3}$')",
    "record.medium in ['email', 'cpc', 'organic']",
    "record.country.size() == 2",
    "record.tags.size() <= 5",
    "record.lines.all(line, line.price > 0.0)",
    "record.user_id != record.anonymous_id",
]


@dataclass(frozen=True)
class Texts:
    """Records as JSON."""

    good: Sequence[bytes]
    mixed: Sequence[bytes]
    bad: Sequence[bytes]


def texts(count: int) -> Texts:
    """Return records that keep the contract, some that do not among them, and none that does."""
    good = [orjson.dumps(order(number)) for number in range(count)]
    bad = [orjson.dumps(broken(number)) for number in range(count)]
    mixed = [bad[at] if at % BAD_EVERY == 0 else good[at] for at in range(count)]
    return Texts(good, mixed, bad)


def measure(options: Options) -> Report:
    """Run the rounds."""
    count = RECORDS // 4 if options.quick else RECORDS
    made = texts(count)
    text = orjson.dumps(schema())
    ours = Compiled("w", "orders", "c", "1.0.0", "", validator_of(text), (), text)
    theirs = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    rows = [
        *_validation(options, made, ours, theirs),
        *_rules(options, made, ours),
        *_verdicts(options),
    ]
    size = len(made.good[0])
    how = (
        f"{options.rounds} rounds of {count:,} records of {size} bytes, {FIELDS} fields, and {2 * len(EDITS)} changes."
    )
    return Report("Contracts", how, rows)


def _validation(options: Options, made: Texts, ours: Compiled, theirs: Any) -> Iterator[Row]:
    few = slice(0, max(50, len(made.good) // 20))  # the rival takes its time
    for what, some, target in (
        ("one record in ten bad", made.mixed, Target("validation with full error lists", 25.0, at_least=True)),
        ("all good", made.good, None),
        ("all bad, four faults each", made.bad, None),
    ):
        ratios, rates = [], []
        for _ in range(options.rounds):
            own = _each(some, lambda text: contract_findings(ours, orjson.loads(text), text))
            other = _each(some[few], lambda text: [each.json_path for each in theirs.iter_errors(json.loads(text))])
            ratios.append(other / own)
            rates.append(1e6 / own)
        yield Row(f"jsonschema's CPU per record in ours, {what}", ratios, "x", target)
        yield Row(f"records per second of CPU, {what}", rates)


def _rules(options: Options, made: Texts, ours: Compiled) -> Iterator[Row]:
    rules = RecordRules([RecordRule(f"r{at}", text, "", "$", False) for at, text in enumerate(RULES)])
    ruled = Compiled("w", "orders", "c", "1.0.0", "", ours.validator, (), ours.json_schema, rules=rules)
    environment = cel.NewEnv(variables={"record": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})
    apart = [environment.compile(text) for text in RULES]
    with_rules, one_by_one = [], []
    for _ in range(options.rounds):
        plain = _each(made.good, lambda text: contract_findings(ours, orjson.loads(text), text))
        as_one = _each(made.good, lambda text: contract_findings(ruled, orjson.loads(text), text))
        single = _each(made.good, lambda text: _one_by_one(apart, orjson.loads(text)))
        with_rules.append(as_one / plain)
        one_by_one.append(single / (as_one - plain))
    yield Row(f"a record with {len(RULES)} rules, in one without", with_rules, "x")
    yield Row(
        f"{len(RULES)} rules evaluated one by one, in ours", one_by_one, "x", Target("rules as one", 2.0, at_least=True)
    )


def _one_by_one(rules: Sequence[Any], record: Any) -> bool:
    return all(rule.eval(data={"record": record}).value() is True for rule in rules)


def _verdicts(options: Options) -> Iterator[Row]:
    before = schema()
    pairs = []
    for edit in EDITS.values():
        after = copy.deepcopy(before)
        edit(after)
        pairs += [(before, after), (after, before)]
    ratios, middles, shown = [], [], []
    for _ in range(options.rounds):
        whole, proofs, verdicts = [], [], []
        for writer, reader in pairs:
            took, found = _timed(lambda w=writer, r=reader: compare(w, r))
            whole.append(took)
            verdicts.append(found.verdict)
            proofs.append(_timed(lambda w=writer, r=reader: contained(w, r))[0])
        ratios.append(sum(whole) / sum(proofs))
        middles.append(statistics.median(whole) * 1e3)
        breaking = [each for each in verdicts if each is not Verdict.PROVEN_COMPATIBLE]
        shown.append(100 * breaking.count(Verdict.PROVEN_BREAKING) / len(breaking))
    yield Row("a verdict with its record, in the proof alone", ratios, "x", Target("check of 20 fields", 25.0))
    yield Row("a verdict with its record, p50", middles, " ms")
    yield Row("of what is not compatible, shown by a record", shown, " %")


def _each(some: Sequence[bytes], work: Callable[[bytes], object]) -> float:
    """Return the microseconds of CPU that work takes per text."""
    began = time.process_time()
    for text in some:
        work(text)
    return (time.process_time() - began) / len(some) * 1e6


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found
