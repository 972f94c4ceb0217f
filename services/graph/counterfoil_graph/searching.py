"""Finds the records that hold an identifier of some persons: where a mapping reads it, and as text in any field."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

import orjson
from counterfoil_chassis.texts import WholeTexts

from counterfoil_graph.entities import DECISIONS, Name
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.facts import Facts, Record, UnreadError
from counterfoil_graph.mapping import InForce
from counterfoil_graph.values import getter, normaliser, text_of

_TELLING: Final = 16
_ESCAPE: Final = re.compile(rb"\\u|\\/")
"""Behind an escape that JSON does not need, anything can be written; such a record is parsed."""
_INTEGER: Final = re.compile(r"-?[0-9]+")
_OTHER_NUMBER: Final = re.compile(rb":\s*-?[0-9]+(?:\.[0-9]+)?e")
"""An integer can be written with an exponent, so that its digits are not those of the identifier."""
_NUMBER: Final = re.compile(rb":\s*-?[0-9]")
"""A fraction can be written in many ways. It is nobody's identifier, as a rule."""
_BROKEN_NUMBER: Final = re.compile(rb":\s*-?[0-9]+[.e]")
"""Of such a number other digits are read as a telephone number than are written."""
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
"""Upper and lower case of other letters are other bytes."""
_APART: Final = re.compile(rb"(?:(?<!\w)|(?<=\\[nrtbf]))")
_ENDS: Final = re.compile(rb"(?!\w)")
_Field = tuple[str, Callable[[Record], Any], Callable[[str], str]]


def telling(names: Iterable[Name]) -> list[str]:
    """Return the identifiers that mean nobody else wherever they stand: e-mail addresses, and long ones.

    A short one, such as a customer's number, can be anything in a field that no mapping reads.
    """
    return sorted({each.value for each in names if "@" in each.value or len(each.value) >= _TELLING})


@dataclass(frozen=True, slots=True)
class Told:
    """What some records of a block say, and what the block says with and without them.

    Where they tell of nothing but people, nobody asks for the block, and `before` and `after` are empty.
    """

    next_offset: int
    facts: Facts
    before: Facts
    after: Facts


@dataclass(slots=True)
class Search:
    """What a search through the log has found: records by offset, with the time they were received, and their facts."""

    next_offset: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)


class Searcher:
    """Looks for the identifiers of some persons; CPU work, for a worker.

    A record is parsed only when its text holds something that can be one of them: a log is long, a person is small.
    """

    def __init__(self, in_force: InForce, names: Collection[Name]) -> None:
        self._names = frozenset(names)
        self._texts = WholeTexts(telling(names))
        types = in_force.identifier_types
        self._fields: dict[str, list[_Field]] = {
            dataset: [
                (rule.type, getter(rule.value.path), normaliser(types[rule.type].normalise))
                for rules in each
                for rule in rules.identifiers
            ]
            for dataset, each in in_force.datasets.items()
        }
        phones = {name for name, type_ in types.items() if type_.normalise == "phone"}
        written = {each for each in self._names if each.type not in phones}
        self._written = sorted({orjson.dumps(each.value)[1:-1].lower() for each in written})
        digits = sorted({_grouped(each.value) for each in self._names - written})
        self._phones = re.compile(b"|".join(digits)) if digits else None
        self._hidden = [_ESCAPE]
        if any(_INTEGER.fullmatch(each.value) for each in written):
            self._hidden.append(_OTHER_NUMBER)
        if any(_is_fraction(each.value) for each in written):
            self._hidden.append(_NUMBER)
        if digits:
            self._hidden.append(_BROKEN_NUMBER)
        if not all(each.value.isascii() for each in written):
            self._hidden.append(_NOT_ASCII)

    def find(self, payload: bytes, *, received_us: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return the records of a block that hold one of the identifiers, whether or not a mapping's conditions hold.

        By offset, with the number of the line and the time it was received; `payload` is the block's JSON lines.
        Raises ValueError when they cannot be read.
        """
        lowered = payload.lower()
        candidates = self._candidates(lowered)
        if not candidates:
            return {}
        begins = list(accumulate((len(each) + 1 for each in payload.split(b"\n")), initial=0))
        numbers = sorted({bisect_right(begins, place) - 1 for place in candidates})
        as_text = {bisect_right(begins, place) - 1 for place in self._texts.places(lowered)}
        found: dict[int, tuple[int, int]] = {}
        for number in numbers:
            line = orjson.loads(payload[begins[number] : begins[number + 1]])
            if line["r"] is not None and (number in as_text or self._names_one(line["d"], line["r"])):
                found[line["o"]] = (number, received_us[line["h"]])
        return found

    def _candidates(self, lowered: bytes) -> list[int]:
        """Return places in the lines that may hold an identifier."""
        if not self._names:
            return []
        places = [match.start() for pattern in self._hidden for match in pattern.finditer(lowered)]
        for text in self._written:
            at = lowered.find(text)
            while at >= 0:
                if _APART.match(lowered, at) and _ENDS.match(lowered, at + len(text)):
                    places.append(at)
                at = lowered.find(text, at + 1)
        if self._phones is not None:
            places += [match.start() for match in self._phones.finditer(lowered)]
        return places

    def _names_one(self, dataset: str, record: Record) -> bool:
        if dataset == DECISIONS:
            return not self._names.isdisjoint(_decided(record))
        for type_, get, normalise in self._fields.get(dataset, ()):
            value = get(record)
            if value is None:
                continue
            try:
                name = Name(type_, normalise(text_of(value, "IDENTIFIER_INVALID")))
            except UnreadError:
                continue
            if name in self._names:
                return True
        return False


def told_by(
    extractor: Extractor,
    payload: bytes,
    numbers: Collection[int],
    *,
    received_us: Sequence[int],
    sources: Sequence[str],
    next_offset: int,
) -> Told:
    """Return what some lines of a block say, and what the block says with and without them."""
    lines = payload.split(b"\n")
    theirs = frozenset(numbers)

    def read(some: Iterable[bytes]) -> Facts:
        return extractor.read(b"\n".join(some), received_us=received_us, sources=sources, from_offset=0)

    facts = read(lines[number] for number in sorted(theirs))
    if not facts.nodes and not any(
        isinstance(source, str) and isinstance(target, str) for _, source, target, _ in facts.edges
    ):
        return Told(next_offset, facts, Facts(0), Facts(0))
    return Told(
        next_offset, facts, read(lines), read(line for number, line in enumerate(lines) if number not in theirs)
    )


def _is_fraction(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return _INTEGER.fullmatch(value) is None


def _grouped(number: str) -> bytes:
    """Return the pattern of a telephone number, however it is grouped."""
    return b'[^0-9"]{0,20}'.join(digit.encode() for digit in number if digit.isdigit())


def _decided(record: Record) -> Iterable[Name]:
    for key in ("identifiers", "staying"):
        for each in record.get(key) or ():
            if isinstance(each, dict):
                yield Name(str(each.get("type")), str(each.get("value")))
