"""Mapping files: what they can say, and every fault of one that says something else.

A mapping names, per dataset, which fields are identifiers, nodes, edges, touchpoints and conversions. A value is a
field's path (`context.campaign.name`), `{field: path}`, or `{const: text}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

from counterfoil_chassis.canonical import canonical_json, sha256_hex

from counterfoil_graph.entities import DECISIONS, PERSON, IdentifierType
from counterfoil_graph.yaml_text import UnreadableTextError, read_yaml

RULES_VERSION: Final = 1
"""Raised when the same records and mappings would give another graph; it is part of a state's mapping hash."""

SHIPPED: Final = "events"
"""The mapping every workspace starts with."""

MOST_ENTRIES: Final = 50
"""Entries of one kind of one dataset, and identifiers of one record."""

NORMALISATIONS: Final = ("trim", "email", "phone", "none")

BUILT_IN: Final[Mapping[str, IdentifierType]] = {
    each.name: each
    for each in (
        IdentifierType("user_id", 10, 1),
        IdentifierType("household_id", 10, 1),
        IdentifierType("email", 20, 5, "email", shared_above=10),
        IdentifierType("phone", 30, 5, "phone", shared_above=10),
        IdentifierType("anonymous_id", 40, 100, shared_above=20),
    )
}
"""The identifier types that need no declaration; a mapping may declare them otherwise."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAPPING_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_PATH: Final = re.compile(r"[^.\s]{1,200}(\.[^.\s]{1,200}){0,9}")


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of a mapping: a stable reason, where, and what to do."""

    reason: str
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Value:
    """A field of the record by its path, or, without one, a constant."""

    path: tuple[str, ...] = ()
    const: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """A field's value is one of `values`; or, when that is None, the field is there (or not: `exists` False)."""

    path: tuple[str, ...]
    values: frozenset[str | int | bool] | None = None
    exists: bool = True


@dataclass(frozen=True, slots=True)
class IdentifierRule:
    """A field that names the person."""

    type: str
    value: Value
    when: Condition | None


@dataclass(frozen=True, slots=True)
class NodeRule:
    """A thing the record describes."""

    type: str
    key: Value
    name: Value | None
    valid_from: Value | None
    valid_to: Value | None
    attributes: tuple[tuple[str, ...], ...]
    when: Condition | None


@dataclass(frozen=True, slots=True)
class End:
    """One end of an edge; type `person` = the record's person, and no key."""

    type: str
    key: Value | None


@dataclass(frozen=True, slots=True)
class EdgeRule:
    """A connection the record speaks of."""

    type: str
    source: End
    target: End
    valid_from: Value | None
    valid_to: Value | None
    when: Condition | None


@dataclass(frozen=True, slots=True)
class TouchpointRule:
    """A person met a channel; `time` None = the dataset's, and with `by_campaign` the beginning of the campaign."""

    type: str
    channel: Value
    campaign: Value | None
    key: Value | None
    time: Value | None
    by_campaign: bool
    when: Condition | None


@dataclass(frozen=True, slots=True)
class ConversionRule:
    """A person did what campaigns are for; records with the same key add up."""

    type: str
    key: Value
    value: Value | None
    currency: Value | None
    time: Value | None
    when: Condition | None


@dataclass(frozen=True, slots=True)
class DatasetRules:
    """What is read from the records of one dataset; without `time` they happened when they were received.

    Times without a zone are in `timezone`, an IANA name.
    """

    time: Value | None
    timezone: str
    when: Condition | None
    identifiers: tuple[IdentifierRule, ...]
    nodes: tuple[NodeRule, ...]
    edges: tuple[EdgeRule, ...]
    touchpoints: tuple[TouchpointRule, ...]
    conversions: tuple[ConversionRule, ...]


@dataclass(frozen=True, slots=True)
class GraphMapping:
    """A mapping as it was read."""

    mapping_id: str
    identifier_types: Mapping[str, IdentifierType]
    datasets: Mapping[str, DatasetRules]


@dataclass(frozen=True, slots=True)
class InForce:
    """All mappings of a workspace together: what is read, under which hash."""

    sha256: str
    identifier_types: Mapping[str, IdentifierType]
    datasets: Mapping[str, tuple[DatasetRules, ...]]


def read_mapping(document: str) -> tuple[GraphMapping | None, tuple[Finding, ...]]:
    """Return the mapping a document holds, or None with every fault."""
    try:
        value = read_yaml(document)
    except UnreadableTextError as fault:
        return None, (Finding(fault.reason, fault.path, fault.detail),)
    reader = _Reader()
    mapping = reader.mapping(value)
    return (None if reader.findings else mapping), tuple(reader.findings)


