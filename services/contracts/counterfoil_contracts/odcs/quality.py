"""Quality rules of a property that hold for each record by itself; the others concern a dataset as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.scalars import is_pattern

_NULL_METRICS: Final = frozenset({"nullValues", "missingValues"})
_RECORD_METRICS: Final = _NULL_METRICS | {"invalidValues"}


@dataclass
class RecordRules:
    """What quality rules demand of one value: that it is there, and schemas it must satisfy when it is not null."""

    required: bool = False
    schemas: list[dict[str, Any]] = field(default_factory=list)


def record_rules(
    quality: Sequence[Mapping[str, Any]], path: Path, found: Findings, *, fits: Callable[[Any], bool], text: bool
) -> RecordRules:
    """Return what the library metrics that must be 0 demand of each value.

    `fits` tells whether a value is of the property's type, `text` whether that type is a string.
    Tolerances (5 percent may be null), uniqueness, row counts, SQL and custom rules are not for single records.
    """
    rules = RecordRules()
    for index, rule in enumerate(quality):
        metric = rule.get("metric")
        if not is_for_each_record(rule):
            continue
        arguments = rule.get("arguments", {})
        place: Path = (*path, index, "arguments")
        if metric in _NULL_METRICS:
            missing = arguments.get("missingValues", [None]) if metric == "missingValues" else [None]
            _forbid_missing(rules, missing, (*place, "missingValues"), found)
        elif metric == "invalidValues":
            rules.schemas.extend(_valid_values(arguments, place, found, fits=fits))
            rules.schemas.extend(_valid_pattern(arguments, place, found, text=text))
    return rules


def is_for_each_record(rule: Mapping[str, Any]) -> bool:
    """Tell whether a property's rule is kept by refusing each record that breaks it."""
    return rule.get("metric") in _RECORD_METRICS and _must_be_zero(rule)


def _must_be_zero(rule: Mapping[str, Any]) -> bool:
    limits = [rule[operator] for operator in ("mustBe", "mustBeLessOrEqualTo") if operator in rule]
    return any(limit == 0 and not isinstance(limit, bool) for limit in limits)


def _forbid_missing(rules: RecordRules, missing: Any, path: Path, found: Findings) -> None:
    if not isinstance(missing, list):
        found.add("QUALITY_ARGUMENT", path, "missingValues is a list of the values that count as missing.")
        return
    if None in missing:
        rules.required = True
    if texts := [value for value in missing if value is not None]:
        rules.schemas.append({"not": {"enum": texts}})


def _valid_values(
    arguments: Mapping[str, Any], path: Path, found: Findings, *, fits: Callable[[Any], bool]
) -> Iterator[dict[str, Any]]:
    if "validValues" not in arguments:
        return
    values = arguments["validValues"]
    valid = [value for value in values if fits(value)] if isinstance(values, list) else []
    if valid:
        yield {"enum": valid}
    else:
        found.add("QUALITY_ARGUMENT", (*path, "validValues"), "validValues lists values of the property's type.")


def _valid_pattern(
    arguments: Mapping[str, Any], path: Path, found: Findings, *, text: bool
) -> Iterator[dict[str, Any]]:
    if "pattern" not in arguments:
        return
    if not text:
        found.add("QUALITY_ARGUMENT", (*path, "pattern"), "A pattern is for strings only. Use minimum and maximum.")
    elif is_pattern(arguments["pattern"], (*path, "pattern"), found):
        yield {"pattern": arguments["pattern"]}
