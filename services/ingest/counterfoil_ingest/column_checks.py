"""Hold a contract's JSON Schema against whole columns: which rows surely keep it.

A check never takes a row that the validator would refuse. What it cannot say for sure (a keyword or an expression that
it does not know, a value of another kind) is left to the validator, row by row: that costs time, never a verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_ingest.json_columns import Array, JsonColumn, Mask, mask_of

ValueCheck: TypeAlias = Callable[[Array], Mask]
"""Say of each value of an array whether it surely keeps a schema; nulls count as whatever comes out."""

_ANNOTATIONS = frozenset({"$schema", "$comment", "title", "description", "default", "examples"})
_LARGEST = 1 << 53  # beyond it a float64 does not hold every integer

_DAY = (
    "(?:(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-"
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_WORD = "[A-Za-z0-9]{1,20}"
_SURE_FORMATS = {
    "date": f"^{_DAY}$",
    "date-time": f"^{_DAY}T{_CLOCK}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$",
    "uuid": "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "email": f"^{_WORD}(?:[._+-]{_WORD}){{0,2}}@(?:{_WORD}(?:-{_WORD})?[.]){{1,3}}[A-Za-z]{{2,20}}$",
}
"""Texts that are of a format under any reading of it; there are others."""

# One piece of an expression that RE2 reads as ECMA-262 does, or as a part of it: without look-around, references,
# negated classes of Unicode and the like, fewer characters in a class can only make fewer texts match.
_PIECE = re.compile(
    r"""(?P<open>\((?:\?:)?)|(?P<plain>[\^$|)A-Za-z0-9 _,:;=@#%&~<>/'"!`-])|(?P<any>\.)|(?P<digit>\\d)|(?P<word>\\w)"""
    r"""|\\[.+*?()|\[\]{}^$/\\-]|\[\^?(?:[A-Za-z0-9 _,:;=@#%<>/'"!`.+*?()|{}$]|-(?!-)|\\[.+*?()|\[\]{}^$/\\-])+\]"""
    r"""|(?P<often>[*+?]\??|\{[0-9]{1,3}(?:,[0-9]{0,3})?\}\??)""",
    re.ASCII,
)
_NARROWER = {"any": r"[^\n\r\x{2028}\x{2029}]", "digit": "[0-9]", "word": "[A-Za-z0-9_]"}


class ColumnChecks:
    """The checks of one dataset's contract."""

    def __init__(self, json_schema: bytes) -> None:
        """Compile a JSON Schema (draft 2020-12); one that says too much for columns proves no row."""
        schema = orjson.loads(json_schema)
        known = {"type", "properties", "required", "additionalProperties", "patternProperties"}
        # A pattern that allows anything only widens which names may occur; no name is proven by it.
        patterns = schema.get("patternProperties", {}).values()
        self._usable = (
            _says_only(schema, known)
            and schema.get("type") == "object"
            and all(each is True for each in patterns)
            and isinstance(schema.get("additionalProperties", True), bool)
        )
        self._open = schema.get("additionalProperties", True) is True
        self._required: Sequence[str] = schema.get("required", [])
        self._checks = (
            {name: _value_check(each) for name, each in schema.get("properties", {}).items()} if self._usable else {}
        )

    def proven(self, columns: Mapping[str, JsonColumn], count: int) -> Mask:
        """Return which of `count` rows surely keep the contract."""
        proven = np.full(count, self._usable and all(name in columns for name in self._required))
        for name, column in columns.items():
            if not proven.any():
                break
            held = self._held(name, column)
            absent = column.texts.null_count
            if absent and name not in self._required:
                held = held | mask_of(column.texts.is_null())
            elif absent:
                held = held & mask_of(column.texts.is_valid())
            proven &= held
        return proven

    def _held(self, name: str, column: JsonColumn) -> Mask:
        check = self._checks.get(name)
        count = len(column.texts)
        if check is None:
            return np.full(count, self._open)
        if column.values is None:
            return np.zeros(count, np.bool_)
        held = check(column.values)
        return held if column.odd is None else held & ~column.odd


def _says_only(schema: Mapping[str, Any], known: set[str]) -> bool:
    return all(key in known or key in _ANNOTATIONS or key.startswith("x-") for key in schema)


def _value_check(schema: Any) -> ValueCheck:
    if schema is True:
        return lambda values: np.ones(len(values), np.bool_)
    if not isinstance(schema, dict) or not _says_only(schema, set(_KEYWORDS)):
        return _none
    return _all_of([_KEYWORDS[key](wanted) for key, wanted in schema.items() if key in _KEYWORDS])


def _none(values: Array) -> Mask:
    return np.zeros(len(values), np.bool_)


def _all_of(checks: Sequence[ValueCheck]) -> ValueCheck:
    def check(values: Array) -> Mask:
        held = np.ones(len(values), np.bool_)
        for each in checks:
            held &= each(values)
        return held

    return check


def _any_of(checks: Sequence[ValueCheck]) -> ValueCheck:
    def check(values: Array) -> Mask:
        held = np.zeros(len(values), np.bool_)
        for each in checks:
            if held.all():
                break
            held |= each(values)
        return held

    return check


def _is_number(values: Array) -> bool:
    return bool(pa.types.is_integer(values.type) or pa.types.is_floating(values.type))


def _numbers(values: Array) -> Any:
    return values.fill_null(0).to_numpy() if values.null_count else values.to_numpy()


def _typed(wanted: str | Sequence[str]) -> ValueCheck:
    types = {wanted} if isinstance(wanted, str) else set(wanted)

    def check(values: Array) -> Mask:
        kind = values.type
        fits = (
            (pa.types.is_integer(kind) and bool(types & {"integer", "number"}))
            or (pa.types.is_floating(kind) and "number" in types)  # 1.0 is an integer too, which the validator knows
            or (pa.types.is_boolean(kind) and "boolean" in types)
            or (pa.types.is_string(kind) and "string" in types)
        )
        return np.full(len(values), fits)

    return check


def _bounded(holds: Callable[[Any, Any], Mask], *, upper: bool) -> Callable[[Any], ValueCheck]:
    def keyword(limit: Any) -> ValueCheck:
        # Where a limit cannot be compared exactly, the next one on the strict side is taken.
        whole, near = limit, float(limit)
        if isinstance(limit, float):
            whole = None if abs(limit) >= _LARGEST else math.floor(limit) if upper else math.ceil(limit)
        if abs(near) >= _LARGEST:
            near = math.nextafter(near, -math.inf if upper else math.inf)

        def check(values: Array) -> Mask:
            if pa.types.is_floating(values.type):
                return holds(_numbers(values), near)
            if pa.types.is_integer(values.type):
                return _none(values) if whole is None else holds(_numbers(values), whole)
            return np.ones(len(values), np.bool_)

        return check

    return keyword


def _multiple_of(step: Any) -> ValueCheck:
    def check(values: Array) -> Mask:
        if not _is_number(values):
            return np.ones(len(values), np.bool_)
        if type(step) is not int or not 0 < step < _LARGEST or not pa.types.is_signed_integer(values.type):
            return _none(values)
        mask: Mask = _numbers(values) % step == 0
        return mask

    return check


def _enumerated(options: Sequence[Any]) -> ValueCheck:
    texts = pa.array([each for each in options if isinstance(each, str)], pa.string())
    whole = [each for each in options if type(each) is int and abs(each) < _LARGEST]
    numbers = [float(each) for each in [*whole, *(each for each in options if type(each) is float)]]
    truths = [each for each in options if isinstance(each, bool)]

    def check(values: Array) -> Mask:
        if pa.types.is_string(values.type):
            return mask_of(pc.is_in(values, value_set=texts))
        if pa.types.is_boolean(values.type):
            return mask_of(pc.is_in(values, value_set=pa.array(truths, pa.bool_())))
        if pa.types.is_integer(values.type):
            return np.isin(_numbers(values), np.array(whole, np.int64)) & _small(values)
        return np.isin(_numbers(values), np.array(numbers)) if pa.types.is_floating(values.type) else _none(values)

    return check


def _small(values: Array) -> Mask:
    """Say which integers a float64 would hold: numpy compares unsigned ones with signed ones as floats."""
    mask: Mask = _numbers(values) < _LARGEST
    return mask


def _long(holds: Callable[[Any, Any], Any]) -> Callable[[Any], ValueCheck]:
    def keyword(limit: Any) -> ValueCheck:
        def check(values: Array) -> Mask:
            if not pa.types.is_string(values.type):
                return np.ones(len(values), np.bool_)
            mask: Mask = holds(_numbers(pc.utf8_length(values)), limit)
            return mask

        return check if type(limit) is int else _none

    return keyword


def _matching(pattern: str | None) -> ValueCheck:
    if pattern is None or not _compiles(pattern):
        return lambda values: np.full(len(values), not pa.types.is_string(values.type))

    def check(values: Array) -> Mask:
        if not pa.types.is_string(values.type):
            return np.ones(len(values), np.bool_)
        matched: Array = pc.match_substring_regex(values, pattern)
        return mask_of(matched.fill_null(False))

    return check


def _compiles(pattern: str) -> bool:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid:
        return False
    return True


def narrower(pattern: str) -> str | None:
    """Return an expression for RE2 that matches only what one of ECMA-262 matches; None when it is not that simple."""
    pieces, at, repeatable = [], 0, False
    while at < len(pattern):
        found = _PIECE.match(pattern, at)
        if found is None or (found.lastgroup == "often" and not repeatable):
            return None
        text = found.group()
        pieces.append(_NARROWER.get(found.lastgroup or "", text))
        repeatable = found.lastgroup not in ("often", "open") and text not in ("^", "$", "|")
        at = found.end()
    return "".join(pieces)


_KEYWORDS: Mapping[str, Callable[[Any], ValueCheck]] = {
    "type": _typed,
    "enum": _enumerated,
    "minimum": _bounded(np.greater_equal, upper=False),
    "maximum": _bounded(np.less_equal, upper=True),
    "exclusiveMinimum": _bounded(np.greater, upper=False),
    "exclusiveMaximum": _bounded(np.less, upper=True),
    "multipleOf": _multiple_of,
    "minLength": _long(np.greater_equal),
    "maxLength": _long(np.less_equal),
    "pattern": lambda pattern: _matching(narrower(pattern)),
    "format": lambda name: _matching(_SURE_FORMATS.get(name)),
    "allOf": lambda schemas: _all_of([_value_check(each) for each in schemas]),
    "anyOf": lambda schemas: _any_of([_value_check(each) for each in schemas]),
}