def shipped_document() -> str:
    """Return the mapping every workspace starts with."""
    return (files("counterfoil_graph") / "shipped" / "events.yaml").read_text("utf-8")


def combine(mappings: Sequence[tuple[GraphMapping, str]]) -> InForce:
    """Return mappings, each with its document's hash, as they work together; the order does not matter."""
    ordered = sorted(mappings, key=lambda each: each[0].mapping_id)
    types = dict(BUILT_IN)
    datasets: dict[str, tuple[DatasetRules, ...]] = {}
    for mapping, _ in ordered:
        types |= mapping.identifier_types
        for dataset, rules in mapping.datasets.items():
            datasets[dataset] = (*datasets.get(dataset, ()), rules)
            for identifier in rules.identifiers:
                types.setdefault(identifier.type, IdentifierType(identifier.type, 50, 1))
    document = {"rules": RULES_VERSION, "mappings": {mapping.mapping_id: sha256 for mapping, sha256 in ordered}}
    return InForce(sha256_hex(canonical_json(document)), types, datasets)


def conflicts(mapping: GraphMapping, others: Iterable[GraphMapping]) -> list[Finding]:
    """Return a fault for each identifier type that another mapping in force declares otherwise."""
    found = []
    for other in others:
        for name, declared in mapping.identifier_types.items():
            if other.mapping_id != mapping.mapping_id and other.identifier_types.get(name, declared) != declared:
                detail = f"The mapping {other.mapping_id} declares this type otherwise. Declare it in one place."
                found.append(Finding("MAPPING_TYPE_CONFLICT", f"$.identifier_types.{name}", detail))
    return found


