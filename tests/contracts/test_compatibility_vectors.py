"""Verdicts on pairs of schemas that others have judged, too; an independent validator is the judge of ours."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.compatibility.drafts import DRAFT_7, draft_of, in_2020
from counterfoil_contracts.compatibility.samples import Samples
from counterfoil_contracts.entities import Comparison, Verdict
from jsonschema.validators import validator_for

from tests.contracts.test_contracts_compatibility import RECORDS

FOLDER = Path(__file__).parent / "schema-pairs"

# What the file calls breaking and no record can break, and what it calls compatible and a record breaks.
HARMLESS = {
    *(("Const", way) for way in ("backward", "forward")),  # {"const": 1} against {"enum": [1]}
    *(
        (f"String: content{kind} 2", "forward") for kind in ("Encoding", "MediaType")
    ),  # annotations, they assert nothing
    *((f"String: content{kind} 3", way) for kind in ("Encoding", "MediaType") for way in ("backward", "forward")),
    ("Complex: anyOf 1", "forward"),  # the branch that is gone accepted nothing that another does not
    ("Complex: oneOf 1", "forward"),
    *(("Conditional: if", way) for way in ("backward", "forward")),  # without `then` and `else` it asserts nothing
}
UNSAFE = {("Complex: oneOf 1", "backward"), ("Complex: oneOf 3", "backward")}  # a text that fits two branches fits none


@dataclass(frozen=True)
class Pair:
    name: str
    way: str
    writer: Any
    reader: Any
    compatible: bool | None  # None = depends on whether formats are asserted


def independent(schema: Any) -> Any:
    """Return PyPI's jsonschema for a schema's own draft, with its formats."""
    kind = validator_for(schema, default=jsonschema.Draft7Validator) if isinstance(schema, dict) else None
    kind = kind or jsonschema.Draft7Validator
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def apicurio() -> Iterator[Pair]:
    for each in json.loads((FOLDER / "json-compatibility-test-data.json").read_text("utf-8"))["tests"]:
        old, new, said = each["original"], each["updated"], each["compatibility"]
        yield Pair(each["id"], "backward", old, new, said in ("backward", "both"))
        yield Pair(each["id"], "forward", new, old, said in ("forward", "both"))


def blind_spots() -> Iterator[Pair]:
    for each in json.loads((FOLDER / "blindspots-draft07.json").read_text("utf-8")):
        yield Pair(each["description"], "backward", each["original_schema"], each["update_schema"], each["backward"])


PAIRS = [*apicurio(), *blind_spots()]
EDITS = [(name, value) for name in ("a", "foo", "name") for value in (None, 0, 1.5, "a", [], {})]


@functools.cache
def judged(index: int) -> Comparison:
    return compare(PAIRS[index].writer, PAIRS[index].reader, draft=DRAFT_7)


def test_there_are_all_pairs() -> None:
    assert len(PAIRS) == 2 * 145 + 25


@pytest.mark.parametrize("index", range(len(PAIRS)), ids=[f"{pair.name} {pair.way}" for pair in PAIRS])
def test_no_record_contradicts_the_verdict(index: int) -> None:
    pair, found = PAIRS[index], judged(index)
    old, new = independent(pair.writer), independent(pair.reader)
    for each in found.breaks:
        record = json.loads(each.witness)
        assert old.is_valid(record)
        assert not new.is_valid(record)
    if found.verdict is Verdict.PROVEN_COMPATIBLE:
        said = [in_2020(schema, draft_of(schema, DRAFT_7)) for schema in (pair.writer, pair.reader)]
        tried = [*RECORDS[::3], *(record for schema in said for record in Samples(schema).of(schema))]
        objects = [record for record in tried if isinstance(record, dict)]
        tried += [{**record, name: value} for record in objects for name, value in EDITS][:500]
        assert [record for record in tried if old.is_valid(record) and not new.is_valid(record)] == []


def test_the_verdicts_are_those_of_the_files_but_for_what_is_shown_to_be_otherwise() -> None:
    harmless, unsafe = set(), set()
    for index, pair in enumerate(PAIRS):
        if pair.compatible is False and judged(index).verdict is Verdict.PROVEN_COMPATIBLE:
            harmless.add((pair.name, pair.way))
        if pair.compatible and judged(index).verdict is Verdict.PROVEN_BREAKING:
            unsafe.add((pair.name, pair.way))
    assert (harmless, unsafe) == (HARMLESS, UNSAFE)


@pytest.mark.figures
def test_of_what_breaks_ninety_five_of_a_hundred_are_shown_by_a_record() -> None:
    verdicts = [judged(index).verdict for index in range(len(PAIRS))]
    breaking = [
        verdict
        for pair, verdict in zip(PAIRS, verdicts, strict=True)
        if pair.compatible is False and verdict is not Verdict.PROVEN_COMPATIBLE
    ]
    shown, unproven = breaking.count(Verdict.PROVEN_BREAKING), verdicts.count(Verdict.UNPROVEN)
    print(
        f"{shown} of {len(breaking)} breaking changes shown by a record; {unproven} of {len(PAIRS)} verdicts unproven"
    )
    assert shown >= 0.95 * len(breaking)
