"""What records look like: their fields with types, gaps, formats and, where they are few and nobody's, values.

Values are told only of fields that nothing marks as personal: not their contract, their name, or what they look like;
and only where each value was seen several times.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs
import orjson

from counterfoil_ingest.recent import Recent
from counterfoil_ingest.validation import json_path

MOST_FIELDS: Final = 500
MOST_DISTINCT: Final = 1_000
MOST_VALUES: Final = 25
_LEAST_OFTEN: Final = 3  # a value that fewer records have may be somebody's
_LONGEST_VALUE: Final = 64
_MOST_ITEMS: Final = 100  # of one array
_MOST_DEPTH: Final = 12

_FORMATS: Final = ("date-time", "date", "time", "uuid", "email", "ipv4", "ipv6", "uri")
_IS_FORMAT: Final = {
    name: jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True).is_valid for name in _FORMATS
}
_PERSONAL_FORMATS: Final = {"email": "email", "ipv4": "ip address", "ipv6": "ip address"}

_PERSONAL_NAMES: Final = (
    ("email", re.compile(r"e_?mail")),
    ("phone", re.compile(r"phone|mobile|msisdn|^tel$|fax")),
    ("name", re.compile(r"^(first|last|full|middle|given|family|nick|user|display|sur)_?name$|^name$|salutation")),
    ("address", re.compile(r"address|street|zip|postal|postcode|city|house_?number")),
    ("birth date", re.compile(r"birth|^dob$|^age$")),
    ("ip address", re.compile(r"^ip$|_ip$|ip_?address")),
    ("location", re.compile(r"latitude|longitude|^lat$|^lng$|^lon$|geo")),
    (
        "identifier",
        re.compile(r"(user|anonymous|customer|person|member|device|visitor|client|account|advertising)_?id$"),
    ),
    ("identifier", re.compile(r"cookie|fingerprint|idfa|gaid|loyalty|card|iban|passport|ssn|tax_?id|national")),
    ("secret", re.compile(r"password|passwd|secret|token|api_?key|authorization")),
    ("other", re.compile(r"gender|^sex$|religio|ethnic|health|salary|income")),
)
_PERSONAL_KEY: Final = re.compile(r"@|\d{6}")
"""What no field is called: a key that is data, as where a map is keyed by addresses of people."""
_THINGS: Final = re.compile(
    r"product|item|campaign|category|page|app|library|^os$|device|screen|browser|network|plan|store"
)
"""What may have a name, too, without being a person."""
_PERSONAL_VALUE: Final = (
    ("email", re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")),
    ("phone", re.compile(r"^\+?[\d][\d ()./-]{7,18}\d$")),
)

Step = str | None
"""A property's name, or None for any item of an array, or of an object whose keys are data."""


@dataclass(frozen=True, slots=True)
class FieldProfile:
    """What one field looks like; see `contracts.v1.FieldProfile`."""

    path: str
    parents: int
    present: int
    nulls: int
    types: Sequence[tuple[str, int]]
    format: str
    values: Sequence[tuple[str, int]]
    distinct: int
    minimum: float
    maximum: float
    personal: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What a dataset's records look like, parents before their children."""

    dataset: str
    records: int
    fields: Sequence[FieldProfile]
    from_offset: int
    next_offset: int
    truncated: bool


def profile_of(dataset: str, found: Recent, *, classified: Mapping[str, str]) -> Profile:
    """Describe records; `classified` is what their contract in force says of fields, by JSON path."""
    seen = _Fields()
    for record in found.records:
        seen.add(orjson.loads(record.data))
    fields = [each for node in seen.root.children.values() for each in _told(node, classified, seen.root.holders)]
    return Profile(
        dataset=dataset,
        records=len(found.records),
        fields=fields,
        from_offset=found.from_offset,
        next_offset=found.next_offset,
        truncated=seen.truncated,
    )


