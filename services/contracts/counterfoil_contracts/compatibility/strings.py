"""A string that a regular expression matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from re import _constants as sre  # type: ignore[attr-defined]  # private, and the same in 3.11 to 3.13
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import jsonschema_rs

LONGEST = 1_000
"""No string that is drawn is longer; a pattern that needs more has no example."""

_CLASSES = {
    sre.CATEGORY_DIGIT: "0",
    sre.CATEGORY_NOT_DIGIT: "a",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_NOT_SPACE: "a",
    sre.CATEGORY_WORD: "a",
    sre.CATEGORY_NOT_WORD: "-",
}
_ANYTHING = "aA0-_ .@/:!é"


class _NoExampleError(Exception):
    """The pattern says something that is not drawn here: a look-ahead, a boundary within a word, a conditional."""


def matching(pattern: str, *, least: int = 0) -> str | None:
    """Return a short string that the pattern matches, of at least so many characters; None when none was found.

    A JSON Schema's `pattern` is a search (JSON Schema Validation 2020-12, section 6.3.3), so that text may be added
    before or after. The answer is confirmed by the engine that judges records: Python's own can take for ever.
    """
    try:
        tree = parser.parse(pattern)
        matches = jsonschema_rs.Draft202012Validator({"pattern": pattern}).is_valid
        for repeats in (0, 1, least):
            drawn = _sequence(tree, repeats)
            for text in (drawn, drawn + "a" * (least - len(drawn)), "a" * (least - len(drawn)) + drawn):
                if least <= len(text) <= LONGEST and matches(text):
                    return text
    except (re.error, jsonschema_rs.ValidationError, _NoExampleError, RecursionError, OverflowError):
        return None
    return None


def _sequence(tree: Iterable[tuple[Any, Any]], repeats: int, so_far: int = 0) -> str:
    text = ""
    for kind, argument in tree:
        text += _one(kind, argument, repeats, text)
        if so_far + len(text) > LONGEST:
            raise _NoExampleError
    return text


def _one(kind: Any, argument: Any, repeats: int, before: str) -> str:
    draw = _DRAWN.get(kind)
    if draw is None:
        raise _NoExampleError
    return draw(argument, repeats, before)


def _repeated(argument: Any, repeats: int, before: str) -> str:
    least, most, tree = argument
    once = _sequence(tree, repeats, len(before))
    times = min(max(int(least), repeats), int(most))
    if times * len(once) > LONGEST:
        raise _NoExampleError
    return once * times


def _of_a_set(argument: Any, repeats: int, before: str) -> str:
    first, rest = argument[0], argument
    if first[0] is sre.NEGATE:
        rest = argument[1:]
        return next((each for each in _ANYTHING if not any(_holds(part, each) for part in rest)), "~")
    kind, value = first
    if kind is sre.RANGE:
        return chr(value[0])
    return _one(kind, value, repeats, before)


def _holds(part: tuple[Any, Any], character: str) -> bool:
    kind, value = part
    if kind is sre.LITERAL:
        return bool(ord(character) == value)
    if kind is sre.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    pattern = {
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
        sre.CATEGORY_SPACE: r"\s",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
    }.get(value)
    return pattern is not None and re.match(pattern, character) is not None


_DRAWN: dict[Any, Callable[[Any, int, str], str]] = {
    sre.LITERAL: lambda value, _repeats, _before: chr(value),
    sre.NOT_LITERAL: lambda value, _repeats, _before: "a" if value != ord("a") else "b",
    sre.ANY: lambda _value, _repeats, _before: "a",
    sre.IN: _of_a_set,
    sre.CATEGORY: lambda value, _repeats, _before: _CLASSES[value],
    sre.MAX_REPEAT: _repeated,
    sre.MIN_REPEAT: _repeated,
    sre.SUBPATTERN: lambda value, repeats, before: _sequence(value[3], repeats, len(before)),
    sre.BRANCH: lambda value, repeats, before: _sequence(value[1][0], repeats, len(before)),
    sre.AT: lambda _value, _repeats, _before: "",
}
