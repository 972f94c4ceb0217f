"""From the records of a block to facts: mappings compiled to functions, and what they find in each record.

All of it is CPU work for a worker thread. A record is read whole or not at all: what cannot be read is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
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
from counterfoil_graph.mapping import (
    Condition,
    ConversionRule,
    DatasetRules,
    EdgeRule,
    InForce,
    NodeRule,
    TouchpointRule,
    Value,
)

MOST_IDENTIFIERS: Final = 10
"""Identifiers of one record: each pair of them is evidence."""

LONGEST_IDENTIFIER: Final = 500
LONGEST_KEY: Final = 500
_LONGEST_NAME: Final = 500
_LONGEST_CHANNEL: Final = 200
_MOST_ATTRIBUTE_BYTES: Final = 16_384
_MOST_MICROS: Final = 10**15  # a thousand million units: sums of nine thousand such records still fit 64 bits
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US: Final = -62_135_596_800_000_000  # the year 1
_LAST_US: Final = 253_402_300_799_999_999  # the year 9999
_MOST_EVENTS: Final = 256
_KINDS: Final = {"merge": DecisionKind.MERGE, "split": DecisionKind.SPLIT}

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
    times: dict[str, int]
    events: int = 0


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
        times: dict[str, int] = {}
        readers = self._readers
        for line in _lines(payload):
            offset, header, dataset = line["o"], line["h"], line["d"]
            if offset < from_offset:
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
        _add_identifiers(facts, line, names, time_us)


def _compile(rules: DatasetRules, types: Mapping[str, IdentifierType]) -> Reader:
    """Return the function that reads one record under the rules of one mapping."""
    applies, time_of = _condition(rules.when), _time(rules.time)
    identifiers_of = _identifiers(rules, types)
    events = [_touchpoint(each) for each in rules.touchpoints] + [_conversion(each) for each in rules.conversions]
    nodes, edges = [_node(each) for each in rules.nodes], [_edge(each) for each in rules.edges]

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
            _add_event(facts, (names[0], kind, type_, key or f"@{event.place}"), event)
        facts.nodes.update(found_nodes)
        for edge_key, edge in found_edges:
            known = facts.edges.setdefault(edge_key, edge)
            if known is not edge:
                known.records += 1
                known.valid_to_us = edge.valid_to_us
        return Named(names, time_us)

    return read


def _add_identifiers(facts: Facts, line: Line, names: Sequence[Name], time_us: int) -> None:
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


def _add_event(facts: Facts, key: EventKey, event: EventFact) -> None:
    known = facts.events.get(key)
    if known is None:
        facts.events[key] = event
        return
    known.records += event.records
    known.value_micros += event.value_micros
    if event.time_us is not None and (known.time_us is None or event.time_us < known.time_us):
        known.time_us = event.time_us


def _identifiers(rules: DatasetRules, types: Mapping[str, IdentifierType]) -> Callable[[Record], list[Name]]:
    """Return the function that finds a record's identifiers, the strongest first, each once."""
    ordered = sorted(rules.identifiers, key=lambda each: types[each.type].rank)
    found = [
        (each.type, _getter(each.value.path), _normaliser(types[each.type].normalise), _condition(each.when))
        for each in ordered
    ]

    def read(record: Record) -> list[Name]:
        names: list[Name] = []
        for type_, get, normalise, applies in found:
            value = get(record)
            if value is None or not applies(record):
                continue
            text = normalise(_text(value, "IDENTIFIER_INVALID"))
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


def _touchpoint(rule: TouchpointRule) -> Callable[[Line, int], Event | None]:
    applies, channel_of, time_of = _condition(rule.when), _short_text(rule.channel), _time(rule.time)
    campaign_of, key_of = _optional_key(rule.campaign), _optional_key(rule.key)

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


def _conversion(rule: ConversionRule) -> Callable[[Line, int], Event | None]:
    applies, key_of, time_of = _condition(rule.when), _optional_key(rule.key), _time(rule.time)
    value_of, currency_of = _money(rule.value), _currency(rule.currency)

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


def _node(rule: NodeRule) -> Callable[[Line], tuple[tuple[str, str, int], NodeFact] | None]:
    applies, key_of = _condition(rule.when), _optional_key(rule.key)
    name_of = _short_text(rule.name, most=_LONGEST_NAME) if rule.name else None
    from_of, to_of = _optional_time(rule.valid_from), _optional_time(rule.valid_to)
    attributes = [(".".join(path), _getter(path)) for path in rule.attributes]

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


def _edge(rule: EdgeRule) -> Callable[[Line, Sequence[Name]], Edge | None]:
    applies = _condition(rule.when)
    from_of, to_of = _optional_time(rule.valid_from), _optional_time(rule.valid_to)
    ends = [(end.type, _optional_key(end.key)) for end in (rule.source, rule.target)]

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
            decided_us=_moment(record["decided_at"]),
            reason=str(record["reason"]),
            request_sha256=str(record["request_sha256"]),
            offset=line.offset,
        )
    except (KeyError, TypeError, ValueError):
        raise UnreadError("DECISION_INVALID") from None


def _getter(path: Sequence[str]) -> Callable[[Record], Any]:
    """Return the function that follows a path; None where it leads nowhere."""
    if len(path) == 1:
        name = path[0]
        return lambda record: record.get(name)

    def get(record: Record) -> Any:
        value: Any = record
        for step in path:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        return value

    return get


