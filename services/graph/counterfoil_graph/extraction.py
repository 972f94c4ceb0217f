"""From the records of a block to facts: mappings compiled to functions, and what they find in each record.

All of it is CPU work for a worker thread. A record is read whole or not at all: what cannot be read is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from counterfoil_graph.entities import (
    ALWAYS,
    DECISIONS,
    PERSON,
    Decision,
    DecisionKind,
    EventKind,
    IdentifierType,
    Name,
)
from counterfoil_graph.facts import (
    EdgeEnd,
    EdgeFact,
    EventFact,
    Facts,
    Line,
    NodeFact,
    Record,
    UnreadError,
    add_event,
    add_identifiers,
)
from counterfoil_graph.mapping import (
    ConversionRule,
    DatasetRules,
    EdgeRule,
    InForce,
    NodeRule,
    TouchpointRule,
)
from counterfoil_graph.values import (
    condition,
    currency,
    getter,
    moment,
    money,
    normaliser,
    optional_key,
    optional_time,
    required_time,
    short_text,
    text_of,
)

MOST_IDENTIFIERS: Final = 10
"""Identifiers of one record: each pair of them is evidence."""

LONGEST_IDENTIFIER: Final = 500
LONGEST_NAME: Final = 500
_MOST_ATTRIBUTE_BYTES: Final = 16_384
_MOST_EVENTS: Final = 256
_KINDS: Final = {"merge": DecisionKind.MERGE, "split": DecisionKind.SPLIT}


@dataclass(frozen=True, slots=True)
class Named:
    """Whose a record is, and when it happened."""

    names: list[Name]
    time_us: int


Reader = Callable[[Line, Facts], Named]
_NOBODY: Final = Named([], 0)


class Extractor:
    """The mappings of a workspace as functions."""

    def __init__(self, in_force: InForce, *, trusted_source: str) -> None:
        self.sha256 = in_force.sha256
        self._trusted_source = trusted_source
        self._readers = {
            dataset: [_compile(rules, in_force.identifier_types) for rules in each]
            for dataset, each in in_force.datasets.items()
        }

    def read(self, payload: bytes, *, received_us: Sequence[int], sources: Sequence[str], from_offset: int) -> Facts:
        """Return what the records of a block say, from an offset on; `payload` is its JSON lines.

        Raises ValueError when the lines cannot be read.
        """
        facts = Facts(known_us=max(received_us, default=0))
        times: dict[tuple[str, str], int] = {}
        readers = self._readers
        for line in _lines(payload):
            offset, header, dataset = line["o"], line["h"], line["d"]
            if offset < from_offset or line["r"] is None:  # null: the record was erased
                continue
            if dataset not in facts.datasets:
                facts.datasets[dataset] = offset
            found = readers.get(dataset)
            if found is None and dataset != DECISIONS:
                continue
            facts.headers[header] += 1
            one = Line(offset, dataset, line["i"], line["r"], received_us[header], times)
            try:
                if found is None:
                    facts.decisions.append(_decision(one, trusted=sources[header] == self._trusted_source))
                    continue
            except UnreadError as error:
                facts.unread[dataset, str(error)] += 1
                continue
            _read(one, found, facts)
        return facts


def _lines(payload: bytes) -> Iterable[dict[str, Any]]:
    """Parse JSON lines some hundred at a time: one call for all would keep the event loop waiting."""
    lines = payload.split(b"\n")
    for start in range(0, len(lines), 500):
        yield from orjson.loads(b"[" + b",".join([each for each in lines[start : start + 500] if each]) + b"]")


def _read(line: Line, readers: Sequence[Reader], facts: Facts) -> None:
    """Read a record by each mapping; whatever identifiers they find are one person's."""
    named: list[Named] = []
    for reader in readers:
        try:
            named.append(reader(line, facts))
        except UnreadError as error:
            facts.unread[line.dataset, str(error)] += 1
    if len(named) == 1:
        names, time_us = named[0].names, named[0].time_us
    else:
        names = list(dict.fromkeys(name for each in named for name in each.names))[:MOST_IDENTIFIERS]
        time_us = next((each.time_us for each in named if each.names), 0)
    if names:
        add_identifiers(facts, line, names, time_us)


