"""Takes the facts of one block into the graph: identifiers, evidence, persons, nodes, edges, journeys.

The work is that of what the block touches: a component of the evidence is computed anew when a new piece of evidence, a
better one, a decision, or an identifier that became shared concerns it; everything else is counting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from counterfoil_graph.entities import Decision, Edge, IdentifierSeen, IdentifierType, Link, Member, Name, Node
from counterfoil_graph.facts import EdgeEnd, Facts, LinkFact
from counterfoil_graph.identity import Partition, counts_as_partner, is_shared
from counterfoil_graph.store import EventRow, GraphWriter, Partners

_REMEMBERED: Final = 200_000

Partitioner = Callable[
    [Mapping[int, Member], Iterable[Link], Iterable[Decision], Mapping[str, IdentifierType]], Awaitable[Partition]
]
"""`identity.partition`, run where it does not keep the event loop waiting."""

Pair = tuple[int, int]


class Evidence(Protocol):
    """The part of a store that leads from identifiers to everything that decides about them."""

    async def members(self, places: Collection[int]) -> dict[int, Member]:
        """Return identifiers by place."""

    async def links_of(self, places: Collection[int]) -> list[Link]:
        """Return the evidence that concerns any of some identifiers."""

    async def decisions_of(self, places: Collection[int]) -> list[tuple[Decision, tuple[int, ...]]]:
        """Return the decisions about any of some identifiers, each with the places of those it is about."""


@dataclass(frozen=True, slots=True)
class Component:
    """Identifiers with all the evidence and decisions that can join or part them."""

    members: dict[int, Member]
    links: list[Link]
    decisions: list[Decision]


async def component_of(evidence: Evidence, places: Collection[int], *, decided: bool = True) -> Component:
    """Return what is connected with some identifiers; evidence of a shared identifier connects nothing.

    `decided` False: nobody ever decided anything, and no decision is looked for.
    """
    members: dict[int, Member] = {}
    links: dict[Pair, Link] = {}
    decisions: dict[str, Decision] = {}
    frontier = set(places)
    while frontier:
        found = await evidence.members(frontier)
        members |= found
        reached: set[int] = set()
        for decision, named in await evidence.decisions_of(frontier) if decided else ():
            decisions[decision.decision_id] = decision
            reached.update(named)
        for link in await evidence.links_of([each.place for each in found.values() if not each.shared]):
            links[link.low, link.high] = link
            reached.update((link.low, link.high))
        frontier = reached - members.keys()
    return Component(members, list(links.values()), list(decisions.values()))


class Absorber:
    """Changes one workspace's graph block by block; remembers what it looked up, for as long as blocks succeed."""

    def __init__(self, types: Mapping[str, IdentifierType], partitioner: Partitioner) -> None:
        self._types = types
        self._partition = partitioner
        self._places: dict[Name, int] = {}
        self._best: dict[Pair, tuple[int, str, str, int]] = {}
        self._datasets: set[str] = set()
        self._known_us: int | None = None
        self._decided: bool | None = None

    def forget(self) -> None:
        """Drop what is remembered; after a transaction that did not commit it is wrong."""
        self._places.clear()
        self._best.clear()
        self._datasets.clear()
        self._known_us = self._decided = None

    async def absorb(self, writer: GraphWriter, facts: Facts) -> None:
        """Take in one block."""
        if len(self._places) > _REMEMBERED or len(self._best) > _REMEMBERED:
            self.forget()
        new = await self._take_identifiers(writer, facts)
        touched = await self._take_links(writer, facts, new)
        touched |= await self._take_decisions(writer, facts)
        await self._assign(writer, touched, new=new)
        await self._take_knowledge(writer, facts)
        if facts.unread:
            await writer.add_unread(facts.unread)
        new_datasets = {each: offset for each, offset in facts.datasets.items() if each not in self._datasets}
        await writer.add_datasets(new_datasets)
        self._datasets.update(new_datasets)
        if self._known_us is None:
            self._known_us = await writer.known_us()
        self._known_us = max(self._known_us, facts.known_us)
        await writer.end_block(self._known_us)

    async def _take_identifiers(self, writer: GraphWriter, facts: Facts) -> set[int]:
        """Add new identifiers, count known ones; return the places of the new ones."""
        decided = {name: place for each in facts.decisions for name, place in _places_for(each).items()}
        wanted = facts.identifiers.keys() | decided.keys()
        unknown = wanted - self._places.keys()
        if unknown:
            self._places |= await writer.places(unknown)
        new: list[IdentifierSeen] = []
        seen: list[IdentifierSeen] = []
        for name, fact in facts.identifiers.items():
            place = self._places.get(name)
            one = IdentifierSeen(
                fact.place if place is None else place, name, fact.first_us, fact.last_us, fact.records, shared=False
            )
            (new if place is None else seen).append(one)
        for decision in facts.decisions:
            for name, place in _places_for(decision).items():  # named by a decision under mappings of another time
                if name not in self._places and name not in facts.identifiers and name.type in self._types:
                    new.append(IdentifierSeen(place, name, decision.decided_us, decision.decided_us, 0, shared=False))
                    self._places[name] = place
        await writer.add_identifiers(new)
        await writer.see_identifiers(seen)
        self._places |= {each.name: each.place for each in new}
        return {each.place for each in new}

    async def _take_links(self, writer: GraphWriter, facts: Facts, new: set[int]) -> set[int]:
        """Keep evidence; return the identifiers whose persons it can change."""
        found: dict[Pair, tuple[tuple[Name, Name], LinkFact]] = {}
        for names, fact in facts.links.items():
            one, other = self._places[names[0]], self._places[names[1]]
            found[(one, other) if one < other else (other, one)] = (names, fact)
        unsure = [pair for pair in found if pair not in self._best and new.isdisjoint(pair)]
        if unsure:
            known = await writer.links(unsure)
            self._best |= {
                pair: (link.time_us, link.record_id, link.dataset, link.offset) for pair, link in known.items()
            }
        rows: list[Link] = []
        fresh: list[tuple[Name, Name]] = []
        touched: set[int] = set()
        for pair, (names, fact) in found.items():
            told = (fact.time_us, fact.record_id, fact.dataset, fact.offset)
            best = self._best.get(pair)
            if best is None:
                fresh.append(names)
            if best is None or told[:3] < best[:3]:
                self._best[pair] = best = told
                touched.update(pair)
            rows.append(Link(pair[0], pair[1], best[0], best[1], best[2], best[3], fact.records))
        await writer.put_links(rows)
        return touched | await self._count_partners(writer, fresh)

    async def _count_partners(self, writer: GraphWriter, fresh: list[tuple[Name, Name]]) -> set[int]:
        """Count partners of new evidence; return the neighbours of identifiers that became shared by it."""
        more: dict[Name, int] = {}
        for one, other in fresh:
            for name, partner in ((one, other), (other, one)):
                if self._types[name.type].shared_above and counts_as_partner(name, partner, self._types):
                    more[name] = more.get(name, 0) + 1
        if not more:
            return set()
        before = await writer.partners([self._places[name] for name in more])
        now: list[Partners] = []
        became: list[int] = []
        for name, count in more.items():
            was = before[self._places[name]]
            shared = is_shared(name, was.partners + count, self._types)
            now.append(Partners(was.place, was.partners + count, shared))
            if shared and not was.shared:
                became.append(was.place)
        await writer.set_partners(now)
        neighbours = await writer.links_of(became) if became else []
        return {place for link in neighbours for place in (link.low, link.high)}

    async def _take_decisions(self, writer: GraphWriter, facts: Facts) -> set[int]:
        touched: set[int] = set()
        for decision in facts.decisions:
            named = (*decision.identifiers, *decision.staying)
            places = [self._places[name] for name in named if name in self._places]
            await writer.add_decision(decision, places)
            self._decided = True
            touched.update(places)
        return touched

    async def _assign(self, writer: GraphWriter, touched: set[int], *, new: set[int]) -> None:
        persons: Mapping[int, int] = {}
        if touched:
            if self._decided is None:
                self._decided = await writer.has_decisions()
            component = await component_of(writer, touched, decided=self._decided)
            found = await self._partition(component.members, component.links, component.decisions, self._types)
            persons = found.persons
        await writer.add_persons({place: persons.get(place, place) for place in new})
        known = await writer.persons(persons.keys() - new)
        await writer.assign({place: persons[place] for place, person in known.items() if persons[place] != person})

    async def _take_knowledge(self, writer: GraphWriter, facts: Facts) -> None:
        await writer.put_nodes(
            [
                Node(type_, key, fact.name, fact.attributes, since, fact.valid_to_us, offset=fact.offset)
                for (type_, key, since), fact in facts.nodes.items()
            ]
        )
        await writer.put_edges(
            [
                Edge(type_, self._end(source), self._end(target), since, fact.valid_to_us, 0, fact.records, fact.offset)
                for (type_, source, target, since), fact in facts.edges.items()
            ]
        )
        await writer.put_events(
            [
                EventRow(
                    self._places[name],
                    kind,
                    type_,
                    key,
                    fact.place,
                    fact.time_us,
                    fact.channel,
                    fact.campaign,
                    fact.value_micros,
                    fact.currency,
                    fact.dataset,
                    fact.records,
                )
                for (name, kind, type_, key), fact in facts.events.items()
            ]
        )

    def _end(self, end: EdgeEnd) -> str:
        return end if isinstance(end, str) else f"@{self._places[end]}"


def _places_for(decision: Decision) -> dict[Name, int]:
    """Return the places that identifiers of a decision get that no record named before: the decision's own."""
    named = dict.fromkeys((*decision.identifiers, *decision.staying))
    return {name: decision.offset * 256 + index for index, name in enumerate(named) if index < 256}
