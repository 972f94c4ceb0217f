"""Reads YAML or JSON of people without trusting it: bounded in size, depth and aliases, no tags, no doubled keys."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

MOST_VALUES: Final = 20_000
"""Values in a document once its aliases are written out."""

MOST_DEPTH: Final = 32

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}
_PLAIN_TAG: Final = re.compile(r"tag:yaml\.org,2002:(str|int|float|bool|null|timestamp|value|merge)")


class UnreadableTextError(Exception):
    """The text cannot be read: why, and where as far as is known."""

    def __init__(self, reason: str, path: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.path = path
        self.detail = detail


def read_yaml(text: str) -> Any:
    """Return the JSON value of a YAML text with one document, plain scalars as YAML 1.2 has them.

    Raises UnreadableTextError.
    """
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnreadableTextError("MAPPING_SYNTAX", "$", f"This is no YAML{place}: {error.problem}.") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise UnreadableTextError("MAPPING_SYNTAX", "$", f"This is no YAML: {type(error).__name__}.") from None
    if node is None:
        raise UnreadableTextError("MAPPING_SYNTAX", "$", "The document is empty.")
    return _Reader().value(node, "$", 0)


def _check_depth(text: str) -> None:
    """Raise UnreadableTextError for a text that composing, which recurses in C, must not see."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_DEPTH:
            raise UnreadableTextError("MAPPING_TOO_LARGE", "$", f"A document nests at most {MOST_DEPTH} levels.")


class _Reader:
    """One pass over the nodes of a document; an alias is walked again each time, so that its values count."""

    def __init__(self) -> None:
        self._values = 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._values += 1
        if self._values > MOST_VALUES or depth > MOST_DEPTH:
            detail = f"A document holds at most {MOST_VALUES} values in {MOST_DEPTH} levels, its aliases written out."
            raise UnreadableTextError("MAPPING_TOO_LARGE", path, detail)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, path)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise UnreadableTextError("MAPPING_SYNTAX", path, "Tags are not read here. Leave the tag out.")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UnreadableTextError("MAPPING_SYNTAX", path, "A key must be plain text.")
            name = key.value
            if name in found:
                raise UnreadableTextError("MAPPING_DUPLICATE_KEY", f"{path}.{name}", "The key stands here twice.")
            found[name] = self.value(item, f"{path}.{name}", depth + 1)
        return found


def _scalar(node: yaml.ScalarNode, path: str) -> Any:
    if not _PLAIN_TAG.fullmatch(node.tag):
        raise UnreadableTextError("MAPPING_SYNTAX", path, "Tags are not read here. Leave the tag out.")
    text: str = node.value
    if node.style:
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return int(text) if _INTEGER.fullmatch(text) else text
