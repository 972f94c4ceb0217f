"""What of a schema concerns one who reads some of its fields, and what the numbers of versions mean."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from counterfoil_chassis.jsonpath import json_path
from counterfoil_contracts import versions
from counterfoil_contracts.compatibility.fields import (
    Presence,
    Reading,
    as_read,
    declared_fields,
    no_longer_there,
    presence,
    read_path,
)
from counterfoil_contracts.errors import VersionRangeInvalidError
from counterfoil_contracts.evolution import Level
from hypothesis import given
from hypothesis import strategies as st

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "minLength": 2},
        "total": {"type": ["number", "null"], "minimum": 0},
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
                "required": ["sku", "count"],
                "additionalProperties": False,
            },
            "minItems": 1,
        },
        "prices": {"type": "object", "additionalProperties": {"type": "number"}, "propertyNames": {"maxLength": 3}},
    },
    "required": ["id", "items"],
    "additionalProperties": False,
}
RECORD: dict[str, Any] = {
    "id": "o1",
    "total": 5,
    "address": {"city": "Ulm", "zip": "89073"},
    "items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 2}],
    "prices": {"EUR": 5.0},
}
PATHS = sorted(declared_fields(SCHEMA), key=json_path)
JUNK = st.sampled_from([None, 7.5, "junk", [], {}, ["junk"], {"junk": 1}])
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)


def places(value: Any, path: tuple[str | None, ...] = (), at: tuple[Any, ...] = ()) -> list[Any]:
    """Return every place below a value: its path, and the keys and indexes that lead there."""
    found = []
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        step = None if isinstance(value, list) or path[-1:] == ("prices",) else key
        found.append(((*path, step), (*at, key)))
        found += places(child, (*path, step), (*at, key))
    return found


def altered(value: Any, at: tuple[Any, ...], other: Any) -> Any:
    if not at:
        return other
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[at[0]] = altered(value[at[0]], at[1:], other)
    return copied


@given(read=st.sets(st.sampled_from(PATHS), min_size=1, max_size=4), where=st.sampled_from(places(RECORD)), other=JUNK)
def test_what_is_not_read_may_be_anything(read: set[Any], where: Any, other: Any) -> None:
    path, at = where
    if any(path[: len(each)] == each[: len(path)] for each in read):
        return  # it is read, or lies on the way to what is read
    jsonschema.Draft202012Validator(as_read(SCHEMA, Reading.of(read))).validate(altered(RECORD, at, other))


@given(read=st.sets(st.sampled_from(PATHS), max_size=4), name=NAMES)
def test_who_reads_goes_on_when_there_is_more_to_read(read: set[Any], name: str) -> None:
    validator = jsonschema.Draft202012Validator(as_read(SCHEMA, Reading.of(read)))
    validator.validate(RECORD)
    for place in (RECORD, RECORD["address"], RECORD["items"][0]):
        if name not in place:
            assert validator.is_valid({**RECORD, "address": {**RECORD["address"], name: 1}})
            assert validator.is_valid({**RECORD, name: 1})


@pytest.mark.parametrize(
    ("fields", "at", "other"),
    [
        (["id"], ("id",), "x"),
        (["$.address.zip"], ("address", "zip"), "none"),
        (["address.city"], ("address",), {"zip": "89073"}),
        (["address"], ("address", "zip"), "none"),
        (["items[*].count"], ("items", 1, "count"), 0),
        (["items[0].sku"], ("items",), [{"count": 1}]),
        (["items"], ("items",), []),
        (["prices[*]"], ("prices", "EUR"), "five"),
        (["prices.EUR"], ("prices", "EUR"), "five"),
        (["prices"], ("prices",), {"EURO": 5.0}),
        ([], ("total",), -1),
    ],
)
def test_what_is_read_keeps_its_rules(fields: list[str], at: tuple[Any, ...], other: Any) -> None:
    read = as_read(SCHEMA, Reading.of(read_path(each) for each in fields))
    assert not jsonschema.Draft202012Validator(read).is_valid(altered(RECORD, at, other))


@given(st.lists(NAMES | st.none(), max_size=6))
def test_a_path_that_is_written_is_read_again(path: list[str | None]) -> None:
    assert read_path(json_path(path)) == tuple(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$", ()),
        ("a.b", ("a", "b")),
        ("$.a[*].b", ("a", None, "b")),
        ("a[3]", ("a", None)),
        ("$['a.b']", ("a.b",)),
        ('$["it\\"s"].c', ('it"s', "c")),
        ("['a']", ("a",)),
        ("user-id", ("user-id",)),
    ],
)
def test_a_path_is_read_as_people_write_it(text: str, path: tuple[str | None, ...]) -> None:
    assert read_path(text) == path


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("id", Presence.DECLARED),
        ("nothing", Presence.IMPOSSIBLE),
        ("address.street", Presence.IMPOSSIBLE),
        ("id.x", Presence.IMPOSSIBLE),
        ("prices.USD", Presence.DECLARED),
        ("items[*].sku", Presence.DECLARED),
    ],
)
def test_whether_a_record_can_have_a_field(path: str, there: Presence) -> None:
    assert presence(SCHEMA, read_path(path)) is there
    opened = {**SCHEMA, "additionalProperties": True}
    assert presence(opened, read_path("nothing.at.all")) is Presence.POSSIBLE
    reserved = {**SCHEMA, "patternProperties": {"^x_": True}}
    assert presence(reserved, read_path("x_one")) is Presence.POSSIBLE


def test_a_field_that_is_gone_is_told_once_at_the_top() -> None:
    without = {**SCHEMA, "properties": {key: each for key, each in SCHEMA["properties"].items() if key != "address"}}
    assert no_longer_there(SCHEMA, without, [read_path("address.city"), read_path("id")]) == [("address", "city")]
    assert no_longer_there(SCHEMA, without, [read_path("address")]) == [("address",)]
    assert no_longer_there(SCHEMA, without, []) == [("address",)]
    assert no_longer_there(SCHEMA, without, [read_path("total")]) == []


def test_a_field_that_was_possible_and_can_be_no_more_is_gone() -> None:
    opened = {**SCHEMA, "additionalProperties": True}
    assert no_longer_there(opened, SCHEMA, [read_path("extra.field")]) == [("extra", "field")]
    assert no_longer_there(SCHEMA, opened, [read_path("extra.field")]) == []


@pytest.mark.parametrize(
    ("in_force", "patch", "minor", "major"),
    [
        ("1.2.3", "1.2.4", "1.3.0", "2.0.0"),
        ("0.4.0", "0.4.1", "0.5.0", "1.0.0"),
        ("2.0.0-rc.1", "2.0.0", "2.0.0", "2.0.0"),
        ("2.1.0-rc.1", "2.1.0", "2.1.0", "3.0.0"),
        ("2.1.3-rc.1+build", "2.1.3", "2.2.0", "3.0.0"),
        ("1.0.0+build.5", "1.0.1", "1.1.0", "2.0.0"),
        (f"{'9' * 60}.0.0", f"{'9' * 60}.0.1", f"{'9' * 60}.1.0", f"1{'0' * 60}.0.0"),
    ],
)
def test_the_lowest_number_follows_from_the_level(in_force: str, patch: str, minor: str, major: str) -> None:
    wanted = {Level.PATCH: patch, Level.MINOR: minor, Level.MAJOR: major}
    assert {level: versions.needed(in_force, level) for level in Level} == wanted


@pytest.mark.parametrize(
    ("version", "lowest", "enough"),
    [("2.0.0", "2.0.0", True), ("2.0.0-rc.1", "2.0.0", True), ("1.9.9", "2.0.0", False), ("1.10.0", "1.9.0", True)],
)
def test_a_higher_number_than_needed_will_do(version: str, lowest: str, enough: bool) -> None:
    assert versions.suffices(version, lowest) is enough


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.x", ["1.0.0", "1.9.9"], ["0.9.0", "2.0.0"]),
        ("1.2.x", ["1.2.0", "1.2.9"], ["1.3.0"]),
        ("1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
        ("1.4.2", ["1.4.2", "1.4.2-rc.1"], ["1.4.3"]),
        (">=1.2.0 <3.0.0", ["1.2.0", "2.9.0"], ["1.1.9", "3.0.0"]),
        (">1.x", ["2.0.0"], ["1.9.9"]),
        ("<=1", ["0.1.0", "1.9.9"], ["2.0.0"]),
        ("1.x || 3.x", ["1.0.0", "3.5.0"], ["2.0.0"]),
        ("x", ["0.0.0", "99.0.0"], []),
    ],
)
def test_a_range_holds_the_versions_that_it_says(text: str, inside: list[str], outside: list[str]) -> None:
    contains = versions.read_range(text)
    assert all(contains(each) for each in inside)
    assert not any(contains(each) for each in outside)


@pytest.mark.parametrize("text", ["", " ", "latest", "~1.2", "^1", ">=", "1.2.3.4", "1.x||", "१.x", "1" * 30])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(VersionRangeInvalidError):
        versions.read_range(text)
