"""Hold records against the rules of their contract, CEL expressions over a whole record.

All rules of a dataset are one list expression, so that a record costs one evaluation; only what does not keep all of
them is looked at rule by rule. A rule that cannot be evaluated (a field it reads is absent, or of another type) is not
kept: an error is never a pass.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cel_expr_python import cel

MOST_CROSSED: Final = 8_000_000
"""Bytes of a record times its commas. Beyond it a rule that holds items against the rest would take over 0.1 s."""

_RECORD: Final = "record"


class Fault(enum.Enum):
    """Why a record does not keep a rule."""

    BROKEN = "broken"
    ERROR = "error"
    TOO_MUCH = "too much"


@dataclass(frozen=True, slots=True)
class RecordRule:
    """One rule, about the property at a JSON path; a `crossing` one holds items of an array against other parts."""

    rule_id: str
    expression: str
    description: str
    path: str
    crossing: bool


class RecordRules:
    """The rules of one dataset, at least one of them."""

    def __init__(self, rules: Sequence[RecordRule]) -> None:
        """Compile them; raise ValueError for one that cannot be used."""
        environment = cel.NewEnv(variables={_RECORD: cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})
        try:
            truths = [_truth(environment, rule.expression) for rule in rules]
            self._each = [(rule, environment.compile(truth)) for rule, truth in zip(rules, truths, strict=True)]
            self._all = environment.compile(f"[{', '.join(truths)}]")
        except RuntimeError as error:
            raise ValueError(f"a record rule is unusable: {error}") from error
        self._kept = [True] * len(rules)
        self._crossing = any(rule.crossing for rule in rules)

    def keep(self, record: Mapping[str, Any], text: bytes) -> bool:
        """Tell whether a record, given with its JSON text, keeps every rule."""
        if self._crossing and _is_too_much(text):
            return False
        try:
            return bool(self._all.eval(data={_RECORD: record}).plain_value() == self._kept)
        except RuntimeError:  # CEL's own bounds
            return False

    def faults(self, record: Mapping[str, Any], text: bytes) -> Iterator[tuple[RecordRule, Fault]]:
        """Yield each rule that a record does not keep."""
        for rule, expression in self._each:
            if rule.crossing and _is_too_much(text):
                yield rule, Fault.TOO_MUCH
                continue
            try:
                kept = expression.eval(data={_RECORD: record}).plain_value()
            except RuntimeError:
                kept = None
            if kept is not True:
                yield rule, Fault.BROKEN if kept is False else Fault.ERROR


def _truth(environment: cel.Env, expression: str) -> str:
    """Return an expression that is true, false or an error, even where the type of the one given is not known."""
    is_truth = environment.compile(expression).return_type() == cel.Type.BOOL
    return f"(\n{expression}\n)" if is_truth else f"((\n{expression}\n) == true)"


def _is_too_much(text: bytes) -> bool:
    return len(text) * text.count(b",") > MOST_CROSSED