def _compile(rules: DatasetRules, types: Mapping[str, IdentifierType]) -> Reader:
    """Return the function that reads one record under the rules of one mapping."""
    zone = rules.timezone
    applies, time_of = condition(rules.when), required_time(rules.time, zone)
    identifiers_of = _identifiers(rules, types)
    events = [_touchpoint(each, zone) for each in rules.touchpoints]
    events += [_conversion(each, zone) for each in rules.conversions]
    nodes, edges = [_node(each, zone) for each in rules.nodes], [_edge(each, zone) for each in rules.edges]

    def read(line: Line, facts: Facts) -> Named:
        record = line.record
        if not applies(record):
            return _NOBODY
        time_us = line.received_us if time_of is None else time_of(line)
        names = identifiers_of(record)
        found_events = [found for each in events if (found := each(line, time_us)) is not None]
        found_edges = [said for find_edge in edges if (said := find_edge(line, names)) is not None]
        found_nodes = [told for find_node in nodes if (told := find_node(line)) is not None]
        if not names and rules.identifiers and (found_events or not (found_nodes or found_edges)):
            raise UnreadError("IDENTIFIER_MISSING")
        if line.events + len(found_events) > _MOST_EVENTS:
            raise UnreadError("EVENTS_TOO_MANY")
        for kind, type_, key, event in found_events:
            event.place += line.events
            line.events += 1
            add_event(facts, (names[0], kind, type_, key or f"@{event.place}"), event)
        facts.nodes.update(found_nodes)
        for edge_key, edge in found_edges:
            known = facts.edges.setdefault(edge_key, edge)
            if known is not edge:
                known.records += 1
                known.valid_to_us = edge.valid_to_us
        return Named(names, time_us)

    return read


def _identifiers(rules: DatasetRules, types: Mapping[str, IdentifierType]) -> Callable[[Record], list[Name]]:
    """Return the function that finds a record's identifiers, the strongest first, each once."""
    ordered = sorted(rules.identifiers, key=lambda each: types[each.type].rank)
    found = [
        (each.type, getter(each.value.path), normaliser(types[each.type].normalise), condition(each.when))
        for each in ordered
    ]

    def read(record: Record) -> list[Name]:
        names: list[Name] = []
        for type_, get, normalise, applies in found:
            value = get(record)
            if value is None or not applies(record):
                continue
            text = normalise(text_of(value, "IDENTIFIER_INVALID"))
            if not text:
                continue
            if len(text) > LONGEST_IDENTIFIER:
                raise UnreadError("IDENTIFIER_TOO_LONG")
            if "\0" in text:
                raise UnreadError("IDENTIFIER_INVALID")
            name = Name(type_, text)
            if name not in names:
                names.append(name)
        if len(names) > MOST_IDENTIFIERS:
            raise UnreadError("IDENTIFIERS_TOO_MANY")
        return names

    return read


Event = tuple[EventKind, str, str, EventFact]


def _touchpoint(rule: TouchpointRule, timezone: str) -> Callable[[Line, int], Event | None]:
    applies, channel_of, time_of = condition(rule.when), short_text(rule.channel), required_time(rule.time, timezone)
    campaign_of, key_of = optional_key(rule.campaign), optional_key(rule.key)

    def read(line: Line, time_us: int) -> Event | None:
        record = line.record
        if not applies(record):
            return None
        campaign = campaign_of(record)
        if rule.by_campaign and not campaign:
            raise UnreadError("CAMPAIGN_MISSING")
        at = None if rule.by_campaign else time_us if time_of is None else time_of(line)
        fact = EventFact(line.offset * 256, at, channel_of(record), campaign, 0, "", line.dataset, 1)
        return EventKind.TOUCHPOINT, rule.type, key_of(record), fact

    return read