@dataclass(slots=True)
class _Node:
    """What was seen of one field."""

    steps: tuple[Step, ...]
    parents: int = 0
    present: int = 0
    nulls: int = 0
    holders: int = 0  # objects that were seen here, or items: how often a child could have been there
    types: Counter[str] = field(default_factory=Counter)
    formats: list[str] = field(default_factory=lambda: list(_FORMATS))
    hashes: set[int] = field(default_factory=set)
    values: Counter[Any] | None = field(default_factory=Counter)
    minimum: float = float("inf")
    maximum: float = float("-inf")
    personal: str = ""
    children: dict[Step, _Node] = field(default_factory=dict)

    def note(self, value: Any) -> None:
        """Take one value into account, but not what is in it."""
        self.present += 1
        if value is None:
            self.nulls += 1
            return
        kind = _kind(value)
        self.types[kind] += 1
        if kind in ("string", "array"):
            self._measure(len(value))
        elif kind in ("integer", "number"):
            self._measure(value)
        if kind in ("string", "integer"):
            self._note_scalar(value)
        if kind == "string":
            self.formats = [name for name in self.formats if _IS_FORMAT[name](value)]
            if not self.personal:
                self.personal = next((name for name, pattern in _PERSONAL_VALUE if pattern.search(value)), "")

    def _measure(self, size: float) -> None:
        self.minimum, self.maximum = min(self.minimum, size), max(self.maximum, size)

    def _note_scalar(self, value: str | int) -> None:
        if len(self.hashes) < MOST_DISTINCT:
            self.hashes.add(hash((type(value), value)))
        if self.values is None:
            return
        if len(str(value)) > _LONGEST_VALUE or (value not in self.values and len(self.values) == MOST_VALUES):
            self.values = None  # too many or too long to be worth telling
        else:
            self.values[value] += 1


class _Fields:
    """The fields of all records."""

    def __init__(self) -> None:
        self.root = _Node(())
        self.truncated = False
        self._count = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record into account."""
        self._object(self.root, record)

    def _object(self, node: _Node, value: Mapping[str, Any]) -> None:
        node.holders += 1
        for name, inner in value.items():
            self._child(node, None if _PERSONAL_KEY.search(name) else name, inner)

    def _child(self, node: _Node, step: Step, value: Any) -> None:
        child = node.children.get(step)
        if child is None:
            if self._count == MOST_FIELDS or len(node.steps) == _MOST_DEPTH:
                self.truncated = True
                return
            self._count += 1
            child = node.children[step] = _Node((*node.steps, step))
        child.note(value)
        if isinstance(value, dict):
            self._object(child, value)
        elif isinstance(value, list):
            for item in value[:_MOST_ITEMS]:
                child.holders += 1
                self._child(child, None, item)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return {float: "number", str: "string", dict: "object", list: "array"}[type(value)]


def _told(node: _Node, classified: Mapping[str, str], parents: int) -> Iterable[FieldProfile]:
    """Yield a field and those below it."""
    path = _path(node.steps)
    personal = _personal(node, path, classified)
    is_text = node.types.keys() == {"string"}
    told_format = next(iter(node.formats), "") if is_text else ""
    measured = node.minimum <= node.maximum and not personal
    yield FieldProfile(
        path=path,
        parents=parents,
        present=node.present,
        nulls=node.nulls,
        types=node.types.most_common(),
        format=told_format,
        values=[] if personal else _few(node),
        distinct=len(node.hashes),
        minimum=node.minimum if measured else 0.0,
        maximum=node.maximum if measured else 0.0,
        personal=personal,
    )
    for child in node.children.values():
        yield from _told(child, classified, node.holders)


def _few(node: _Node) -> list[tuple[str, int]]:
    """Return the values where they are few, each of them of several records."""
    if not node.values or node.types.keys() - {"string", "integer"}:
        return []
    often = [(str(value), count) for value, count in node.values.most_common() if count >= _LEAST_OFTEN]
    return often if len(often) > len(node.values) // 2 else []


def _personal(node: _Node, path: str, classified: Mapping[str, str]) -> str:
    if path in classified and classified[path] != "public":
        return classified[path]
    scalar = node.types.keys() & {"string", "integer", "number"}
    if not scalar:
        return ""
    if node.personal:
        return node.personal
    names = [_snake(step) for step in node.steps if step is not None]
    is_thing = any(_THINGS.search(name) for name in names[:-1])
    if named := next((kind for kind, pattern in _PERSONAL_NAMES if pattern.search(names[-1])), ""):
        return "" if is_thing and names[-1] == "name" else named
    return _PERSONAL_FORMATS.get(node.formats[0], "") if node.formats else ""


def _path(steps: Sequence[Step]) -> str:
    return "$" + "".join("[*]" if step is None else json_path([step])[1:] for step in steps)


def _snake(name: str) -> str:
    return re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).casefold()
