"""What a dataset's past looked like, in counts: records per hour, and how its properties were filled per six hours.

The counts tell nobody apart: texts are counted by a hash of few values, numbers and times by their magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

HOURS_PER_SLOT: Final = 6
SLOTS_PER_WEEK: Final = 28
HOURS_PER_WEEK: Final = 168

KEPT_HOURS: Final = 9 * HOURS_PER_WEEK
KEPT_SLOTS: Final = 6 * SLOTS_PER_WEEK

MOST_PROPERTIES: Final = 500
"""So many properties are counted in a slot: a sender that invents names does not fill the store."""


@dataclass(frozen=True, slots=True)
class Hour:
    """Records received in one hour since 1970, UTC; `newest` is the latest event time among them, microseconds."""

    hour: int
    records: int
    newest: int | None = None

    def plus(self, other: Hour) -> Hour:
        """Return both together."""
        times = [each for each in (self.newest, other.newest) if each is not None]
        return Hour(self.hour, self.records + other.records, max(times, default=None))


@dataclass(frozen=True, slots=True)
class Filling:
    """How often a property had a value in one slot of six hours since 1970, and in which of few buckets values fell.

    A column's buckets are ranges or hashes of its values; those of a property within a JSON object, whose name has a
    dot (`_extra.coupon`), are JSON types.
    """

    slot: int
    property: str
    filled: int
    buckets: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: Filling) -> Filling:
        """Return both together."""
        return Filling(self.slot, self.property, self.filled + other.filled, added(self.buckets, other.buckets))


@dataclass(frozen=True, slots=True)
class Counted:
    """What some records added to a past."""

    hours: Sequence[Hour] = ()
    fillings: Sequence[Filling] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where the records of a dataset have been counted: an exclusive offset of one life of the log."""

    epoch: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """The past of a dataset as far as it is kept."""

    hours: Mapping[int, Hour]
    fillings: Mapping[int, Mapping[str, Filling]]
    """By slot and property."""

    @property
    def began(self) -> int | None:
        """Return its first hour; None when there is none."""
        return min(self.hours, default=None)

    def records(self, slots: Sequence[int]) -> int:
        """Return how many records came in some slots."""
        return sum(
            known.records
            for slot in slots
            for hour in range(slot * HOURS_PER_SLOT, (slot + 1) * HOURS_PER_SLOT)
            if (known := self.hours.get(hour)) is not None
        )

    def filled(self, slots: Sequence[int], name: str) -> Filling:
        """Return how a property was filled in some slots together."""
        filled, buckets = 0, dict[str, int]()
        for slot in slots:
            if (known := self.fillings.get(slot, {}).get(name)) is not None:
                filled += known.filled
                for bucket, number in known.buckets.items():
                    buckets[bucket] = buckets.get(bucket, 0) + number
        return Filling(0, name, filled, buckets)

    def names(self, slots: Sequence[int]) -> set[str]:
        """Return the properties that had a value in some slots."""
        return {name for slot in slots for name, each in self.fillings.get(slot, {}).items() if each.filled}


def added(left: Mapping[str, int], right: Mapping[str, int]) -> Mapping[str, int]:
    """Return the sums of two counts."""
    return {key: left.get(key, 0) + right.get(key, 0) for key in {**left, **right}}
