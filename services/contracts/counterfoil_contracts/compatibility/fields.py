"""The fields of a compiled schema by their paths: which there are, and what of a schema concerns one who reads some.

A path is a JSON path (RFC 9535) of names and `[*]`, every element of an array or value of a map. Compiled schemas hold
no references and nest as deep as a document may.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from counterfoil_chassis.jsonpath import json_path

from counterfoil_contracts.errors import FieldPathInvalidError

Step = str | None
"""A property's name, or None for every element."""
FieldPath = tuple[Step, ...]

_MOST_STEPS: Final = 64
_STEP: Final = re.compile(
    r"""\.?(?P<plain>[^\s.\[\]'"*$]+) | \[\s*(?P<every>\*|\d+)\s*\] | \[\s*'(?P<single>(?:[^'\\]|\\.)*)'\s*\] |"""
    r"""\[\s*"(?P<double>(?:[^"\\]|\\.)*)"\s*\]""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")


def read_path(text: str) -> FieldPath:
    """Return a path; one without `$` begins at the record, and an index means every element.

    Raises FieldPathInvalidError.
    """
    place = 1 if text.startswith("$") else 0
    steps: list[Step] = []
    while place < len(text):
        found = _STEP.match(text, place)
        begins = not steps and not place
        if found is None or len(steps) == _MOST_STEPS or (found["plain"] and (text[place] == ".") is begins):
            raise FieldPathInvalidError(
                "A field is named by a JSON path such as `$.properties.total` or `$.items[*].sku`, "
                f"at most {_MOST_STEPS} steps deep.",
                metadata={"field": text},
            )
        quoted = found["single"] if found["single"] is not None else found["double"]
        steps.append(None if found["every"] else found["plain"] if quoted is None else _ESCAPED.sub(r"\1", quoted))
        place = found.end()
    return tuple(steps)


def declared_fields(schema: Any) -> dict[FieldPath, Any]:
    """Return the schema of every declared field, below the record itself, each after the one that it lies in."""
    return dict(_declared((), schema))


def _declared(path: FieldPath, schema: Any) -> Iterator[tuple[FieldPath, Any]]:
    for step, child in _children(schema):
        yield (*path, step), child
        yield from _declared((*path, step), child)


def _children(schema: Any) -> Iterator[tuple[Step, Any]]:
    if not isinstance(schema, dict):
        return
    yield from schema.get("properties", {}).items()
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield None, schema[keyword]


def own_rules(fields: Mapping[FieldPath, Any], schema: Any, path: FieldPath) -> Any:
    """Return what a schema demands of one declared field apart from the fields below it, for telling changes."""
    node, parent = fields[path], schema if len(path) == 1 else fields[path[:-1]]
    own = {key: value for key, value in node.items() if key not in ("properties", "items", "required")}
    if isinstance(own.get("additionalProperties"), dict):
        del own["additionalProperties"]
    return own, path[-1] in parent.get("required", [])


class Presence(enum.IntEnum):
    """Whether a record can have a field."""

    IMPOSSIBLE = 0
    POSSIBLE = 1
    DECLARED = 2


def presence(schema: Any, path: FieldPath) -> Presence:
    """Tell whether a record of a schema can have a field."""
    for step in path:
        if not isinstance(schema, dict):
            return Presence.POSSIBLE if schema is True else Presence.IMPOSSIBLE
        child = _below(schema, step)
        if isinstance(child, Presence):
            return child
        schema = child
    return Presence.DECLARED


def _below(schema: Mapping[str, Any], step: Step) -> Any:
    """Return the schema of what a step leads to, or what is known where none is declared."""
    kinds = schema.get("type", ["object", "array"])
    for_any = schema.get("additionalProperties", True)
    child = schema.get("items") if step is None else schema.get("properties", {}).get(step)
    if isinstance(child, dict):
        return child
    if isinstance(for_any, dict):
        return for_any
    if step is None:
        possible = "array" in kinds or "object" in kinds
    else:
        reserved = any(re.search(pattern, step) for pattern in schema.get("patternProperties", {}))
        possible = "object" in kinds and (for_any or reserved)
    return Presence.POSSIBLE if possible else Presence.IMPOSSIBLE


@dataclass
class Reading:
    """What is read of a value: all of it, or some of what lies below."""

    whole: bool = False
    below: dict[Step, Reading] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[FieldPath]) -> Reading:
        """Return what one reads who reads these fields; no path means everything."""
        root, empty = cls(), True
        for path in paths:
            empty, place = False, root
            for step in path:
                place = place.below.setdefault(step, cls())
            place.whole = True
        root.whole = root.whole or empty
        return root


def as_read(schema: Any, reading: Reading) -> Any:
    """Return a schema that accepts every record that looks valid to one who reads no more than this.

    What the schema says of other fields, and that there are no others, is left out.
    """
    if not isinstance(schema, dict):
        return True
    if reading.whole or (None in reading.below and "properties" in schema):
        return _opened(schema)
    kept: dict[str, Any] = {key: schema[key] for key in ("$schema", "type") if key in schema}
    names = [step for step in reading.below if step is not None]
    properties = schema.get("properties", {})
    for_any = schema.get("additionalProperties")
    for name in names:
        child = properties.get(name, for_any if isinstance(for_any, dict) else None)
        if child is not None:
            kept.setdefault("properties", {})[name] = as_read(child, reading.below[name])
    if required := [name for name in schema.get("required", []) if name in names]:
        kept["required"] = required
    if None in reading.below:
        for keyword in ("items", "additionalProperties"):
            if isinstance(schema.get(keyword), dict):
                kept[keyword] = as_read(schema[keyword], reading.below[None])
    return kept


def _opened(schema: Any) -> Any:
    """Return a schema that also accepts fields it does not know, however deep."""
    if not isinstance(schema, dict):
        return True
    opened = dict(schema)
    if not isinstance(opened.get("additionalProperties"), dict):  # what says how a map is made stays
        for keyword in ("additionalProperties", "patternProperties", "propertyNames", "maxProperties"):
            opened.pop(keyword, None)
    if "properties" in opened:
        opened["properties"] = {name: _opened(child) for name, child in opened["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if isinstance(opened.get(keyword), dict):
            opened[keyword] = _opened(opened[keyword])
    return opened


def no_longer_there(old: Any, new: Any, paths: Iterable[FieldPath]) -> list[FieldPath]:
    """Return, of the fields that are read and those below them, the topmost that the new schema promises less of."""
    read = frozenset(paths) or frozenset({()})
    wanted = dict.fromkeys(sorted(read, key=json_path))
    for path in declared_fields(old):
        if any(path[:length] in read for length in range(len(path) + 1)):
            wanted.setdefault(path)
    gone: dict[FieldPath, None] = {}
    for path in sorted(wanted, key=len):
        below_gone = any(path[:length] in gone for length in range(len(path)))
        if not below_gone and presence(new, path) < presence(old, path):
            gone.setdefault(path)
    return list(gone)
