"""Facts: what the records of a block say, whatever the mappings are, added up as far as they say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from counterfoil_graph.entities import Decision, EventKind, Name

Record = dict[str, Any]


class UnreadError(Exception):
    """A record cannot be read by its mapping; the argument is a stable reason code."""


@dataclass(slots=True)
class IdentifierFact:
    """An identifier in a block: its place, the times of its records, how many they are."""

    place: int
    first_us: int
    last_us: int
    records: int


@dataclass(slots=True)
class LinkFact:
    """Two identifiers together in records of a block: the earliest such record, how many they are."""

    time_us: int
    record_id: str
    dataset: str
    offset: int
    records: int


@dataclass(slots=True)
class EventFact:
    """A touchpoint or conversion as far as one block tells of it."""

    place: int
    time_us: int | None
    channel: str
    campaign: str
    value_micros: int
    currency: str
    dataset: str
    records: int


@dataclass(slots=True)
class NodeFact:
    """A node as the newest record of a block describes it."""

    name: str
    attributes: str
    valid_to_us: int | None
    offset: int


@dataclass(slots=True)
class EdgeFact:
    """An edge as far as one block tells of it."""

    valid_to_us: int | None
    records: int
    offset: int


EventKey = tuple[Name, EventKind, str, str]
"""Whose (its strongest identifier), what kind, which type, which key."""

EdgeEnd = Name | str
"""A person's end is its strongest identifier; another's is the node's id."""


@dataclass(slots=True)
class Facts:
    """What a block says; `headers` are the indexes of the requests that said something."""

    known_us: int
    identifiers: dict[Name, IdentifierFact] = field(default_factory=dict)
    links: dict[tuple[Name, Name], LinkFact] = field(default_factory=dict)
    events: dict[EventKey, EventFact] = field(default_factory=dict)
    nodes: dict[tuple[str, str, int], NodeFact] = field(default_factory=dict)
    edges: dict[tuple[str, EdgeEnd, EdgeEnd, int], EdgeFact] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)
    datasets: dict[str, int] = field(default_factory=dict)
    headers: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Line:
    """One record of the log and where it lies; `times` remembers the block's times, which repeat.

    `events` counts what was found of it, over all mappings, so that each has a place of its own.
    """

    offset: int
    dataset: str
    record_id: str
    record: Record
    received_us: int
    times: dict[tuple[str, str], int]
    events: int = 0


def add_identifiers(facts: Facts, line: Line, names: Sequence[Name], time_us: int) -> None:
    """Add the identifiers of one record, and each pair of them as evidence."""
    for index, name in enumerate(names):
        known = facts.identifiers.get(name)
        if known is None:
            facts.identifiers[name] = IdentifierFact(line.offset * 256 + index, time_us, time_us, 1)
            continue
        known.records += 1
        if time_us < known.first_us:
            known.first_us = time_us
        elif time_us > known.last_us:
            known.last_us = time_us
    for index, left in enumerate(names[:-1]):
        for right in names[index + 1 :]:
            pair = (left, right) if left < right else (right, left)
            link = facts.links.get(pair)
            if link is None:
                facts.links[pair] = LinkFact(time_us, line.record_id, line.dataset, line.offset, 1)
                continue
            link.records += 1
            if (time_us, line.record_id, line.dataset) < (link.time_us, link.record_id, link.dataset):
                link.time_us, link.record_id, link.dataset = time_us, line.record_id, line.dataset
                link.offset = line.offset


def add_event(facts: Facts, key: EventKey, event: EventFact) -> None:
    """Add what one record says of a touchpoint or conversion: of the same key, values and records add up."""
    known = facts.events.get(key)
    if known is None:
        facts.events[key] = event
        return
    known.records += event.records
    known.value_micros += event.value_micros
    if event.time_us is not None and (known.time_us is None or event.time_us < known.time_us):
        known.time_us = event.time_us