class _Reader:
    """Reads one document and notes every fault."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def mapping(self, value: Any) -> GraphMapping:
        found = self._object(value, "$", required=("mapping", "datasets"), optional=("identifier_types",))
        mapping_id = self._name(found.get("mapping"), "$.mapping", _MAPPING_ID)
        types = self._object(found.get("identifier_types", {}), "$.identifier_types", free=True)
        datasets = self._object(found.get("datasets", {}), "$.datasets", free=True)
        for dataset in datasets:
            if dataset == DECISIONS:
                self._add("MAPPING_RESERVED", f"$.datasets.{dataset}", "The graph reads this dataset by itself.")
            self._name(dataset, f"$.datasets.{dataset}", _NAME)
        return GraphMapping(
            mapping_id=mapping_id,
            identifier_types={
                name: self._type(name, each, f"$.identifier_types.{name}") for name, each in types.items()
            },
            datasets={name: self._dataset(each, f"$.datasets.{name}") for name, each in datasets.items()},
        )

    def _type(self, name: str, value: Any, path: str) -> IdentifierType:
        self._name(name, path, _NAME)
        known = BUILT_IN.get(name, IdentifierType(name, 50, 1))
        found = self._object(value, path, optional=("rank", "max_per_person", "normalise", "shared_above"))
        normalise = found.get("normalise", known.normalise)
        if normalise not in NORMALISATIONS:
            self._add("MAPPING_VALUE", f"{path}.normalise", f"Normalise by one of {', '.join(NORMALISATIONS)}.")
        return replace(
            known,
            rank=self._number(found.get("rank", known.rank), f"{path}.rank", least=1, most=1000),
            max_per_person=self._number(
                found.get("max_per_person", known.max_per_person), f"{path}.max_per_person", least=1, most=1000
            ),
            normalise=str(normalise),
            shared_above=self._number(
                found.get("shared_above", known.shared_above), f"{path}.shared_above", least=0, most=10_000
            ),
        )

    def _dataset(self, value: Any, path: str) -> DatasetRules:
        lists = ("identifiers", "nodes", "edges", "touchpoints", "conversions")
        found = self._object(value, path, optional=("time", "timezone", "when", *lists))
        rules = DatasetRules(
            time=self._optional(found, "time", path),
            timezone=self._timezone(found.get("timezone", "UTC"), f"{path}.timezone"),
            when=self._when(found, path),
            identifiers=self._list(found, "identifiers", path, self._identifier),
            nodes=self._list(found, "nodes", path, self._node),
            edges=self._list(found, "edges", path, self._edge),
            touchpoints=self._list(found, "touchpoints", path, self._touchpoint),
            conversions=self._list(found, "conversions", path, self._conversion),
        )
        of_person = (
            rules.touchpoints
            or rules.conversions
            or [each for each in rules.edges if PERSON in (each.source.type, each.target.type)]
        )
        if of_person and not rules.identifiers:
            detail = "Touchpoints, conversions and edges of a person need an identifier that says whose they are."
            self._add("MAPPING_IDENTIFIER_MISSING", path, detail)
        if not any((rules.identifiers, rules.nodes, rules.edges)):
            self._add("MAPPING_EMPTY", path, "Nothing is read from this dataset. Leave it out.")
        return rules

    def _timezone(self, value: Any, path: str) -> str:
        try:
            return ZoneInfo(value).key
        except (TypeError, ValueError, OSError, KeyError):  # ZoneInfo's, for what is no name or no zone
            self._add("MAPPING_TIMEZONE", path, "Name a timezone of the IANA database, e.g. Europe/Berlin.")
            return "UTC"

    def _identifier(self, value: Any, path: str) -> IdentifierRule:
        found = self._object(value, path, required=("type", "field"), optional=("when",))
        kind = self._name(found.get("type"), f"{path}.type", _NAME)
        return IdentifierRule(kind, Value(self._path(found.get("field"), f"{path}.field")), self._when(found, path))

    def _node(self, value: Any, path: str) -> NodeRule:
        optional = ("name", "valid_from", "valid_to", "attributes", "when")
        found = self._object(value, path, required=("type", "key"), optional=optional)
        attributes = found.get("attributes", [])
        if not isinstance(attributes, list) or len(attributes) > MOST_ENTRIES:
            self._add("MAPPING_VALUE", f"{path}.attributes", f"Name at most {MOST_ENTRIES} fields in a list.")
            attributes = []
        return NodeRule(
            type=self._node_type(found.get("type"), f"{path}.type"),
            key=self._value(found.get("key"), f"{path}.key"),
            name=self._optional(found, "name", path),
            valid_from=self._optional(found, "valid_from", path),
            valid_to=self._optional(found, "valid_to", path),
            attributes=tuple(self._path(each, f"{path}.attributes[{n}]") for n, each in enumerate(attributes)),
            when=self._when(found, path),
        )

    def _edge(self, value: Any, path: str) -> EdgeRule:
        found = self._object(value, path, required=("type", "from", "to"), optional=("valid_from", "valid_to", "when"))
        source, target = self._end(found.get("from"), f"{path}.from"), self._end(found.get("to"), f"{path}.to")
        if source.type == target.type == PERSON:
            self._add("MAPPING_VALUE", path, "All identifiers of a record are one person: it cannot be at both ends.")
        return EdgeRule(
            type=self._name(found.get("type"), f"{path}.type", _NAME),
            source=source,
            target=target,
            valid_from=self._optional(found, "valid_from", path),
            valid_to=self._optional(found, "valid_to", path),
            when=self._when(found, path),
        )

    def _end(self, value: Any, path: str) -> End:
        if value == PERSON:
            return End(PERSON, None)
        found = self._object(value, path, required=("type", "key"))
        return End(self._node_type(found.get("type"), f"{path}.type"), self._value(found.get("key"), f"{path}.key"))

    def _touchpoint(self, value: Any, path: str) -> TouchpointRule:
        optional = ("campaign", "key", "time", "when")
        found = self._object(value, path, required=("type", "channel"), optional=optional)
        time = found.get("time")
        by_campaign = isinstance(time, dict) and "campaign" in time
        if by_campaign and time != {"campaign": "start"}:
            self._add("MAPPING_VALUE", f"{path}.time", "Of a campaign, only {campaign: start} gives a time.")
        if by_campaign and "campaign" not in found:
            self._add("MAPPING_KEY_MISSING", f"{path}.campaign", "Say which campaign gives the time.")
        return TouchpointRule(
            type=self._name(found.get("type"), f"{path}.type", _NAME),
            channel=self._value(found.get("channel"), f"{path}.channel"),
            campaign=self._optional(found, "campaign", path),
            key=self._optional(found, "key", path),
            time=None if by_campaign else self._optional(found, "time", path),
            by_campaign=by_campaign,
            when=self._when(found, path),
        )

    def _conversion(self, value: Any, path: str) -> ConversionRule:
        optional = ("value", "currency", "time", "when")
        found = self._object(value, path, required=("type", "key"), optional=optional)
        currency = found.get("currency")
        if isinstance(currency, str) and _CURRENCY.fullmatch(currency):
            found = {**found, "currency": {"const": currency}}
        return ConversionRule(
            type=self._name(found.get("type"), f"{path}.type", _NAME),
            key=self._value(found.get("key"), f"{path}.key"),
            value=self._optional(found, "value", path),
            currency=self._optional(found, "currency", path),
            time=self._optional(found, "time", path),
            when=self._when(found, path),
        )

    def _when(self, found: Mapping[str, Any], path: str) -> Condition | None:
        if "when" not in found:
            return None
        path = f"{path}.when"
        when = self._object(found["when"], path, required=("field",), optional=("equals", "in", "exists"))
        tests = [name for name in ("equals", "in", "exists") if name in when]
        if len(tests) != 1:
            self._add("MAPPING_VALUE", path, "Test the field by one of equals, in and exists.")
            return None
        field = self._path(when.get("field"), f"{path}.field")
        if tests == ["exists"]:
            if not isinstance(when["exists"], bool):
                self._add("MAPPING_VALUE", f"{path}.exists", "Say true or false.")
            return Condition(field, None, exists=bool(when["exists"]))
        values = [when["equals"]] if tests == ["equals"] else when["in"]
        if not isinstance(values, list) or not 0 < len(values) <= 1000:
            self._add("MAPPING_VALUE", f"{path}.in", "List 1 to 1,000 values.")
            return None
        if not all(isinstance(each, str | int) for each in values):
            self._add(
                "MAPPING_VALUE", f"{path}.{tests[0]}", "A field can be compared with text, integers and booleans."
            )
            return None
        return Condition(field, frozenset(values))

    def _optional(self, found: Mapping[str, Any], name: str, path: str) -> Value | None:
        return self._value(found[name], f"{path}.{name}") if name in found else None

    def _value(self, value: Any, path: str) -> Value:
        if isinstance(value, str):
            return Value(self._path(value, path))
        found = self._object(value, path, optional=("field", "const"))
        if len(found) != 1:
            self._add("MAPPING_VALUE", path, "A value is a field's path, {field: path} or {const: text}.")
        elif "const" in found:
            if not isinstance(found["const"], str | int) or len(str(found["const"])) > 200:
                self._add("MAPPING_VALUE", f"{path}.const", "A constant is text of at most 200 characters.")
            return Value(const=str(found["const"]))
        return Value(self._path(found.get("field", "_"), f"{path}.field"))

    def _path(self, value: Any, path: str) -> tuple[str, ...]:
        if not isinstance(value, str) or not _PATH.fullmatch(value):
            self._add("MAPPING_PATH", path, "Name a field by its path, its steps joined by dots.")
            return ("_",)
        return tuple(value.split("."))

    def _node_type(self, value: Any, path: str) -> str:
        if value == PERSON:
            self._add("MAPPING_RESERVED", path, "Persons come from identifiers, not from a node's key.")
        return self._name(value, path, _NAME)

    def _name(self, value: Any, path: str, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._add("MAPPING_NAME", path, f"A name has the form {pattern.pattern}.")
            return "_"
        return value

    def _number(self, value: Any, path: str, *, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._add("MAPPING_VALUE", path, f"Give a whole number from {least} to {most}.")
            return least
        return value

    def _list(self, found: Mapping[str, Any], name: str, path: str, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
        value, path = found.get(name, []), f"{path}.{name}"
        if not isinstance(value, list) or len(value) > MOST_ENTRIES:
            self._add("MAPPING_VALUE", path, f"Give a list of at most {MOST_ENTRIES} entries.")
            return ()
        return tuple(read(each, f"{path}[{index}]") for index, each in enumerate(value))

    def _object(
        self, value: Any, path: str, *, required: Sequence[str] = (), optional: Sequence[str] = (), free: bool = False
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._add("MAPPING_VALUE", path, "An object is expected here.")
            return {}
        if free and len(value) > 500:
            self._add("MAPPING_TOO_LARGE", path, "At most 500 can stand here.")
            return {}
        for key in value.keys() - {*required, *optional} if not free else ():
            detail = f"This key is not known here. Known are {', '.join((*required, *optional))}."
            self._add("MAPPING_UNKNOWN_KEY", f"{path}.{key}", detail)
        for key in required:
            if key not in value:
                self._add("MAPPING_KEY_MISSING", f"{path}.{key}", "This key is needed.")
        return {key: item for key, item in value.items() if free or key in (*required, *optional)}

    def _add(self, reason: str, path: str, detail: str) -> None:
        finding = Finding(reason, path, detail)
        if finding.path not in {each.path for each in self.findings if each.reason == "MAPPING_KEY_MISSING"}:
            self.findings.append(finding)


def mapping_datasets(mapping: GraphMapping) -> tuple[str, ...]:
    """Return the datasets a mapping reads, by name."""
    return tuple(sorted(mapping.datasets))
