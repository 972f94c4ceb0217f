"""The rules of identity: a function of the evidence as a set, whatever the order of arrival."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
from counterfoil_graph.absorbing import Absorber, component_of
from counterfoil_graph.entities import Decision, DecisionKind, IdentifierSeen, IdentifierType, Link, Member, Name
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.identity import Partition, counts_as_partner, in_force, is_shared, partition
from counterfoil_graph.mapping import combine, read_mapping
from counterfoil_graph.store import Partners
from hypothesis import given, settings

TYPES = {
    each.name: each
    for each in (
        IdentifierType("user", 10, 1),
        IdentifierType("mail", 20, 2, "email", shared_above=2),
        IdentifierType("device", 40, 3, shared_above=3),
    )
}
MAPPING = """
mapping: test
identifier_types:
  user: {rank: 10, max_per_person: 1}
  mail: {rank: 20, max_per_person: 2, normalise: email, shared_above: 2}
  device: {rank: 40, max_per_person: 3, shared_above: 3}
datasets:
  seen:
    time: at
    identifiers: [{type: user, field: user}, {type: mail, field: mail}, {type: device, field: device}]
"""


@dataclass
class Memory:
    """A graph's identity in memory, as `store.GraphWriter` says; the SQL engine is held to the same by other tests."""

    known: dict[Name, int] = field(default_factory=dict)
    counted: dict[int, Partners] = field(default_factory=dict)
    evidence: dict[tuple[int, int], Link] = field(default_factory=dict)
    decided: dict[str, tuple[Decision, tuple[int, ...]]] = field(default_factory=dict)
    assigned: dict[int, int] = field(default_factory=dict)
    touched: int = 0

    async def places(self, names: Collection[Name]) -> dict[Name, int]:
        return {name: self.known[name] for name in names if name in self.known}

    async def add_identifiers(self, found: Sequence[IdentifierSeen]) -> None:
        for each in found:
            assert each.place not in self.known.values()
            self.known[each.name] = each.place
            self.counted[each.place] = Partners(each.place, 0, shared=False)

    async def see_identifiers(self, found: Sequence[IdentifierSeen]) -> None:
        pass

    async def members(self, places: Collection[int]) -> dict[int, Member]:
        self.touched += len(places)
        names = {place: name for name, place in self.known.items()}
        return {place: Member(place, names[place], self.counted[place].shared) for place in places}

    async def partners(self, places: Collection[int]) -> dict[int, Partners]:
        return {place: self.counted[place] for place in places}

    async def set_partners(self, found: Sequence[Partners]) -> None:
        self.counted |= {each.place: each for each in found}

    async def links(self, pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], Link]:
        return {pair: self.evidence[pair] for pair in pairs if pair in self.evidence}

    async def put_links(self, links: Sequence[Link]) -> None:
        for each in links:
            older = self.evidence.get((each.low, each.high))
            self.evidence[each.low, each.high] = each._replace(records=each.records + (older.records if older else 0))

    async def links_of(self, places: Collection[int]) -> list[Link]:
        return [link for link in self.evidence.values() if link.low in places or link.high in places]

    async def decisions_of(self, places: Collection[int]) -> list[tuple[Decision, tuple[int, ...]]]:
        return [each for each in self.decided.values() if set(each[1]) & set(places)]

    async def add_decision(self, decision: Decision, places: Sequence[int]) -> None:
        self.decided.setdefault(decision.decision_id, (decision, tuple(places)))

    async def persons(self, places: Collection[int]) -> dict[int, int]:
        return {place: self.assigned[place] for place in places}

    async def assign(self, persons: Mapping[int, int]) -> None:
        assert persons.keys() <= self.assigned.keys()
        self.assigned |= persons

    async def add_persons(self, persons: Mapping[int, int]) -> None:
        assert not persons.keys() & self.assigned.keys()
        self.assigned |= persons

    async def put_nodes(self, nodes: Any) -> None: ...
    async def put_edges(self, edges: Any) -> None: ...
    async def put_events(self, events: Any) -> None: ...
    async def add_unread(self, unread: Any) -> None: ...
    async def add_datasets(self, first_offsets: Any) -> None: ...
    async def end_block(self, known_us: int) -> None: ...

    async def known_us(self) -> int:
        return 0

    async def has_decisions(self) -> bool:
        return bool(self.decided)

    def groups(self) -> set[frozenset[Name]]:
        """Return who is one person, by name."""
        found: dict[int, set[Name]] = defaultdict(set)
        for name, place in self.known.items():
            found[self.assigned[place]].add(name)
        return {frozenset(each) for each in found.values()}


