"""The mapping language: its page, its bounds, what combining mappings gives."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import counterfoil_graph
import orjson
import pytest
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.mapping import BUILT_IN, IdentifierType, combine, read_mapping, shipped_document
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/mappings.md").read_text()


def faults(document: str) -> set[str]:
    return {each.reason for each in read_mapping(document)[1]}


def test_the_pages_example_and_every_shipped_mapping_have_no_faults() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shipped = [path.read_text() for path in (ROOT / "examples").glob("*/mapping.yaml")]
    assert shipped
    for document in (example, shipped_document(), *shipped):
        mapping, findings = read_mapping(document)
        assert findings == ()
        assert mapping is not None
        Extractor(combine([(mapping, "0")]), trusted_source="graph")


def test_the_page_names_every_reason_and_built_in_type() -> None:
    folder = Path(counterfoil_graph.__file__).parent
    source = "".join((folder / name).read_text() for name in ("extraction.py", "values.py"))
    reasons = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', source))
    assert reasons <= set(re.findall(r"`([A-Z_]+)`", PAGE))
    table = {
        name: (int(rank), int(most), normalise, int(shared))
        for names, rank, most, normalise, shared in re.findall(
            r"^\| (`.*`|any other) \| (\d+) \| (\d+) \| `(\w+)` \| (\d+) \|$", PAGE, re.MULTILINE
        )
        for name in (re.findall(r"`(\w+)`", names) or ["any other"])
    }
    assert table.pop("any other") == (50, 1, "trim", 0)
    assert table == {
        name: (each.rank, each.max_per_person, each.normalise, each.shared_above) for name, each in BUILT_IN.items()
    }


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "MAPPING_SYNTAX"),
        ("mapping: m\ndatasets: {d: {timezone: Nowhere/At_All}}", "MAPPING_TIMEZONE"),
        ("mapping: m\ndatasets: {d: {timezone: ../etc/passwd}}", "MAPPING_TIMEZONE"),
        ("mapping: m\ndatasets: {d: {timezone: 7}}", "MAPPING_TIMEZONE"),
        ("a: [", "MAPPING_SYNTAX"),
        ("- 1\n---\n- 2", "MAPPING_SYNTAX"),
        ("a: !!python/object:os.system x", "MAPPING_SYNTAX"),
        ("mapping: a\nmapping: b", "MAPPING_DUPLICATE_KEY"),
        ("[" * 1000, "MAPPING_TOO_LARGE"),
        ("a: &a [*a]", "MAPPING_TOO_LARGE"),
        ("\n".join([f"a{n}: &a{n} [" + f"*a{n - 1}, " * 9 * (n > 0) + "]" for n in range(9)]), "MAPPING_TOO_LARGE"),
        ("mapping: a\ndatasets: {sales: {}}", "MAPPING_EMPTY"),
        ("mapping: a\ndatasets: {sales: {touchpoints: [{type: a, channel: b}]}}", "MAPPING_IDENTIFIER_MISSING"),
        ("mapping: a\ndatasets: {sales: {nodes: [{type: a, key: a..b}]}}", "MAPPING_PATH"),
        ("mapping: a\nidentifier_types: {x: {rank: 0}}\ndatasets: {}", "MAPPING_VALUE"),
        ("mapping: a\nidentifier_types: {x: {normalise: soundex}}\ndatasets: {}", "MAPPING_VALUE"),
        ("mapping: a\ndatasets: {Sales: {nodes: [{type: a, key: b}]}}", "MAPPING_NAME"),
        ("mapping: a\ndatasets: {s: {edges: [{type: e, from: person, to: person}]}}", "MAPPING_VALUE"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_is_told(document: str, reason: str) -> None:
    assert reason in faults(document)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["person", "a", "mapping", "field", "const", ""]),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "key", "field", "when", "nodes", "edges", "from"]), each)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_whatever_is_written_gets_findings_and_never_fails(value: Any) -> None:
    import orjson

    document = {"mapping": "a", "identifier_types": {"x": value}, "datasets": {"sales": value}}
    mapping, findings = read_mapping(orjson.dumps(document).decode())
    assert (mapping is None) is bool(findings)
    assert all(each.path.startswith("$") and each.detail.endswith(".") for each in findings)


def test_the_hash_is_of_the_set_of_mappings() -> None:
    one, _ = read_mapping("mapping: one\ndatasets: {a: {identifiers: [{type: crm, field: id}]}}")
    two, _ = read_mapping(
        "mapping: two\nidentifier_types: {crm: {rank: 3}}\ndatasets: {a: {nodes: [{type: x, key: y}]}}"
    )
    assert one is not None
    assert two is not None
    both = combine([(one, "1"), (two, "2")])
    assert both == combine([(two, "2"), (one, "1")])
    assert both.sha256 != combine([(one, "1"), (two, "3")]).sha256
    assert both.identifier_types["crm"] == IdentifierType("crm", 3, 1)
    assert len(both.datasets["a"]) == 2


def test_times_without_a_zone_are_in_the_datasets_timezone() -> None:
    document = """
mapping: m
datasets:
  orders: {time: at, timezone: America/New_York, identifiers: [{type: user_id, field: who}]}
  visits: {time: at, identifiers: [{type: user_id, field: who}]}
"""
    mapping, findings = read_mapping(document)
    assert mapping is not None, findings
    extractor = Extractor(combine([(mapping, "0")]), trusted_source="graph")
    found = {}
    for dataset, at in (
        ("orders", "2017-06-01T08:00:00"),
        ("orders", "2017-06-01T08:00:00Z"),
        ("visits", "2017-06-01T08:00:00"),
    ):
        line = orjson.dumps({"o": 0, "h": 0, "d": dataset, "i": "1", "r": {"at": at, "who": "a"}})
        facts = extractor.read(line, received_us=[0], sources=["s"], from_offset=0)
        [identifier] = facts.identifiers.values()
        found[dataset, at] = identifier.first_us
    utc = datetime(2017, 6, 1, 8, tzinfo=UTC)
    micros = {
        key: (utc + timedelta(hours=hours)).timestamp() * 1e6 for key, hours in zip(found, (4, 0, 0), strict=True)
    }
    assert found == micros
