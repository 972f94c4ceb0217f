"""Strings, integers, numbers, booleans: their ODCS options as JSON Schema keywords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

from counterfoil_contracts.odcs.findings import Findings, Path

BIGINT: Final = (-(1 << 63), (1 << 63) - 1)
"""What a column of whole numbers holds."""

_FLOAT_32: Final = 3.4028234663852886e38
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_ASSERTED_FORMATS: Final = frozenset({"email", "uuid", "uri", "hostname", "ipv4", "ipv6"})
_SILENT_FORMATS: Final = frozenset({"password", "binary"})  # say how to treat a text, not what is in it
_INTEGER_FORMAT: Final = re.compile(r"([iu])([0-9]+)")
_LOWER: Final = ("minimum", "exclusiveMinimum")
_UPPER: Final = ("maximum", "exclusiveMaximum")


def string_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of a text with its lengths, pattern and format."""
    schema: dict[str, Any] = {"type": "string"}
    check_order(options, "minLength", "maxLength", path, found)
    for keyword in ("minLength", "maxLength"):
        if keyword in options:
            schema[keyword] = options[keyword]
    if "pattern" in options and is_pattern(options["pattern"], (*path, "pattern"), found):
        schema["pattern"] = options["pattern"]
    text_format = options.get("format")
    if text_format in _ASSERTED_FORMATS:
        schema["format"] = text_format
    elif text_format == "byte":
        schema["allOf"] = [{"pattern": _BASE64}]
    elif text_format is not None and text_format not in _SILENT_FORMATS:
        known = ", ".join(sorted(_ASSERTED_FORMATS | _SILENT_FORMATS | {"byte"}))
        found.add("FORMAT_UNSUPPORTED", (*path, "format"), f"The formats of a string are {known}. Or say a pattern.")
    return schema


def is_pattern(pattern: object, path: Path, found: Findings) -> bool:
    """Tell whether the validator can use a regular expression; add a finding when it cannot."""
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern})
    except ValueError:
        found.add("PATTERN_INVALID", path, "This is no regular expression of ECMA-262 that can be used here.")
        return False
    return True


def number_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of a number; `f32` bounds it to what a 32-bit float holds."""
    schema = {"type": "number", **_bounds(options, path, found)}
    if options.get("format") == "f32":
        _tighten(schema, -_FLOAT_32, _FLOAT_32)
    return schema


def integer_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of a whole number, bounded by its format and by BIGINT.

    A format with values beyond BIGINT is a finding unless the bounds keep them out.
    """
    schema = {"type": "integer", **_bounds(options, path, found)}
    low, high = _format_range(options.get("format", "i64"))
    if not _fits_bigint(schema, low, high):
        found.add(
            "INTEGER_TOO_WIDE",
            (*path, "format"),
            f"A column holds {BIGINT[0]} to {BIGINT[1]}. Say minimum and maximum within it, or use a string.",
        )
    _tighten(schema, max(low, BIGINT[0]), min(high, BIGINT[1]))
    return schema


def boolean_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of true or false; it takes no options."""
    for option in options:
        found.add("OPTION_UNSUPPORTED", (*path, option), "A boolean takes no options. Leave it out.")
    return {"type": "boolean"}


def check_order(options: Mapping[str, Any], low: str, high: str, path: Path, found: Findings) -> None:
    """Add a finding when a lower limit lies above the upper one: no value could ever be right."""
    if low in options and high in options and options[low] > options[high]:
        found.add("OPTIONS_CONTRADICT", path, f"{low} is above {high}: no value can be valid. Mend one of them.")


def _bounds(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    for low in _LOWER:
        for high in _UPPER:
            check_order(options, low, high, path, found)
    return {keyword: options[keyword] for keyword in (*_LOWER, *_UPPER, "multipleOf") if keyword in options}


def _format_range(text: str) -> tuple[int, int]:
    match = _INTEGER_FORMAT.fullmatch(text)
    if match is None:
        return BIGINT
    bits = int(match[2])
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if match[1] == "i" else (0, (1 << bits) - 1)


def _fits_bigint(schema: Mapping[str, Any], low: int, high: int) -> bool:
    lowest = max([low, *(schema[key] for key in _LOWER if key in schema)])
    highest = min([high, *(schema[key] for key in _UPPER if key in schema)])
    return bool(lowest >= BIGINT[0] and highest <= BIGINT[1])


def _tighten(schema: dict[str, Any], low: float, high: float) -> None:
    """Add the limits that the bounds do not already imply."""
    if not any(schema[key] >= low for key in _LOWER if key in schema):
        schema["minimum"] = low
    if not any(schema[key] <= high for key in _UPPER if key in schema):
        schema["maximum"] = high
