"""Persons as they are now: found by id or identifier, explained, merged and split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from counterfoil_graph.absorbing import component_of
from counterfoil_graph.entities import (
    DECISIONS,
    Decision,
    DecisionKind,
    EventKind,
    IdentifierSeen,
    IdentifierType,
    Link,
    Member,
    Name,
    Person,
    number_of,
    person_id,
)
from counterfoil_graph.errors import (
    DecisionNotFoundError,
    DecisionReversedError,
    DecisionTooLargeError,
    PersonErasedError,
    PersonNotFoundError,
    PersonsAlreadyOneError,
    SplitInvalidError,
)
from counterfoil_graph.identity import REFUSED_SPLIT, partition, priority
from counterfoil_graph.states import present
from counterfoil_graph.store import GraphReader, PersonReader

MOST_EVIDENCE: Final = 1_000
"""Pieces of evidence that an explanation shows."""

SAME_RECORD: Final = "same_record"
MERGE: Final = "merge"

MOST_STAYING: Final = 1_000
"""Identifiers that a split can name as staying."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of evidence as an explanation shows it; `refused` "" = it holds."""

    left: Name
    right: Name
    rule: str
    happened_us: int
    dataset: str
    record_id: str
    offset: int
    records: int
    refused: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why some identifiers are one person."""

    person: Person
    evidence: tuple[Piece, ...]
    decisions: tuple[Decision, ...]
    truncated: bool


async def resolve(reader: PersonReader, text: str, *, at: int | None = None) -> int:
    """Return the person that an id means, also one that was merged into another.

    Raises PersonNotFoundError, of which PersonErasedError is one.
    """
    number = number_of(text)
    found = await reader.persons([number], at=at) if number is not None else {}
    if number is None or number not in found:
        if number is not None and await reader.is_erased(number):
            raise PersonErasedError(f"Person {text} was erased.", metadata={"person_id": text})
        raise PersonNotFoundError(f"There is no person {text}.", metadata={"person_id": text})
    return found[number]


async def get(reader: PersonReader, text: str) -> Person:
    """Return the person that an id means as it is now; raise PersonNotFoundError or GraphRebuildingError."""
    state = await present(reader)
    number = await resolve(reader, text)
    (person,) = await describe(reader, [number], at=state.next_offset)
    return person


async def lookup(reader: GraphReader, name: Name) -> int:
    """Return the person that an identifier belongs to; raise PersonNotFoundError."""
    place = await reader.place_of(name)
    if place is None:
        raise PersonNotFoundError(f"No record has this {name.type}.", metadata={"type": name.type})
    return (await reader.persons([place]))[place]


async def describe(reader: PersonReader, numbers: Sequence[int], *, at: int) -> list[Person]:
    """Return persons with their identifiers and how much there is of their journeys."""
    identifiers = await reader.identifiers(numbers)
    of_place = {each.place: person for person, found in identifiers.items() for each in found}
    events: dict[int, set[tuple[EventKind, str, str]]] = {number: set() for number in numbers}
    for place, kind, type_, key in await reader.event_keys(list(of_place), at=at):
        events[of_place[place]].add((kind, type_, key))
    counts = {
        number: {kind: sum(each[0] is kind for each in found) for kind in EventKind} for number, found in events.items()
    }
    were = await reader.were_persons(of_place)
    return [
        Person(
            number,
            tuple(identifiers[number]),
            tuple(sorted(each.place for each in identifiers[number] if each.place in were)),
            counts[number][EventKind.TOUCHPOINT],
            counts[number][EventKind.CONVERSION],
        )
        for number in numbers
    ]


async def explain(reader: GraphReader, number: int, types: Mapping[str, IdentifierType], *, at: int) -> Explanation:
    """Return the evidence that concerns a person's identifiers, what of it holds, and the decisions about them."""
    (person,) = await describe(reader, [number], at=at)
    places = {each.place for each in person.identifiers}
    component = await component_of(reader, places)
    # A shared identifier connects nothing, so its own evidence is not in the component of anybody.
    for link in await reader.links_of([each.place for each in person.identifiers if each.shared]):
        component.links.append(link)
        component.members.update(await reader.members({link.low, link.high} - component.members.keys()))
    links = list({(link.low, link.high): link for link in component.links}.values())
    found = partition(component.members, links, component.decisions, types)
    about = [link for link in links if link.low in places or link.high in places]
    about.sort(key=lambda link: priority(link, component.members, types))
    decided = sorted(
        (each for each, named in await reader.decisions_of(places) if places & set(named)),
        key=lambda each: (each.decided_us, each.decision_id),
    )
    pieces = [piece for each in reversed(decided) for piece in _merged(each, component.members, found.persons)]
    pieces += [_piece(link, component.members, found.refused) for link in about[:MOST_EVIDENCE]]
    shown = tuple(pieces[:MOST_EVIDENCE])
    return Explanation(person, shown, tuple(decided), len(pieces) > len(shown) or len(about) > MOST_EVIDENCE)


