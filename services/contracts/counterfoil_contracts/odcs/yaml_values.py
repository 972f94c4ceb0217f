"""Builds JSON values from YAML events, so that no constructor, tag, alias bomb or depth of the text can do harm.

Plain scalars are read by the core schema of YAML 1.2.2 (section 10.3.2): `yes` and dates stay text, as in JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from counterfoil_contracts.odcs.findings import Path

MOST_NODES: Final = 100_000
"""Values in a document once its aliases are written out; real contracts have a few thousand."""

_MERGE: Final = "<<"
_STANDARD: Final = "tag:yaml.org,2002:"
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER: Final = 400

LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableDocumentError(Exception):
    """The text cannot be read: why, and where as far as is known."""

    def __init__(self, reason: str, path: Path, detail: str, *, line: int = 0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.path = path
        self.detail = detail
        self.line = line


def read_yaml(text: str, *, most_depth: int) -> Any:
    """Return the JSON value of a YAML text with exactly one document; raise UnreadableDocumentError."""
    try:
        return _Builder(yaml.parse(text, Loader=LOADER), most_depth=most_depth).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        line = mark.line + 1 if mark else 0
        raise UnreadableDocumentError(
            "DOCUMENT_SYNTAX", (), f"This is no YAML{place}: {error.problem}.", line=line
        ) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise UnreadableDocumentError("DOCUMENT_SYNTAX", (), f"This is no YAML: {type(error).__name__}.") from None


class _Builder:
    """One pass over the events of one text; recursion is bounded by the depth allowed."""

    def __init__(self, events: Iterator[yaml.Event], *, most_depth: int) -> None:
        self._events = events
        self._most_depth = most_depth
        self._nodes = 0
        self._anchors: dict[str, tuple[Any, int]] = {}

    def document(self) -> Any:
        """Return the value of the only document."""
        self._next()  # the stream begins
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise UnreadableDocumentError("DOCUMENT_EMPTY", (), "The document is empty.")
        value = self._value(self._next(), ())
        self._next()  # the document ends
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise UnreadableDocumentError(
                "DOCUMENT_MULTIPLE", (), "There is more than one document. Submit them one by one."
            )
        return value

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _value(self, event: yaml.Event, path: Path) -> Any:
        self._count(1)
        if len(path) > self._most_depth:
            raise UnreadableDocumentError(
                "DOCUMENT_TOO_DEEP", (), f"A document nests at most {self._most_depth} levels."
            )
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if not isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
            raise UnreadableDocumentError("DOCUMENT_SYNTAX", path, "A value is missing here.")
        before = self._nodes
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, path)
        else:
            value = self._mapping(event, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _sequence(self, event: yaml.SequenceStartEvent, path: Path) -> list[Any]:
        _check_tag(event.tag, "seq", path)
        items: list[Any] = []
        while not isinstance(item := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(item, (*path, len(items))))
        return items

    def _mapping(self, event: yaml.MappingStartEvent, path: Path) -> dict[str, Any]:
        _check_tag(event.tag, "map", path)
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(key := self._next(), yaml.MappingEndEvent):
            self._count(1)
            if not isinstance(key, yaml.ScalarEvent):
                raise UnreadableDocumentError("DOCUMENT_KEY", path, "A key must be plain text.")
            name = key.value
            value = self._value(self._next(), (*path, name))
            if name == _MERGE and key.implicit[0]:
                merged = _merged(value, path) | merged
            elif name in own:
                raise UnreadableDocumentError(
                    "DOCUMENT_DUPLICATE_KEY", (*path, name), "The key stands here twice. Keep one."
                )
            else:
                own[name] = value
        return own | {name: value for name, value in merged.items() if name not in own}

    def _alias(self, event: yaml.AliasEvent, path: Path) -> Any:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise UnreadableDocumentError(
                "DOCUMENT_ALIAS", path, "The alias names nothing that was complete before it."
            )
        value, nodes = known
        self._count(nodes)
        return value

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise UnreadableDocumentError(
                "DOCUMENT_TOO_LARGE", (), f"A document holds at most {MOST_NODES} values, its aliases written out."
            )


def _merged(value: Any, path: Path) -> dict[str, Any]:
    sources = value if isinstance(value, list) else [value]
    result: dict[str, Any] = {}
    for source in sources:
        if not isinstance(source, dict):
            raise UnreadableDocumentError(
                "DOCUMENT_KEY", path, "The merge key << takes a mapping or a list of mappings."
            )
        result = source | result
    return result


def _check_tag(tag: str | None, expected: str, path: Path) -> None:
    if tag not in (None, "!", _STANDARD + expected):
        raise UnreadableDocumentError("DOCUMENT_TAG", path, "Tags are not read here. Leave the tag out.")


def _scalar(event: yaml.ScalarEvent, path: Path) -> Any:
    if event.tag in (None, "!"):
        plain = event.implicit[0] and event.tag is None
        return _plain(event.value) if plain else event.value
    if event.tag == _STANDARD + "str":
        return event.value
    value = _plain(event.value)
    kinds = {"int": int, "float": float, "bool": bool, "null": type(None)}
    kind = kinds.get((event.tag or "").removeprefix(_STANDARD))
    if kind is None or type(value) is not kind:
        raise UnreadableDocumentError("DOCUMENT_TAG", path, "Tags are not read here. Leave the tag out.")
    return value


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    return text if len(text) > _LONGEST_NUMBER else _number(text)


def _number(text: str) -> int | float | str:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return int(text, base=0)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
