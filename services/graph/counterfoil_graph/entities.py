"""What the rules of the graph and its stores share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from typing import NamedTuple

PARTITION = 0
"""The one partition of the log that version 1 writes."""

FOREVER = 1 << 62
"""The `tx_to` of what holds now."""

ALWAYS = -(1 << 62)
"""The `valid_from` of what was always so."""

PERSON = "person"
"""The node type of persons."""

CAMPAIGN = "campaign"
"""The node type whose validity gives the time of touchpoints that have none of their own."""

DECISIONS = "identity_decisions"
"""The dataset of merges and splits."""


class Name(NamedTuple):
    """An identifier as it was normalised."""

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class IdentifierType:
    """How identifiers of one type join people.

    A lower `rank` is the stronger evidence. A person has at most `max_per_person` of the type. An identifier with more
    than `shared_above` distinct partners of at least its own strength joins nobody; 0 = it never counts as shared.
    """

    name: str
    rank: int
    max_per_person: int
    normalise: str = "trim"
    shared_above: int = 0


class Link(NamedTuple):
    """Evidence: two identifiers that records have together, with the earliest such record.

    Identifiers are known by their place: `offset * 256 + n` of the first record that has them. `low < high`.
    """

    low: int
    high: int
    time_us: int
    record_id: str
    dataset: str
    offset: int
    records: int


class Member(NamedTuple):
    """An identifier where the rules look at it: its place, its name, and whether it is shared."""

    place: int
    name: Name
    shared: bool


class DecisionKind(Enum):
    """What a person decided."""

    MERGE = "merge"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Decision:
    """A merge or split by a person.

    Of a merge, `identifiers` are one of each person; of a split, those that leave, and `staying` those that do not.
    """

    decision_id: str
    kind: DecisionKind
    identifiers: tuple[Name, ...]
    staying: tuple[Name, ...]
    reverses: str
    decided_by: str
    decided_us: int
    reason: str
    request_sha256: str
    offset: int = 0
    reversed_by: str = ""


class EventKind(IntEnum):
    """What a journey is made of."""

    TOUCHPOINT = 1
    CONVERSION = 2


class JourneyEvent(NamedTuple):
    """A touchpoint or a conversion of a person; `place` is `offset * 256 + n` of its first record.

    `time_us` None: a touchpoint of a campaign of which no beginning is known.
    """

    kind: EventKind
    type: str
    place: int
    time_us: int | None
    channel: str
    campaign: str
    campaign_end_us: int | None
    value_micros: int
    currency: str
    dataset: str
    identifier_type: str
    records: int


@dataclass(frozen=True, slots=True)
class Node:
    """Something that records speak of; without an `offset` no record describes it, an edge only names it."""

    type: str
    key: str
    name: str = ""
    attributes: str = "{}"
    valid_from_us: int = ALWAYS
    valid_to_us: int | None = None
    tx_from: int = 0
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection of two nodes, named by their ids; a person's end is its identifier's place, written `@<place>`."""

    type: str
    from_id: str
    to_id: str
    valid_from_us: int
    valid_to_us: int | None
    tx_from: int
    records: int
    offset: int


class IdentifierSeen(NamedTuple):
    """An identifier of a person, with when it was seen."""

    place: int
    name: Name
    first_us: int
    last_us: int
    records: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Person:
    """A person; its number is the place of its first identifier. `merged` were persons of their own once."""

    number: int
    identifiers: tuple[IdentifierSeen, ...]
    merged: tuple[int, ...] = ()
    touchpoints: int = 0
    conversions: int = 0


@dataclass(frozen=True, slots=True)
class MappingVersion:
    """A mapping that was put in force."""

    workspace: str
    mapping_id: str
    version: int
    document: str
    sha256: str
    datasets: tuple[str, ...]
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class State:
    """A state of the graph: records below `next_offset`, read under these mappings; `known_us` None = no record.

    `erasures` counts those that were carried out when it was read.
    """

    log_epoch: str
    next_offset: int
    mappings_sha256: str
    known_us: int | None
    erasures: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What the graph holds."""

    persons: int
    identifiers: int
    nodes: int
    edges: int
    touchpoints: int
    conversions: int
    unread: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Erasure:
    """Who is to be erased: by the hashes of identifiers, of what was received until it was asked for."""

    workspace: str
    privacy_request_id: str
    hash_key: bytes
    identifier_hashes: frozenset[bytes]
    asked_us: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on persons, by the hashes of identifiers; `expires_us` None = it does not end by itself."""

    workspace: str
    legal_hold_id: str
    hash_key: bytes
    identifier_hashes: frozenset[bytes]
    expires_us: int | None


@dataclass(frozen=True, slots=True)
class ErasureWork:
    """How far an erasure is: the offsets to erase, and, once the graph has forgotten, what is gone (None = not yet)."""

    offsets: tuple[int, ...]
    erased: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Export:
    """An export of persons, kept without what was exported: the cited state gives that again.

    `erased` counts the persons that were among them and are erased since.
    """

    workspace: str
    export_id: str
    receipt_id: str
    change_id: str
    person_numbers: tuple[int, ...]
    created_at: datetime
    erased: int = 0


def person_id(number: int) -> str:
    """Return the id of the person whose first identifier has this place."""
    return f"per_{PARTITION:02x}{number:016x}"


def event_id(place: int) -> str:
    """Return the id of the journey event whose first record has this place."""
    return f"evt_{PARTITION:02x}{place:016x}"


def number_of(text: str) -> int | None:
    """Return the number in a person's id, None when it is none."""
    digits = text.removeprefix(f"per_{PARTITION:02x}")
    if len(text) != 22 or len(digits) != 16 or digits.strip("0123456789abcdef"):
        return None
    number = int(digits, 16)
    return number if number < FOREVER else None


def position_text(offset: int) -> str:
    """Return where a record lies in the log, e.g. `0:1234`."""
    return f"{PARTITION}:{offset}"
