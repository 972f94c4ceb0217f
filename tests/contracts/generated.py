"""Generated ODCS properties, each with values that it means to accept and values that it means to refuse.

What a property means is written down here once more, from the standard and independently of the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

Values = st.SearchStrategy[Any]
DAYS = st.dates(date(1900, 1, 1), date(2100, 12, 31))
MOMENTS = st.integers(-(2**51), 2**51).map(
    lambda micros: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
)
LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs"])


@dataclass
class Sample:
    """A property without its name, values it accepts, values it refuses (null apart)."""

    node: dict[str, Any]
    valid: Values
    invalid: Values


def other_than(*types: type) -> Values:
    """Return JSON values of none of these types."""
    samples: list[Any] = ["text", 1, 1.5, True, [1], {"a": 1}]
    return st.sampled_from([value for value in samples if type(value) not in types])


@st.composite
def strings(draw: st.DrawFn) -> Sample:
    shortest = draw(st.integers(0, 5))
    longest = shortest + draw(st.integers(0, 5))
    options = {"minLength": shortest, "maxLength": longest}
    invalid = other_than(str) | st.text(LETTERS, min_size=longest + 1, max_size=longest + 3)
    if shortest:
        invalid |= st.text(LETTERS, max_size=shortest - 1)
    node = {"logicalType": "string", "logicalTypeOptions": options}
    return Sample(node, st.text(LETTERS, min_size=shortest, max_size=longest), invalid)


@st.composite
def patterns(draw: st.DrawFn) -> Sample:
    letter = draw(st.sampled_from("abc"))
    node = {"logicalType": "string", "logicalTypeOptions": {"pattern": f"^{letter}+$"}}
    return Sample(node, st.text(letter, min_size=1), st.text("xyz") | other_than(str))


@st.composite
def enumerations(draw: st.DrawFn) -> Sample:
    kind, pool = draw(st.sampled_from([("string", ["a", "b", "c", "d"]), ("integer", [1, 2, 3, 4])]))
    allowed = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True))
    node = {"logicalType": kind, "enum": [{"value": value} for value in allowed]}
    refused = st.sampled_from([value for value in pool if value not in allowed]) | other_than(str, int)
    return Sample(node, st.sampled_from(allowed), refused)


@st.composite
def integers(draw: st.DrawFn) -> Sample:
    sign, bits = draw(st.sampled_from([("i", 8), ("i", 16), ("i", 32), ("i", 64), ("u", 8), ("u", 16), ("u", 32)]))
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if sign == "i" else (0, (1 << bits) - 1)
    options: dict[str, Any] = {"format": f"{sign}{bits}"}
    if draw(st.booleans()):
        options["minimum"] = low = draw(st.integers(low, high))
    if draw(st.booleans()):
        options["exclusiveMaximum"] = draw(st.integers(low + 1, high + 1 if bits < 64 else high))
        high = options["exclusiveMaximum"] - 1
    invalid = other_than(int) | st.integers(high + 1, max(high + 1, (1 << 64) - 1))
    if low > -(1 << 63):
        invalid |= st.integers(-(1 << 63), low - 1)
    return Sample({"logicalType": "integer", "logicalTypeOptions": options}, st.integers(low, high), invalid)


@st.composite
def numbers(draw: st.DrawFn) -> Sample:
    low = draw(st.integers(-1000, 1000))
    high = low + draw(st.integers(1, 1000))
    options = {"minimum": low, "exclusiveMaximum": high}
    valid = st.integers(low, high - 1) | st.floats(low, high, exclude_max=True)
    invalid = other_than(int, float) | st.integers(high, high + 9) | st.floats(low - 9, low, exclude_max=True)
    return Sample({"logicalType": "number", "logicalTypeOptions": options}, valid, invalid)


def booleans() -> st.SearchStrategy[Sample]:
    return st.just(Sample({"logicalType": "boolean"}, st.booleans(), other_than(bool)))


@st.composite
def dates(draw: st.DrawFn) -> Sample:
    low = draw(DAYS)
    high = low + timedelta(days=draw(st.integers(2, 400)))
    options = {"minimum": low.isoformat(), "exclusiveMaximum": high.isoformat()}
    valid = st.dates(low, high - timedelta(days=1)).map(date.isoformat)
    outside = st.dates(max_value=low - timedelta(days=1)) | st.dates(min_value=high)
    invalid = outside.map(date.isoformat) | st.sampled_from(["2020-02-30", "2020-1-1", "20200101", ""])
    return Sample({"logicalType": "date", "logicalTypeOptions": options}, valid, invalid | other_than(str))


def _clock(microseconds: int, *, digits: bool) -> str:
    seconds, rest = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{rest:06}" if rest or digits else text


@st.composite
def times(draw: st.DrawFn) -> Sample:
    day = 86_400
    low = draw(st.integers(1, day - 2))
    high = draw(st.integers(low + 1, day - 1))
    options = {"timezone": False}
    options |= {"exclusiveMinimum": _clock(low * 1_000_000, digits=False)}
    options |= {"maximum": _clock(high * 1_000_000, digits=False)}
    inside = st.integers(low * 1_000_000 + 1, high * 1_000_000)
    outside = st.integers(0, low * 1_000_000) | st.integers(high * 1_000_000 + 1, day * 1_000_000 - 1)
    valid = st.builds(lambda at, digits: _clock(at, digits=digits), inside, st.booleans())
    invalid = st.builds(lambda at, digits: _clock(at, digits=digits), outside, st.booleans())
    bad = st.sampled_from(["24:00:00", "10:00", "10:00:00Z", ""])
    return Sample({"logicalType": "time", "logicalTypeOptions": options}, valid, invalid | bad | other_than(str))


@st.composite
def timestamps(draw: st.DrawFn) -> Sample:
    zoned = MOMENTS.map(datetime.isoformat)
    zoneless = MOMENTS.map(lambda at: at.replace(tzinfo=None).isoformat(draw(st.sampled_from("T "))))
    bad = st.sampled_from(
        [
            "2021-02-29T00:00:00",
            "2020-13-01T00:00:00Z",
            "2020-01-01",
            "2020-01-01T25:00:00",
            "now",
            "1900-02-29 00:00:00",
        ]
    )
    if draw(st.booleans()):
        node = {"logicalType": "timestamp", "logicalTypeOptions": {"defaultTimezone": "Europe/Paris"}}
        return Sample(node, zoned | zoneless, bad | other_than(str))
    return Sample({"logicalType": "timestamp"}, zoned, zoneless | bad | other_than(str))


@st.composite
def vectors(draw: st.DrawFn) -> Sample:
    size = draw(st.integers(1, 4))
    node = {"logicalType": "vector", "logicalTypeOptions": {"dimensions": size, "elementType": "uint8"}}
    element = st.integers(0, 255)
    wrong = st.lists(element, min_size=size + 1, max_size=size + 2) | st.just([256] * size) | other_than(list)
    return Sample(node, st.lists(element, min_size=size, max_size=size), wrong)


@st.composite
def arrays(draw: st.DrawFn, items: st.SearchStrategy[Sample]) -> Sample:
    item, most = draw(items), draw(st.integers(1, 3))
    node = {"logicalType": "array", "items": {**item.node, "required": True}, "logicalTypeOptions": {"maxItems": most}}
    valid = st.lists(item.valid, max_size=most)
    invalid = other_than(list) | st.lists(item.invalid, min_size=1, max_size=most)
    invalid |= st.lists(item.valid, min_size=most + 1, max_size=most + 2) | st.just([None])
    return Sample(node, valid, invalid)


@st.composite
def maps(draw: st.DrawFn, values: st.SearchStrategy[Sample]) -> Sample:
    value = draw(values)
    key = {"logicalType": "string", "logicalTypeOptions": {"maxLength": 2}}
    node = {"logicalType": "map", "map": {"key": key, "value": {**value.node, "required": True}}}
    invalid = other_than(dict) | st.fixed_dictionaries({"k": value.invalid})
    invalid |= st.fixed_dictionaries({"long": value.valid}) | st.just({"k": None})
    return Sample(node, st.dictionaries(st.text("ab", min_size=1, max_size=2), value.valid, max_size=2), invalid)


@st.composite
def objects(draw: st.DrawFn, parts: st.SearchStrategy[Sample]) -> Sample:
    needed, optional = draw(parts), draw(parts)
    properties = [{**needed.node, "name": "needed", "required": True}, {**optional.node, "name": "optional"}]
    node = {"logicalType": "object", "properties": properties}
    valid = st.fixed_dictionaries({"needed": needed.valid}, optional={"optional": optional.valid | st.none()})
    invalid = other_than(dict) | st.just({}) | st.fixed_dictionaries({"needed": needed.invalid | st.none()})
    invalid |= st.fixed_dictionaries({"needed": needed.valid, "optional": optional.invalid})
    invalid |= st.fixed_dictionaries({"needed": needed.valid, "undeclared": st.just(1)})
    return Sample(node, valid, invalid)


LEAVES = st.one_of(
    strings(), patterns(), enumerations(), integers(), numbers(), booleans(), dates(), times(), timestamps(), vectors()
)
PROPERTIES = st.recursive(LEAVES, lambda parts: arrays(parts) | maps(parts) | objects(parts), max_leaves=3)
