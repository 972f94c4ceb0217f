"""Drafts a contract from what recent records look like, for a person to finish."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from counterfoil_contracts.check_entities import DatasetProfile, FieldProfile, ProfileSubject
from counterfoil_contracts.check_errors import ProfileEmptyError
from counterfoil_contracts.compatibility.fields import Step, read_path
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.odcs.keywords import SQL_KEYWORDS

ENOUGH: Final = 100
"""Records from which on "always there" and "never another value" is worth saying."""
MOST_ENUMERATED: Final = 12
_MOST_EXAMPLES: Final = 3
_LONGEST_NAME: Final = 200
_UNPLANNED: Final = "unplanned"
_LEFT_OPEN: Final = frozenset({"context", "integrations"})
"""Objects of event protocols that SDKs fill as they like."""

_TEMPORAL: Final = {"date-time": "timestamp", "date": "date", "time": "time"}


@dataclass(frozen=True)
class Named:
    """What a drafted contract is to be called, and whose it is; an empty dataset is named after the records."""

    contract_id: str
    owner: str
    dataset: str = ""


@dataclass(frozen=True)
class Draft:
    """An ODCS document in YAML, and what a person has to decide before it is submitted."""

    document: str
    open_questions: tuple[str, ...]


@dataclass
class _Node:
    """A field with those below it."""

    profile: FieldProfile | None = None
    below: dict[Step, _Node] = field(default_factory=dict)


def draft(profile: DatasetProfile, subject: ProfileSubject, named: Named) -> Draft:
    """Return a document with every field that was seen; raise ProfileEmptyError when none was."""
    drafting = _Drafting(profile.records)
    properties = drafting.properties(_tree(profile.fields).below, top=True)
    if not properties:
        raise ProfileEmptyError(
            "No record was seen that a contract could be drafted from. Send some, or look at more of them.",
            metadata={"dataset": profile.dataset, "records": str(profile.records)},
        )
    seen_in = f"{profile.records} records of {profile.dataset}{_filters(subject)}"
    dataset = {
        "name": named.dataset or _dataset_name(subject, named.contract_id),
        **({"physicalName": subject.event} if subject.event else {}),
        "logicalType": "object",
        "description": f"Drafted from {seen_in}.",
        "customProperties": [{"property": "contentModel", "value": "producer-closed"}],
        "properties": properties,
    }
    document = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": named.contract_id,
        "name": subject.event or named.contract_id,
        "version": "1.0.0",
        "status": "draft",
        "description": {"purpose": "To be said: what these records are for."},
        "team": {"name": named.owner},
        "schema": [dataset],
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    faults = [f"Line {each.line}, {each.path}: {each.detail}" for each in check_document(text).findings]
    return Draft(text, (_PURPOSE, *faults, *drafting.questions))


_PURPOSE: Final = "Say in description.purpose what these records are for, and name the contract as people know it."


class _Drafting:
    """Makes properties of fields, and notes what it cannot decide."""

    def __init__(self, records: int) -> None:
        self.questions: list[str] = []
        self._records = records

    def properties(self, nodes: Mapping[Step, _Node], *, top: bool) -> list[dict[str, Any]]:
        """Return the properties of one object, in the order in which they were seen first."""
        made = []
        taken: set[str] = set()
        for name, node in nodes.items():
            if name is None or node.profile is None:
                continue
            if not _can_be_named(name, top=top) or (name.casefold() if top else name) in taken:
                self.questions.append(f"{node.profile.path} cannot be a property by this name: have it sent otherwise.")
                continue
            taken.add(name.casefold() if top else name)
            made.append({"name": name, **self._property(node.profile, node, name)})
        return made

    def _property(self, seen: FieldProfile, node: _Node, name: str) -> dict[str, Any]:
        kind, said = self._kind(seen)
        made: dict[str, Any] = {"logicalType": kind, **said, "description": _description(seen)}
        if seen.parents >= ENOUGH and seen.present == seen.parents and not seen.nulls:
            made["required"] = True
        if seen.personal:
            made["classification"] = "restricted"
            self.questions.append(
                f"{seen.path} looks like personal data ({seen.personal}): confirm its classification."
            )
        if kind == "object":
            made |= self._object(node, name)
        elif kind == "array":
            made |= self._array(node, seen)
        elif kind in ("string", "integer") and not said:
            made |= self._values(seen, kind)
        return made

    def _kind(self, seen: FieldProfile) -> tuple[str, dict[str, Any]]:
        """Return the logicalType with what goes along."""
        kinds = {name for name, _ in seen.types}
        if not kinds:
            self.questions.append(f"{seen.path} was always null: say of which type it is meant to be.")
            return "string", {}
        if kinds == {"integer", "number"}:
            return "number", {}
        if len(kinds) > 1:
            told = ", ".join(f"{name} {count} times" for name, count in seen.types)
            self.questions.append(f"{seen.path} has several types ({told}): one has to be chosen, here the commonest.")
        kind = seen.types[0][0]
        if kind == "string" and len(kinds) == 1 and seen.format in _TEMPORAL:
            return _TEMPORAL[seen.format], {}
        if kind == "string" and len(kinds) == 1 and seen.format:
            return "string", {"logicalTypeOptions": {"format": seen.format}}
        return kind, {}

    def _object(self, node: _Node, name: str) -> dict[str, Any]:
        below = {} if name in _LEFT_OPEN else node.below
        properties = self.properties(below, top=False)
        if not properties:
            return {}  # an object that declares nothing takes anything
        custom = [{"property": "contentModel", "value": "open"}]
        return {"customProperties": custom, "properties": properties}

    def _array(self, node: _Node, seen: FieldProfile) -> dict[str, Any]:
        item = node.below.get(None)
        if item is None or item.profile is None:
            self.questions.append(f"{seen.path} was always empty: say what its items are.")
            return {}
        return {"items": self._property(item.profile, item, "")}

    def _values(self, seen: FieldProfile, kind: str) -> dict[str, Any]:
        values: list[Any] = [int(value) if kind == "integer" else value for value, _ in seen.values]
        if not values:
            return {}
        is_all = len(values) == seen.distinct and len(seen.types) == 1
        if kind == "string" and is_all and seen.present >= ENOUGH and len(values) <= MOST_ENUMERATED:
            self.questions.append(f"{seen.path} had {len(values)} different values: confirm that there are no others.")
            return {"enum": [{"value": value} for value in sorted(values)]}
        return {"examples": values[:_MOST_EXAMPLES]}


def _description(seen: FieldProfile) -> str:
    parts = []
    if missing := seen.parents - seen.present:
        parts.append(f"absent in {_share(missing, seen.parents)}")
    if seen.nulls:
        parts.append(f"null in {_share(seen.nulls, seen.parents)}")
    kinds = {name for name, _ in seen.types}
    if kinds and kinds <= {"integer", "number"} and not seen.personal:
        parts.append(f"from {seen.minimum:g} to {seen.maximum:g}")
    elif kinds == {"string"} and not seen.format:
        parts.append(f"{seen.minimum:g} to {seen.maximum:g} characters")
    elif kinds == {"array"}:
        parts.append(f"{seen.minimum:g} to {seen.maximum:g} items")
    told = f"Seen: {', '.join(parts)}. " if parts else ""
    return f"{told}To be said: what it means."


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"


def _filters(subject: ProfileSubject) -> str:
    told = [f"{name} {value!r}" for name, value in (("type", subject.type), ("event", subject.event)) if value]
    return f" with {' and '.join(told)}" if told else ""


def _dataset_name(subject: ProfileSubject, contract_id: str) -> str:
    """Return a name that a dataset can have: after the event or the contract where the records have none."""
    if subject.dataset != _UNPLANNED:
        return subject.dataset
    plain = re.sub(r"[^a-z0-9]+", "_", (subject.event or contract_id).casefold()).strip("_")[:60]
    name = plain if plain[:1].isalpha() and plain[:1].isascii() else f"d_{plain}".rstrip("_")
    return f"{name}_records"[:63] if name in SQL_KEYWORDS else name


def _can_be_named(name: str, *, top: bool) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and not (top and name.startswith("_"))


def _tree(fields: Sequence[FieldProfile]) -> _Node:
    root = _Node()
    for each in fields:
        node = root
        for step in read_path(each.path):
            node = node.below.setdefault(step, _Node())
        node.profile = each
    return root