async def inline(*args: Any) -> Partition:
    return partition(*args)


def record(number: int, *, at: int, **identifiers: str) -> dict[str, Any]:
    return {
        "d": "seen",
        "i": f"r{number}",
        "r": {"at": f"2026-01-01T00:00:{at:02}Z", **{key: value for key, value in identifiers.items() if value}},
    }


def decision(decision_id: str, kind: str, identifiers: Iterable[Name], **fields: Any) -> dict[str, Any]:
    return {
        "d": "identity_decisions",
        "i": decision_id,
        "r": {
            "message_id": decision_id,
            "kind": kind,
            "identifiers": [each._asdict() for each in identifiers],
            "decided_by": "ada",
            "decided_at": "2026-02-01T00:00:00Z",
            "reason": "because",
            "request_sha256": "0",
            **fields,
        },
    }


def extractor() -> Extractor:
    mapping, findings = read_mapping(MAPPING)
    assert mapping is not None, findings
    return Extractor(combine([(mapping, "0")]), trusted_source="graph")


async def graph_of(lines: Sequence[dict[str, Any]], *, block: int) -> Memory:
    """Take in a log in blocks of some size."""
    import orjson

    mapping, _ = read_mapping(MAPPING)
    memory, absorber, read = Memory(), Absorber(combine([(mapping, "0")]).identifier_types, inline), extractor()
    for start in range(0, len(lines), block):
        some = [{"o": start + n, "h": 0, **line} for n, line in enumerate(lines[start : start + block])]
        payload = b"\n".join(orjson.dumps(line) for line in some)
        facts = read.read(payload, received_us=[1], sources=["graph"], from_offset=0)
        assert not facts.unread
        await absorber.absorb(memory, facts)
    return memory


def batch(memory: Memory) -> set[frozenset[Name]]:
    """Return who is one person, computed at once from everything that is known, with its own count of partners."""
    names = {place: name for name, place in memory.known.items()}
    partners: dict[int, set[int]] = defaultdict(set)
    for low, high in memory.evidence:
        for place, other in ((low, high), (high, low)):
            if counts_as_partner(names[place], names[other], TYPES):
                partners[place].add(other)
    members = {
        place: Member(place, name, is_shared(name, len(partners[place]), TYPES)) for place, name in names.items()
    }
    found = partition(members, memory.evidence.values(), [each for each, _ in memory.decided.values()], TYPES)
    groups: dict[int, set[Name]] = defaultdict(set)
    for place, person in found.persons.items():
        groups[person].add(names[place])
    return {frozenset(each) for each in groups.values()}


def some(prefix: str, most: int) -> st.SearchStrategy[str]:
    return st.one_of(st.just(""), st.integers(1, most).map(lambda number: f"{prefix}{number}"))


SEEN = st.lists(
    st.tuples(st.integers(0, 59), some("u", 4), some("m", 4), some("d", 6)).filter(lambda each: any(each[1:])),
    min_size=1,
    max_size=25,
)


