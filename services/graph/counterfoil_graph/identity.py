"""Who is who: the partition of identifiers into persons, a function of the evidence as a set.

Decisions of people come first, the newest first; then evidence by priority: the rule's rank, then the time, then the
record. Each piece joins two groups unless a limit, a shared identifier or a split forbids it. Nothing depends on the
order in which records arrived, so a component of the evidence can be computed anew whenever something touches it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from counterfoil_graph.entities import Decision, DecisionKind, IdentifierType, Link, Member, Name

REFUSED_SHARED: Final = "SHARED_IDENTIFIER"
REFUSED_SPLIT: Final = "SPLIT"
REFUSED_LIMIT: Final = "LIMIT_"

Types = Mapping[str, IdentifierType]


@dataclass(frozen=True, slots=True)
class Partition:
    """Persons by identifier, each the place of its group's first identifier, and why each refused link was refused."""

    persons: Mapping[int, int]
    refused: Mapping[tuple[int, int], str]


def priority(link: Link, members: Mapping[int, Member], types: Types) -> tuple[int, int, str, str, Name, Name]:
    """Return the key that orders evidence: the weaker identifier's rank, the time, the record, then the names."""
    low, high = members[link.low].name, members[link.high].name
    rank = max(types[low.type].rank, types[high.type].rank)
    first, second = (low, high) if low < high else (high, low)
    return rank, link.time_us, link.record_id, link.dataset, first, second


def in_force(decisions: Iterable[Decision]) -> list[Decision]:
    """Return the decisions that count, the newest first: without merges taken back, and what took them back."""
    every = list(decisions)
    merges = {each.decision_id for each in every if each.kind is DecisionKind.MERGE}
    reversed_ids = {each.reverses for each in every if each.reverses}
    kept = [each for each in every if not each.reverses and each.decision_id not in (reversed_ids & merges)]
    return sorted(kept, key=lambda each: (each.decided_us, each.decision_id), reverse=True)


def counts_as_partner(of: Name, partner: Name, types: Types) -> bool:
    """Tell whether a partner counts when it is asked whether an identifier is shared: one at least as strong does.

    A customer's many cookies do not make the customer's id shared; many customers make a cookie so.
    """
    return types[partner.type].rank <= types[of.type].rank


def is_shared(name: Name, partners: int, types: Types) -> bool:
    """Tell whether an identifier with so many distinct partners joins nobody."""
    limit = types[name.type].shared_above
    return limit > 0 and partners > limit


def partition(
    members: Mapping[int, Member], links: Iterable[Link], decisions: Iterable[Decision], types: Types
) -> Partition:
    """Return the persons among these identifiers; `links` outside of them are not allowed, decisions may be wider."""
    groups = _Groups(members, types)
    places = {member.name: place for place, member in members.items()}
    for decision in in_force(decisions):
        named = [places[name] for name in decision.identifiers if name in places]
        if decision.kind is DecisionKind.SPLIT:
            groups.part(named, [places[name] for name in decision.staying if name in places])
        for place in named[1:]:
            groups.decide(named[0], place)
    refused: dict[tuple[int, int], str] = {}
    for link in sorted(links, key=lambda each: priority(each, members, types)):
        if members[link.low].shared or members[link.high].shared:
            refused[link.low, link.high] = REFUSED_SHARED
        elif reason := groups.join(link.low, link.high):
            refused[link.low, link.high] = reason
    return Partition(groups.persons(), refused)


class _Groups:
    """Union-find over identifiers that knows what each group holds and what it must not hold."""

    def __init__(self, members: Mapping[int, Member], types: Types) -> None:
        self._types = types
        self._root = {place: place for place in members}
        self._held = {place: Counter({member.name.type: 1}) for place, member in members.items()}
        self._members = {place: [place] for place in members}
        self._foes: dict[int, set[int]] = {}

    def decide(self, left: int, right: int) -> None:
        """Join two groups whatever their sizes, unless a newer decision parted them."""
        left, right = self._find(left), self._find(right)
        if left != right and not self._parted(left, right):
            self._unite(left, right)

    def part(self, leaving: Sequence[int], staying: Sequence[int]) -> None:
        """Keep identifiers apart for good, except those that a newer decision has joined."""
        for one in leaving:
            for other in staying:
                first, second = self._find(one), self._find(other)
                if first != second:
                    self._foes.setdefault(first, set()).add(other)
                    self._foes.setdefault(second, set()).add(one)

    def join(self, left: int, right: int) -> str:
        """Join two groups by evidence; return why not, "" when they are one now."""
        left, right = self._find(left), self._find(right)
        if left == right:
            return ""
        if self._parted(left, right):
            return REFUSED_SPLIT
        held, other = self._held[left], self._held[right]
        over = [
            type_ for type_ in held if other[type_] and held[type_] + other[type_] > self._types[type_].max_per_person
        ]
        if over:
            strongest = min(over, key=lambda each: (self._types[each].rank, each))
            return REFUSED_LIMIT + strongest.upper()
        self._unite(left, right)
        return ""

    def persons(self) -> dict[int, int]:
        """Return each identifier's person: the place of the first identifier of its group."""
        found: dict[int, int] = {}
        for root, group in self._members.items():
            if self._root[root] == root:
                found |= dict.fromkeys(group, min(group))
        return found

    def _find(self, place: int) -> int:
        root = place
        while self._root[root] != root:
            root = self._root[root]
        while self._root[place] != root:
            self._root[place], place = root, self._root[place]
        return root

    def _parted(self, left: int, right: int) -> bool:
        foes = self._foes.get(left)
        return bool(foes) and any(self._find(each) == right for each in foes or ())

    def _unite(self, left: int, right: int) -> None:
        if len(self._members[left]) < len(self._members[right]):
            left, right = right, left
        self._root[right] = left
        self._held[left].update(self._held.pop(right))
        self._members[left] += self._members.pop(right)
        if right in self._foes:
            self._foes.setdefault(left, set()).update(self._foes.pop(right))
