"""Documents are read without harm: as JSON or YAML, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.odcs.documents import read_document
from counterfoil_contracts.odcs.findings import Findings
from counterfoil_contracts.odcs.official import check_officially
from counterfoil_contracts.shipping import shipped_documents
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.calls import document

EXAMPLES = sorted((Path(__file__).parent / "odcs-examples").glob("*.yaml"))
COMPILING = {
    "full-example.odcs.yaml",
    "postgresql-adventureworks-contract.odcs.yaml",
    "table-column-description.odcs.yaml",
    "table-column.odcs.yaml",
    "table-columns-with-partition.odcs.yaml",
}
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXTS
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> tuple[Any, list[str]]:
    found = Findings()
    value = read_document(text, found)
    return value, [finding.reason for finding in found.result({})]


@given(value=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_json_is_read_as_json(value: Any) -> None:
    assert read(json.dumps(value)) == (value, [])
    assert read(orjson.dumps(value).decode()) == (value, [])


@given(value=VALUES)
def test_yaml_is_read_as_it_was_written(value: Any) -> None:
    quoted = yaml.safe_dump(value, default_style='"')  # else PyYAML leaves texts plain that YAML 1.2 reads otherwise
    assert read(quoted) == (value, [])


@given(text=TEXTS)
def test_no_text_makes_the_reader_fail(text: str) -> None:
    for candidate in (text, "{" + text, "a: " + text, "- &a " + text + "\n- *a"):
        check_document(candidate)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "DOCUMENT_EMPTY"),
        ("# nothing\n", "DOCUMENT_EMPTY"),
        ("a: 1\n---\nb: 2", "DOCUMENT_MULTIPLE"),
        ("a: [1", "DOCUMENT_SYNTAX"),
        ("\x00", "DOCUMENT_SYNTAX"),
        ("a: 1\na: 2", "DOCUMENT_DUPLICATE_KEY"),
        ('{"a": {"b": 1, "b": 2}}', "DOCUMENT_DUPLICATE_KEY"),
        ("a: !!python/object/apply:os.system [ls]", "DOCUMENT_TAG"),
        ("a: !secret x", "DOCUMENT_TAG"),
        ("? [a]\n: b", "DOCUMENT_KEY"),
        ("a: &a [*a]", "DOCUMENT_ALIAS"),
        ("a: *b", "DOCUMENT_ALIAS"),
        ("[" * 100_000, "DOCUMENT_TOO_DEEP"),
        ("- " * 100_000, "DOCUMENT_TOO_DEEP"),
        ('{"a":' * 65 + "1" + "}" * 65, "DOCUMENT_TOO_DEEP"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "DOCUMENT_TOO_DEEP"),
        ("x" * (2**20 + 1), "DOCUMENT_TOO_LARGE"),
        ("[" + "1," * 300_000 + "1]", "DOCUMENT_TOO_LARGE"),
        ("a: 99999999999999999999", "DOCUMENT_NUMBER"),
    ],
)
def test_what_cannot_be_read_is_one_finding(text: str, reason: str) -> None:
    assert read(text) == (None, [reason])


def test_aliases_that_multiply_are_refused_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    assert read("\n".join(lines)) == (None, ["DOCUMENT_TOO_LARGE"])


def test_aliases_and_merges_mean_what_they_say() -> None:
    text = "base: &base {x: 1, y: 2}\nown: {<<: *base, y: 3}\nlist: [*base, *base]"
    assert read(text) == ({"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}, "list": [{"x": 1, "y": 2}] * 2}, [])


def test_plain_scalars_follow_the_core_schema_of_yaml_1_2() -> None:
    text = (
        "{a: 2020-01-01, b: yes, c: 0x10, d: 12:30:00, e: 1e3, f: .5, g: , h: ~, i: 007, j: 1e999, k: True, l: !!str 5}"
    )
    assert read(text)[0] == {
        "a": "2020-01-01",
        "b": "yes",
        "c": 16,
        "d": "12:30:00",
        "e": 1000.0,
        "f": 0.5,
        "g": None,
        "h": None,
        "i": 7,
        "j": "1e999",
        "k": True,
        "l": "5",
    }


def test_a_contract_in_json_is_the_same_contract() -> None:
    text = document()
    as_json = check_document(json.dumps(yaml.safe_load(text)))
    assert as_json == check_document(text)
    assert as_json.compiled


def test_there_are_eighteen_official_examples() -> None:
    assert len(EXAMPLES) == 18


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_official_example_compiles_or_breaks_our_rules_alone(path: Path) -> None:
    text = path.read_text("utf-8")
    value, unreadable = read(text)
    assert not unreadable
    found = Findings()
    check_officially(value, found)
    assert not found.result({})
    checked = check_document(text)
    assert bool(checked.findings) is (path.name not in COMPILING)
    assert all(finding.detail.endswith(".") and finding.path.startswith("$.") for finding in checked.findings)
    assert checked.findings or len(checked.compiled) == len(value["schema"])


def test_the_shipped_contracts_have_no_findings() -> None:
    assert {
        contract_id: (checked.version, checked.findings) for contract_id, (_, checked) in shipped_documents().items()
    } == {"events": ("1.0.0", ()), "identity_decisions": ("1.0.0", ())}