def _piece(link: Link, members: Mapping[int, Member], refused: Mapping[tuple[int, int], str]) -> Piece:
    return Piece(
        left=members[link.low].name,
        right=members[link.high].name,
        rule=SAME_RECORD,
        happened_us=link.time_us,
        dataset=link.dataset,
        record_id=link.record_id,
        offset=link.offset,
        records=link.records,
        refused=refused.get((link.low, link.high), ""),
    )


def _merged(decision: Decision, members: Mapping[int, Member], persons: Mapping[int, int]) -> list[Piece]:
    """Return a merge as evidence: its first identifier with each other one."""
    if decision.kind is not DecisionKind.MERGE:
        return []
    person_of = {members[place].name: person for place, person in persons.items()}
    first, *others = decision.identifiers
    pieces = []
    for other in others:
        one = person_of.get(first) == person_of.get(other)
        pieces.append(
            Piece(
                left=first,
                right=other,
                rule=MERGE,
                happened_us=decision.decided_us,
                dataset=DECISIONS,
                record_id=decision.decision_id,
                offset=decision.offset,
                records=1,
                refused="" if one and not decision.reversed_by else REFUSED_SPLIT,
            )
        )
    return pieces


async def merge_of(reader: GraphReader, ids: Sequence[str]) -> tuple[Name, ...]:
    """Return the identifiers that a merge of persons names: of each the one that its id, also a former one, stands for.

    Raises PersonNotFoundError, and PersonsAlreadyOneError when two of the ids mean the same person.
    """
    numbers = [await resolve(reader, each) for each in ids]
    for index, number in enumerate(numbers):
        if number in numbers[:index]:
            first = ids[numbers.index(number)]
            raise PersonsAlreadyOneError(
                f"{first} and {ids[index]} are one person already, {person_id(number)}. Nothing is left to merge.",
                metadata={"person_id": person_id(number)},
            )
    places = [number_of(each) or 0 for each in ids]
    members = await reader.members(places)
    return tuple(members[place].name for place in places)


async def merge_to_take_back(reader: GraphReader, number: int, decision_id: str) -> Decision:
    """Return the merge that a split names; raise DecisionNotFoundError or DecisionReversedError."""
    decision = await reader.decision(decision_id)
    places = [place for name in decision.identifiers if (place := await reader.place_of(name))] if decision else []
    if (
        decision is None
        or decision.kind is not DecisionKind.MERGE
        or number not in (await reader.persons(places)).values()
    ):
        raise DecisionNotFoundError(
            f"No merge {decision_id} concerns this person; its explanation lists those that do.",
            metadata={"decision_id": decision_id},
        )
    if decision.reversed_by:
        raise DecisionReversedError(
            f"The merge {decision_id} was taken back by {decision.reversed_by} already.",
            metadata={"decision_id": decision_id, "reversed_by": decision.reversed_by},
        )
    return decision


def parted(identifiers: Iterable[IdentifierSeen], leaving: Sequence[Name]) -> tuple[Name, ...]:
    """Return the identifiers that stay when some leave a person.

    Raises SplitInvalidError when one is not the person's, or nothing would stay, and DecisionTooLargeError.
    """
    own = [each.name for each in identifiers]
    for name in leaving:
        if name not in own:
            raise SplitInvalidError(
                f"The person has no such {name.type}; name identifiers as the person shows them.",
                metadata={"type": name.type},
            )
    staying = tuple(name for name in own if name not in leaving)
    if not staying:
        raise SplitInvalidError("All identifiers would leave, and the person would be the same. Name fewer of them.")
    if len(staying) > MOST_STAYING:
        raise DecisionTooLargeError(
            f"The person has {len(own)} identifiers; one split can part at most {MOST_STAYING}. "
            "Lower the limits of its identifier types instead."
        )
    return staying
