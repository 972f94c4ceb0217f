"""Finds the records that hold an identifier of some persons: where a mapping reads it, and as text in any field."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

import orjson
from counterfoil_chassis.texts import WholeTexts

from counterfoil_graph.entities import DECISIONS, Name
from counterfoil_graph.extraction import Extractor, parsed_lines
from counterfoil_graph.facts import Facts, Record, UnreadError
from counterfoil_graph.mapping import InForce
from counterfoil_graph.values import getter, normaliser, text_of

_TELLING: Final = 16
_Field = tuple[str, Callable[[Record], Any], Callable[[str], str]]


def telling(names: Iterable[Name]) -> list[str]:
    """Return the identifiers that mean nobody else wherever they stand: e-mail addresses, and long ones.

    A short one, such as a customer's number, can be anything in a field that no mapping reads.
    """
    return sorted({each.value for each in names if "@" in each.value or len(each.value) >= _TELLING})


@dataclass(frozen=True, slots=True)
class Found:
    """The records of one block that hold an identifier, by offset with the time they were received.

    `firsts` tells the first record of each dataset that is neither one of them nor erased.
    """

    offsets: Mapping[int, int]
    firsts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Told:
    """What some records of a block say, and what the block says with and without them."""

    next_offset: int
    facts: Facts
    before: Facts
    after: Facts


@dataclass(slots=True)
class Search:
    """What a search through the log has found so far."""

    next_offset: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    firsts: dict[str, int] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)

    def take(self, next_offset: int, found: Found) -> None:
        """Add what was found in the next block."""
        self.next_offset = next_offset
        self.offsets.update(found.offsets)
        for dataset, offset in found.firsts.items():
            self.firsts.setdefault(dataset, offset)


class Searcher:
    """Looks for the identifiers of some persons; CPU work, for a worker."""

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

    def find(self, payload: bytes, *, received_us: Sequence[int]) -> Found:
        """Return the records of a block that hold one of the identifiers, whether or not a mapping's conditions hold.

        `payload` is the block's JSON lines. Raises ValueError when they cannot be read.
        """
        as_text = self._lines_with_text(payload)
        offsets: dict[int, int] = {}
        firsts: dict[str, int] = {}
        for number, line in enumerate(parsed_lines(payload)):
            offset, dataset, record = line["o"], line["d"], line["r"]
            if record is None:
                continue
            if number in as_text or self._names_one(dataset, record):
                offsets[offset] = received_us[line["h"]]
            elif dataset not in firsts:
                firsts[dataset] = offset
        return Found(offsets, firsts)

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

    def _lines_with_text(self, payload: bytes) -> frozenset[int]:
        places = list(self._texts.places(payload))
        if not places:
            return frozenset()
        begins = list(accumulate((len(each) + 1 for each in payload.split(b"\n")), initial=0))
        return frozenset(bisect_right(begins, place) - 1 for place in places)


def told_by(
    extractor: Extractor,
    payload: bytes,
    offsets: Collection[int],
    *,
    received_us: Sequence[int],
    sources: Sequence[str],
    next_offset: int,
) -> Told:
    """Return what the records at some offsets of a block say, and what the block says with and without them."""
    theirs: list[bytes] = []
    others: list[bytes] = []
    for line in payload.split(b"\n"):
        if line:
            (theirs if orjson.loads(line)["o"] in offsets else others).append(line)

    def read(lines: Sequence[bytes]) -> Facts:
        return extractor.read(b"\n".join(lines), received_us=received_us, sources=sources, from_offset=0)

    return Told(
        next_offset,
        read(theirs),
        extractor.read(payload, received_us=received_us, sources=sources, from_offset=0),
        read(others),
    )


def _decided(record: Record) -> Iterable[Name]:
    for key in ("identifiers", "staying"):
        for each in record.get(key) or ():
            if isinstance(each, dict):
                yield Name(str(each.get("type")), str(each.get("value")))
