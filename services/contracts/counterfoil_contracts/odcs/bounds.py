"""Bounds of fixed-width texts (`2026-11-23`, `08:30:00`) as regular expressions: their order is the order of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Any, Final

from counterfoil_contracts.odcs.findings import Findings, Path

BOUNDS: Final = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


@dataclass(frozen=True)
class Form:
    """A fixed-width form: what its texts look like, what may follow them, and whether such a text is a value."""

    shape: re.Pattern[str]
    any_tail: str
    zero_tail: str
    positive_tail: str

    def holds(self, text: str) -> bool:
        """Tell whether a bound is a value of this form."""
        if not self.shape.fullmatch(text):
            return False
        try:
            (date if "-" in text else time).fromisoformat(text)
        except ValueError:
            return False
        return True


DAY: Final = Form(re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "", "", r"[^\s\S]")
CLOCK: Final = Form(re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}"), r"(?:\.[0-9]+)?", r"(?:\.0+)?", r"\.[0-9]*[1-9][0-9]*")


def bound_patterns(options: Mapping[str, Any], form: Form, path: Path, found: Findings) -> list[dict[str, Any]]:
    """Return one `pattern` per bound; a bound that is no value of the form is a finding."""
    patterns = []
    for bound in BOUNDS:
        if bound not in options:
            continue
        if form.holds(options[bound]):
            patterns.append({"pattern": bound_pattern(bound, options[bound], form)})
        else:
            found.add("BOUND_INVALID", (*path, bound), "The bound is not a value of the property's own form.")
    return patterns


def refuse_bounds(options: Mapping[str, Any], path: Path, found: Findings, detail: str) -> None:
    """Add a finding for each bound that cannot be checked per record."""
    for bound in BOUNDS:
        if bound in options:
            found.add("BOUND_UNSUPPORTED", (*path, bound), detail)


def bound_pattern(bound: str, value: str, form: Form) -> str:
    """Return the expression that matches exactly the texts on the right side of the bound."""
    upwards = bound in {"minimum", "exclusiveMinimum"}
    equal = {
        "minimum": form.any_tail,
        "exclusiveMinimum": form.positive_tail,
        "maximum": form.zero_tail,
        "exclusiveMaximum": r"[^\s\S]",
    }[bound]
    beyond = "|".join(_beyond(value, upwards=upwards)) or r"[^\s\S]"
    return f"^(?:(?:{beyond}){form.any_tail}|{value}{equal})$"


def _beyond(value: str, *, upwards: bool) -> list[str]:
    """Return expressions for the texts above (or below) the value, by the first digit that differs."""
    result = []
    for index, digit in enumerate(value):
        edge = "9" if upwards else "0"
        if not digit.isdigit() or digit == edge:
            continue
        first, last = (int(digit) + 1, 9) if upwards else (0, int(digit) - 1)
        rest = "".join("[0-9]" if other.isdigit() else other for other in value[index + 1 :])
        result.append(f"{value[:index]}[{first}-{last}]{rest}")
    return result