def lines_of(seen: Iterable[tuple[int, str, str, str]]) -> list[dict[str, Any]]:
    return [
        record(number, at=at, user=user, mail=mail, device=device)
        for number, (at, user, mail, device) in enumerate(seen)
    ]


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A log of records, with merges and splits of what they name, some of which take a merge back."""
    lines = lines_of(draw(SEEN))
    names = sorted({Name(key, value) for each in lines for key, value in each["r"].items() if key != "at"})
    for number in range(draw(st.integers(0, 4)) if len(names) > 1 else 0):
        chosen = draw(st.lists(st.sampled_from(names), min_size=2, max_size=4, unique=True))
        at = f"2026-02-01T00:00:{draw(st.integers(0, 59)):02}Z"
        if draw(st.booleans()):
            lines.append(decision(f"merge{number}", "merge", chosen, decided_at=at))
            if draw(st.booleans()):
                lines.append(decision(f"back{number}", "split", chosen, decided_at=at, reverses=f"merge{number}"))
        else:
            leaving, staying = chosen[:1], [each._asdict() for each in chosen[1:]]
            lines.append(decision(f"split{number}", "split", leaving, decided_at=at, staying=staying))
    return lines


@settings(max_examples=150, deadline=None)
@given(lines=logs(), seed=st.integers(0, 1000), block=st.integers(1, 9))
async def test_the_partition_depends_on_what_is_known_not_on_its_order(
    lines: list[dict[str, Any]], seed: int, block: int
) -> None:
    memory = await graph_of(lines, block=block)
    assert memory.groups() == batch(memory)
    shuffled = random.Random(seed).sample(lines, len(lines))
    again = await graph_of(shuffled, block=1 + seed % 5)
    assert again.groups() == memory.groups() == batch(again)
    # a person's number is the place of its first identifier, so no two have the same one
    for graph in (memory, again):
        assert all(graph.assigned[person] == person <= place for place, person in graph.assigned.items())


@settings(max_examples=100, deadline=None)
@given(lines=logs(), block=st.integers(1, 9), data=st.data())
async def test_a_merge_taken_back_leaves_no_trace(lines: list[dict[str, Any]], block: int, data: st.DataObject) -> None:
    before = await graph_of(lines, block=block)
    names = sorted(before.known)
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=min(2, len(names)), max_size=3, unique=True))
    at = f"2026-02-01T00:00:{data.draw(st.integers(0, 59)):02}Z"
    merge = decision("again", "merge", chosen, decided_at=at)
    merged = await graph_of([*lines, merge], block=block)
    assert merged.known == before.known
    back = decision("taken-back", "split", chosen, reverses="again", decided_at="2026-02-01T00:00:00Z")
    after = await graph_of([*lines, merge, back], block=block)
    assert after.assigned == before.assigned


async def test_limits_refuse_the_weaker_evidence_also_when_it_came_first() -> None:
    # the device saw u2 first, but u1 earlier in time: it is u1's
    lines = [record(1, at=9, user="u2", device="d1"), record(2, at=1, user="u1", device="d1")]
    graph = await graph_of(lines, block=1)
    assert graph.groups() == {
        frozenset({Name("user", "u1"), Name("device", "d1")}),
        frozenset({Name("user", "u2")}),
    }


async def test_a_shared_identifier_joins_nobody_and_lets_go_of_those_it_joined() -> None:
    lines = [record(n, at=n, user=f"u{n}", mail="desk@example.com") for n in range(1, 3)]
    lines += [record(9, at=9, mail="desk@example.com", device="d1")]
    graph = await graph_of(lines, block=1)
    assert frozenset({Name("user", "u1"), Name("mail", "desk@example.com"), Name("device", "d1")}) in graph.groups()
    shared = await graph_of([*lines, record(3, at=3, user="u3", mail="desk@example.com")], block=1)
    assert {len(each) for each in shared.groups()} == {1}


async def test_work_is_that_of_the_component_not_of_the_graph() -> None:
    lines = [record(n, at=n % 60, user=f"u{n}", device=f"d{n}") for n in range(500)]
    graph = await graph_of(lines, block=500)
    before = graph.touched
    mapping, _ = read_mapping(MAPPING)
    component = await component_of(graph, [graph.known[Name("user", "u7")]])
    assert (len(component.members), graph.touched - before) == (2, 2)
    assert mapping is not None


def test_a_newer_decision_outranks_an_older_one() -> None:
    names = [Name("user", "u1"), Name("user", "u2")]

    def of(decision_id: str, kind: DecisionKind, us: int, reverses: str = "") -> Decision:
        staying = (names[1],) if kind is DecisionKind.SPLIT else ()
        identifiers = tuple(names) if kind is DecisionKind.MERGE else (names[0],)
        return Decision(decision_id, kind, identifiers, staying, reverses, "ada", us, "because", "0")

    members = {place: Member(place, name, shared=False) for place, name in enumerate(names)}
    merge, split = of("m", DecisionKind.MERGE, 1), of("s", DecisionKind.SPLIT, 2)
    assert partition(members, [], [merge, split], TYPES).persons == {0: 0, 1: 1}
    assert partition(members, [], [replace(merge, decided_us=3), split], TYPES).persons == {0: 0, 1: 0}
    back = of("b", DecisionKind.SPLIT, 9, reverses="m")
    assert [each.decision_id for each in in_force([merge, split, back])] == ["s"]