def _conversion(rule: ConversionRule, timezone: str) -> Callable[[Line, int], Event | None]:
    applies, key_of, time_of = condition(rule.when), optional_key(rule.key), required_time(rule.time, timezone)
    value_of, currency_of = money(rule.value), currency(rule.currency)

    def read(line: Line, time_us: int) -> Event | None:
        record = line.record
        if not applies(record):
            return None
        key = key_of(record)
        if not key:
            raise UnreadError("KEY_MISSING")
        at = time_us if time_of is None else time_of(line)
        fact = EventFact(line.offset * 256, at, "", "", value_of(record), currency_of(record), line.dataset, 1)
        return EventKind.CONVERSION, rule.type, key, fact

    return read


def _node(rule: NodeRule, timezone: str) -> Callable[[Line], tuple[tuple[str, str, int], NodeFact] | None]:
    applies, key_of = condition(rule.when), optional_key(rule.key)
    name_of = short_text(rule.name, most=LONGEST_NAME) if rule.name else None
    from_of, to_of = optional_time(rule.valid_from, timezone), optional_time(rule.valid_to, timezone)
    attributes = [(".".join(path), getter(path)) for path in rule.attributes]

    def read(line: Line) -> tuple[tuple[str, str, int], NodeFact] | None:
        record = line.record
        if not applies(record) or not (key := key_of(record)):
            return None
        since, until = from_of(line), to_of(line)
        found = {name: value for name, get in attributes if (value := get(record)) is not None}
        text = orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()
        if len(text) > _MOST_ATTRIBUTE_BYTES:
            raise UnreadError("ATTRIBUTES_TOO_LARGE")
        fact = NodeFact(name_of(record) if name_of else "", text, until, line.offset)
        return (rule.type, key, ALWAYS if since is None else since), fact

    return read


Edge = tuple[tuple[str, EdgeEnd, EdgeEnd, int], EdgeFact]


def _edge(rule: EdgeRule, timezone: str) -> Callable[[Line, Sequence[Name]], Edge | None]:
    applies = condition(rule.when)
    from_of, to_of = optional_time(rule.valid_from, timezone), optional_time(rule.valid_to, timezone)
    ends = [(end.type, optional_key(end.key)) for end in (rule.source, rule.target)]

    def read(line: Line, names: Sequence[Name]) -> Edge | None:
        record = line.record
        if not applies(record):
            return None
        found: list[EdgeEnd] = []
        for type_, key_of in ends:
            if type_ == PERSON:
                if not names:
                    raise UnreadError("IDENTIFIER_MISSING")
                found.append(names[0])
            elif key := key_of(record):
                found.append(f"{type_}.{key}")
            else:
                return None
        since, until = from_of(line), to_of(line)
        key_ = (rule.type, found[0], found[1], ALWAYS if since is None else since)
        return key_, EdgeFact(until, 1, line.offset)

    return read


def _decision(line: Line, *, trusted: bool) -> Decision:
    """Read a merge or split; only what the graph itself has written counts."""
    record = line.record
    if not trusted:
        raise UnreadError("DECISION_UNTRUSTED")
    kind = _KINDS.get(str(record.get("kind")))
    try:
        if kind is None:
            raise ValueError
        return Decision(
            decision_id=str(record["message_id"]),
            kind=kind,
            identifiers=tuple(Name(each["type"], each["value"]) for each in record["identifiers"]),
            staying=tuple(Name(each["type"], each["value"]) for each in record.get("staying") or ()),
            reverses=str(record.get("reverses") or ""),
            decided_by=str(record["decided_by"]),
            decided_us=moment(record["decided_at"], "UTC"),
            reason=str(record["reason"]),
            request_sha256=str(record["request_sha256"]),
            offset=line.offset,
        )
    except (KeyError, TypeError, ValueError):
        raise UnreadError("DECISION_INVALID") from None
