"""The search through the log finds every record whose identifiers the mapping reads, however they are written."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from counterfoil_graph.entities import Name
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.mapping import combine, read_mapping
from counterfoil_graph.searching import Searcher, telling, told_by
from hypothesis import given, settings
from hypothesis import strategies as st

MAPPING = """
mapping: people
identifier_types:
  plain: {rank: 50, max_per_person: 9, normalise: none}
datasets:
  people:
    identifiers:
      - {type: email, field: mail}
      - {type: phone, field: phone}
      - {type: user_id, field: nested.user}
      - {type: plain, field: plain}
"""


def in_force() -> Any:
    mapping, findings = read_mapping(MAPPING)
    assert mapping is not None, findings
    return combine([(mapping, "0")])


def payload_of(texts: list[str]) -> bytes:
    return b"".join(
        b'{"o":%d,"h":0,"d":"people","i":"r%d","r":%b}\n' % (number, number, text.encode())
        for number, text in enumerate(texts)
    )


def named(text: str) -> set[Name]:
    """Return the identifiers that the consumer reads from a record."""
    facts = Extractor(in_force(), trusted_source="graph").read(
        payload_of([text]), received_us=[1], sources=["api"], from_offset=0
    )
    return set(facts.identifiers)


LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0")
VALUES = (
    st.text(st.sampled_from('aB1"\\/ \n\t@.-é\u0130ß漢'), min_size=1, max_size=6)
    | st.text(LETTERS, min_size=1, max_size=5)
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.from_regex(r"\A\+?[0-9]{2}([ ()/-]{0,3}[0-9]){3,6}\Z")
)


@st.composite
def records(draw: st.DrawFn) -> str:
    """Draw a record as JSON text, its numbers and strings written in one of the ways that JSON has."""
    value: dict[str, Any] = {}
    for field in draw(st.sets(st.sampled_from(["mail", "phone", "nested", "plain", "note"]), min_size=1)):
        found = draw(VALUES)
        value[field] = {"user": found} if field == "nested" else found
    text = orjson.dumps(value).decode()
    if draw(st.booleans()):
        text = "".join(each if each.isascii() else "".join(f"\\u{c:04x}" for c in _units(each)) for each in text)
    if draw(st.booleans()):
        text = text.replace("/", "\\/")
    return text


def _units(character: str) -> list[int]:
    data = character.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(records(), min_size=1, max_size=6), data=st.data())
def test_every_record_of_a_person_is_found(texts: list[str], data: st.DataObject) -> None:
    of_each = [named(text) for text in texts]
    everybody = sorted({name for names in of_each for name in names})
    wanted = data.draw(st.sets(st.sampled_from(everybody), min_size=1)) if everybody else set()
    found = Searcher(in_force(), wanted).find(payload_of(texts), received_us=[7])
    assert {number for number, names in enumerate(of_each) if names & wanted} <= found.keys()


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ('{"plain": 7.0}', Name("plain", "7")),
        ('{"plain": 7e0}', Name("plain", "7")),
        ('{"plain": 1.50}', Name("plain", "1.5")),
        ('{"plain": "\\u0037"}', Name("plain", "7")),
        ('{"phone": "+49 (0) 30 / 12-34"}', Name("phone", "+490301234")),
        ('{"mail": "\\tADA@Example.com "}', Name("email", "ada@example.com")),
        ('{"nested": {"user": "a\\/b"}}', Name("user_id", "a/b")),
    ],
)
def test_ways_to_write_one_identifier(written: str, name: Name) -> None:
    assert named(written) == {name}
    assert Searcher(in_force(), [name]).find(payload_of(["{}", written]), received_us=[7]) == {1: (1, 7)}


def test_a_short_identifier_in_another_field_is_not_the_person() -> None:
    texts = ['{"plain": "1042"}', '{"note": "1042"}', '{"plain": "10421"}', '{"mail": "1042"}']
    assert list(Searcher(in_force(), [Name("plain", "1042")]).find(payload_of(texts), received_us=[7])) == [0]
    assert telling([Name("plain", "1042"), Name("email", "a@b.example"), Name("plain", "x" * 16)]) == [
        "a@b.example",
        "x" * 16,
    ]


def test_what_is_erased_already_is_not_found() -> None:
    tombstone = b'{"o":0,"h":0,"d":"","i":"","r":null,"x":[7,8]}\n'
    assert Searcher(in_force(), [Name("plain", "7")]).find(tombstone, received_us=[7]) == {}


def test_a_block_is_read_without_the_records_only_where_they_tell_of_things() -> None:
    texts = ['{"plain": "a"}', '{"plain": "b"}']
    extractor = Extractor(in_force(), trusted_source="graph")
    told = told_by(extractor, payload_of(texts), [1], received_us=[7], sources=["api"], next_offset=2)
    assert set(told.facts.identifiers) == {Name("plain", "b")}
    assert not told.before.identifiers
