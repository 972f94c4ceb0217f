"""Schemas as compatibility rules see them: of one kind each, or a combination of schemas of one kind each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs


class Kind(StrEnum):
    """What a schema is about."""

    ANY = "any"
    NEVER = "never"
    ENUM = "enum"
    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    NULL = "null"
    OBJECT = "object"
    ARRAY = "array"
    NOT = "not"
    ALL_OF = "allOf"
    ANY_OF = "anyOf"
    ONE_OF = "oneOf"


COMBINED: Final = frozenset({Kind.ALL_OF, Kind.ANY_OF, Kind.ONE_OF})
_KIND_OF_TYPE: Final[Mapping[str, Kind]] = {
    "string": Kind.STRING,
    "number": Kind.NUMBER,
    "integer": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
    "null": Kind.NULL,
    "object": Kind.OBJECT,
    "array": Kind.ARRAY,
}
_TELLING: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.STRING: frozenset({"minLength", "maxLength", "pattern", "format"}),
    Kind.NUMBER: frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    Kind.OBJECT: frozenset(
        {
            "properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "required",
            "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "propertyNames",
        }
    ),
    Kind.ARRAY: frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}),
}  # fmt: skip
"""Keywords that tell what a schema without a type is about."""


@dataclass(frozen=True, eq=False)
class View:
    """One schema of one kind, with its keywords; or a combination with its parts; or what `not` refuses."""

    kind: Kind
    schema: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[View, ...] = ()
    is_typed: bool = True
    """Whether it refuses values of other types."""
    is_whole: bool = False
    """Whether its numbers are whole."""


ANY: Final = View(Kind.ANY)
NEVER: Final = View(Kind.NEVER)


class Views:
    """The views of one document of draft 2020-12 that holds all that it refers to."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._known: dict[int, View] = {}
        self._following: set[int] = set()

    @property
    def root(self) -> View:
        """Return the view of the whole."""
        return self.of(self._document)

    def of(self, schema: Any) -> View:
        """Return the view of a schema of the document; the same schema has the same view."""
        if not isinstance(schema, dict):
            return NEVER if schema is False else ANY
        known = self._known.get(id(schema))
        if known is None:
            if id(schema) in self._following:
                return ANY  # it refers to itself and says nothing else
            self._following.add(id(schema))
            known = self._known[id(schema)] = self._made(schema)
            self._following.discard(id(schema))
        return known

    def _made(self, schema: Mapping[str, Any]) -> View:
        parts: list[View] = []
        if isinstance(schema.get("$ref"), str):
            parts.append(self.of(self._resolved(schema["$ref"])))
        parts += _typed(schema)
        if isinstance(schema.get("enum"), list):
            parts.append(View(Kind.ENUM, {"enum": schema["enum"]}))
        if "const" in schema:
            parts.append(View(Kind.ENUM, {"enum": [schema["const"]]}))
        for kind in (Kind.ALL_OF, Kind.ANY_OF, Kind.ONE_OF):
            branches = schema.get(kind)
            if isinstance(branches, list) and branches:
                parts.append(_combined(kind, [self.of(each) for each in branches]))
        if "not" in schema:
            refused = self.of(schema["not"])
            parts.append(NEVER if refused is ANY else View(Kind.NOT, parts=(refused,)))
        telling = [part for part in parts if part is not ANY]
        return _combined(Kind.ALL_OF, telling) if telling else ANY

    def _resolved(self, reference: str) -> Any:
        """Return what a reference within the document means; what it does not find says nothing."""
        if not reference.startswith("#"):
            return True
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            return _anchored(self._document, fragment)
        found = self._document
        for step in fragment.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return True
        return found


def _typed(schema: Mapping[str, Any]) -> list[View]:
    """Return the views of what is said of single types."""
    said = schema.get("type")
    types = said if isinstance(said, list) else [said] if isinstance(said, str) else []
    views = [View(_KIND_OF_TYPE[name], schema, is_whole=name == "integer") for name in types if name in _KIND_OF_TYPE]
    if views:
        return [_combined(Kind.ANY_OF, views)]
    return [View(kind, schema, is_typed=False) for kind, keywords in _TELLING.items() if keywords & schema.keys()]


def _combined(kind: Kind, parts: Sequence[View]) -> View:
    return parts[0] if len(parts) == 1 else View(kind, parts=tuple(parts))


def _anchored(document: Any, name: str) -> Any:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("$anchor") == name:
                return value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return True


def content_of(view: View) -> Callable[[str], Any]:
    """Return what says of an object's other properties which schema they have: True where any is taken."""
    schema = view.schema
    patterns: Mapping[str, Any] = schema.get("patternProperties") or {}
    others = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))

    def covering(name: str) -> Any:
        return next((part for pattern, part in patterns.items() if matches(pattern, name)), others)

    return covering


@functools.lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True).is_valid


def matches(pattern: str, text: str) -> bool:
    """Say whether a pattern is found in a text, by the engine that judges records: it cannot take for ever."""
    return _matcher(pattern)(text)