def _condition(condition: Condition | None) -> Callable[[Record], bool]:
    if condition is None:
        return lambda record: True
    get, values, exists = _getter(condition.path), condition.values, condition.exists
    if values is None:
        return lambda record: (get(record) is not None) is exists

    def holds(record: Record) -> bool:
        value = get(record)
        # 1 == True, and a list has no hash
        return isinstance(value, str | int) and any(value == each and type(value) is type(each) for each in values)

    return holds


def _text(value: Any, reason: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadError(reason)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return str(value)


def _normaliser(name: str) -> Callable[[str], str]:
    return _NORMALISERS[name]


def normalise(name: str, value: str) -> str:
    """Return an identifier's value as the graph keeps it."""
    return _normaliser(name)(value)


def _as_it_is(text: str) -> str:
    return text


def _trim(text: str) -> str:
    return text.strip()


def _email(text: str) -> str:
    return text.strip().lower()


def _phone(text: str) -> str:
    digits = "".join(each for each in text if each in "0123456789")
    return f"+{digits}" if digits and text.strip().startswith("+") else digits


_NORMALISERS: Final[Mapping[str, Callable[[str], str]]] = {
    "none": _as_it_is,
    "trim": _trim,
    "email": _email,
    "phone": _phone,
}


def _optional_key(value: Value | None) -> Callable[[Record], str]:
    """Return the function that finds a key; "" = there is none."""
    if value is None:
        return lambda record: ""
    if not value.path:
        const = value.const
        return lambda record: const
    get = _getter(value.path)

    def read(record: Record) -> str:
        found = get(record)
        if found is None:
            return ""
        if type(found) is int:
            return str(found)
        text = _text(found, "KEY_INVALID").strip()
        if len(text) > LONGEST_KEY or "\0" in text:
            raise UnreadError("KEY_INVALID")
        return text

    return read


def _short_text(value: Value, *, most: int = _LONGEST_CHANNEL) -> Callable[[Record], str]:
    if not value.path:
        const = value.const
        return lambda record: const
    get = _getter(value.path)

    def read(record: Record) -> str:
        found = get(record)
        return "" if found is None else _text(found, "TEXT_INVALID").strip().replace("\0", "")[:most]

    return read


def _time(value: Value | None) -> Callable[[Line], int] | None:
    """Return the function that finds a time that has to be there; None when none is named."""
    if value is None:
        return None
    find = _optional_time(value)

    def read(line: Line) -> int:
        found = find(line)
        if found is None:
            raise UnreadError("TIME_MISSING")
        return found

    return read


def _optional_time(value: Value | None) -> Callable[[Line], int | None]:
    if value is None:
        return lambda line: None
    if not value.path:
        fixed = value.const
        return lambda line: _cached_moment(fixed, line.times)
    get = _getter(value.path)

    def read(line: Line) -> int | None:
        found = get(line.record)
        return None if found is None else _cached_moment(found, line.times)

    return read


def _cached_moment(value: Any, times: dict[str, int]) -> int:
    if not isinstance(value, str):
        raise UnreadError("TIME_INVALID")
    known = times.get(value)
    if known is None:
        try:
            known = times[value] = _moment(value)
        except (TypeError, ValueError, OverflowError):
            raise UnreadError("TIME_INVALID") from None
    return known


def _moment(value: Any) -> int:
    """Return microseconds since 1970 of RFC 3339 or the forms of ISO 8601 that the lake takes; without a zone, UTC."""
    if not isinstance(value, str) or len(value) < len("2017-01-01"):
        raise TypeError("no timestamp")
    moment = datetime.fromisoformat(value.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    micros = (moment - _EPOCH) // _MICROSECOND
    if not _FIRST_US <= micros <= _LAST_US:
        raise ValueError("beyond the years 1 to 9999 in UTC")
    return micros


def _money(value: Value | None) -> Callable[[Record], int]:
    """Return the function that finds a value in millionths; nothing there = 0."""
    if value is None:
        return lambda record: 0
    if not value.path:
        const = value.const
        return lambda record: _micros(const)
    get = _getter(value.path)

    def read(record: Record) -> int:
        found = get(record)
        return 0 if found is None else _micros(found)

    return read


def _micros(value: Any) -> int:
    if isinstance(value, bool):
        raise UnreadError("VALUE_INVALID")
    if isinstance(value, float):
        micros = round(value * 1e6) if abs(value) < _MOST_MICROS else _MOST_MICROS + 1
    elif isinstance(value, int):
        micros = value * 1_000_000
    else:
        try:
            number = Decimal(value) if isinstance(value, str) and len(value) <= 40 else Decimal("NaN")
            if not number.is_finite() or abs(number) > _MOST_MICROS:
                raise UnreadError("VALUE_INVALID")
            micros = round(number * 1_000_000)
        except InvalidOperation:
            raise UnreadError("VALUE_INVALID") from None
    if abs(micros) > _MOST_MICROS:
        raise UnreadError("VALUE_INVALID")
    return micros


def _currency(value: Value | None) -> Callable[[Record], str]:
    if value is None:
        return lambda record: ""
    if not value.path:
        const = value.const
        return lambda record: const
    get = _getter(value.path)

    def read(record: Record) -> str:
        found = get(record)
        if found is None:
            return ""
        if not isinstance(found, str) or len(found) != 3 or not found.isascii() or not found.isalpha():
            raise UnreadError("CURRENCY_INVALID")
        return found.upper()

    return read
