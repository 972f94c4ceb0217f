"""Record rules: custom quality rules whose engine is `cel`, of a dataset or of one of its properties.

Each is about one record by itself. What SQL and library rules say of a dataset as a whole is compiled elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from counterfoil_chassis.jsonpath import json_path

from counterfoil_contracts.entities import RecordRule
from counterfoil_contracts.odcs.expressions import Each, ExpressionError, Step, checked, over_values
from counterfoil_contracts.odcs.findings import Findings, Path

ENGINE: Final = "cel"
MOST_RULES: Final = 50
MOST_TEXT: Final = 50_000
"""Characters of all expressions of a dataset together, which are evaluated as one."""


def record_rules(node: Mapping[str, Any], path: Path, found: Findings) -> tuple[RecordRule, ...]:
    """Return the rules of one `schema[]` object, its own first, then those of its properties in document order."""
    rules: list[RecordRule] = []
    names: set[str] = set()
    for steps, owner, place in _owners(node, path):
        for index, quality in enumerate(owner.get("quality", [])):
            if quality.get("type") != "custom" or quality["engine"].casefold() != ENGINE:
                continue
            rule_place: Path = (*place, "quality", index)
            rule = _rule(quality, steps, rule_place, found)
            if rule is None:
                continue
            if rule.rule_id in names:
                found.add("RULE_TWICE", rule_place, "Another rule of this dataset has the id or name. Give it another.")
            names.add(rule.rule_id)
            rules.append(rule)
    if len(rules) > MOST_RULES or sum(len(each.expression) for each in rules) > MOST_TEXT:
        found.add("TOO_MANY_RULES", path, f"A dataset has at most {MOST_RULES} rules, {MOST_TEXT} characters in all.")
    return tuple(rules)


def _owners(node: Mapping[str, Any], path: Path) -> Iterator[tuple[tuple[Step, ...], Mapping[str, Any], Path]]:
    """Yield what can have quality rules: where in a record, the node, and where in the document."""
    waiting: list[tuple[tuple[Step, ...], Mapping[str, Any], Path]] = [((), node, path)]
    while waiting:
        steps, owner, place = waiting.pop()
        yield steps, owner, place
        waiting.extend(reversed(list(_inner(steps, owner, place))))


def _inner(
    steps: tuple[Step, ...], node: Mapping[str, Any], place: Path
) -> Iterator[tuple[tuple[Step, ...], Mapping[str, Any], Path]]:
    properties: Sequence[Mapping[str, Any]] = node.get("properties", [])
    for index, inner in enumerate(properties):
        yield (*steps, inner["name"]), inner, (*place, "properties", index)
    if "items" in node:
        yield (*steps, Each.ITEM), node["items"], (*place, "items")
    if "map" in node:
        yield (*steps, Each.VALUE), node["map"]["value"], (*place, "map", "value")


def _rule(quality: Mapping[str, Any], steps: Sequence[Step], place: Path, found: Findings) -> RecordRule | None:
    text = quality["implementation"]
    if not isinstance(text, str):
        found.add("RULE_INVALID", (*place, "implementation"), "A rule of the engine cel is a text: a CEL expression.")
        return None
    try:
        expression = checked(text, of_value=bool(steps))
        if steps:
            expression = over_values(expression, steps)
    except ExpressionError as error:
        found.add("RULE_INVALID", (*place, "implementation"), f"This is no CEL expression that can be used: {error}")
        return None
    shown = record_path(steps)
    return RecordRule(
        rule_id=quality.get("id") or quality.get("name") or f"{shown} {place[-1]}",
        expression=expression.text,
        description=quality.get("description", ""),
        severity=quality.get("severity", ""),
        path=shown,
        crossing=expression.crossing,
    )


def classifications(node: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the classified fields of one `schema[]` object: (JSON path in a record, classification), by path."""
    owners = _owners(node, ())
    return tuple(
        sorted(
            (record_path(steps), owner["classification"])
            for steps, owner, _ in owners
            if steps and owner.get("classification")
        )
    )


def record_path(steps: Sequence[Step]) -> str:
    """Return the JSON path of what steps lead to in a record, e.g. `$.items[*].price`."""
    return "$" + "".join("[*]" if isinstance(step, Each) else json_path((step,))[1:] for step in steps)
