"""Quality rules of a dataset as a whole as SQL: DuckDB's dialect, which is what ingest runs over the lake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.scalars import is_pattern

LONGEST_QUERY: Final = 20_000

_NUMBERS: Final = frozenset({"integer", "number"})
_COMPOSITE: Final = frozenset({"object", "array", "map", "vector"})
_PLACE: Final = re.compile(r"\$?\{(object|table|property|column)\}")
_BEYOND_RE2: Final = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9k]")
_MOST_DEPTH: Final = 100
_TOO_DEEP: Final = "it nests too deep"
_MOST_VALUES: Final = 1_000


@dataclass(frozen=True)
class Subject:
    """What a rule is about: a dataset, or the property of it at `steps`, whose first one is the column."""

    dataset: str
    steps: tuple[str, ...] = ()
    kind: str = ""

    @property
    def title(self) -> str:
        """Return the property as people write it, e.g. `context.page`."""
        return ".".join(self.steps)

    @property
    def is_column(self) -> bool:
        """Tell whether a column of its type holds it, and not the JSON text of an object around it."""
        return len(self.steps) == 1 and self.kind not in _COMPOSITE

    @property
    def expression(self) -> str:
        """Return the SQL of its value: a column, or the text of what lies in a JSON column."""
        column = identifier(self.steps[0])
        if len(self.steps) == 1:
            return column
        pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in self.steps[1:])
        return f"json_extract_string({column}, {literal(pointer)})"


def identifier(name: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL quotes it."""
    return "'" + text.replace("'", "''") + "'"


def measure(metric: str, rule: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> str:
    """Return the aggregate that counts what a library metric counts, "" with a finding where there is none."""
    arguments = rule.get("arguments", {})
    if metric == "rowCount":
        return "count(*)"
    if metric == "duplicateValues" and (not subject.steps or "properties" in arguments):
        return _duplicate_rows(arguments, subject, (*path, "arguments", "properties"), found)
    if not subject.steps:
        found.add("QUALITY_PLACE", path, f"{metric} is about one property: state it there, or as sql.")
        return ""
    return _OF_PROPERTY[metric](arguments, subject, (*path, "arguments"), found)


def query(rule: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> str:
    """Return the SELECT of an sql rule with its placeholders filled in, "" with a finding when it is none."""
    text, place = str(rule["query"]), (*path, "query")
    named = {each[1] for each in _PLACE.finditer(text)}
    if named & {"property", "column"} and not subject.steps:
        found.add("QUALITY_QUERY", place, "The rule stands at the dataset: there is no property to put in.")
        return ""
    filled = _PLACE.sub(
        lambda each: subject.dataset if each[1] in ("object", "table") else subject.expression, text
    ).strip()
    if len(filled) > LONGEST_QUERY:
        found.add("QUALITY_QUERY", place, f"A query holds at most {LONGEST_QUERY} characters.")
    elif problem := _problem_of(filled):
        found.add("QUALITY_QUERY", place, f"This is not one SELECT in the SQL of DuckDB: {problem}")
    else:
        return filled
    return ""


def _problem_of(text: str) -> str:
    if _depth(text) > _MOST_DEPTH:
        return _TOO_DEEP
    import sqlglot  # noqa: PLC0415 - a third of a second at start, for documents that have such rules only
    from sqlglot import errors, exp  # noqa: PLC0415

    try:
        parsed = sqlglot.parse(text, dialect="duckdb")
    except (errors.ParseError, errors.TokenError) as error:
        return str(error).splitlines()[0][:200]
    except RecursionError:
        return _TOO_DEEP
    statements = [each for each in parsed if each is not None]
    return "" if len(statements) == 1 and isinstance(statements[0], exp.Query) else "it is something else"


def _depth(text: str) -> int:
    """Return how deep brackets nest, at most; those within quotes count, too, which nobody writes by the hundred."""
    steps = (1 if each in "([{" else -1 for each in text if each in "()[]{}")
    return max(accumulate(steps), default=0)


def _duplicate_rows(arguments: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> str:
    names = arguments.get("properties", [])
    if not isinstance(names, list) or not names or not all(isinstance(each, str) and each for each in names):
        found.add("QUALITY_ARGUMENT", path, "properties lists the properties that together must not repeat.")
        return ""
    row = ", ".join(identifier(each) for each in names)
    return f"count(*) - count(DISTINCT ({row},))" if len(names) == 1 else f"count(*) - count(DISTINCT ({row}))"


def _nulls(_arguments: Mapping[str, Any], subject: Subject, _path: Path, _found: Findings) -> str:
    return f"count(*) FILTER (WHERE {subject.expression} IS NULL)"


def _missing(arguments: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> str:
    values = _listed(arguments.get("missingValues", [None]), (*path, "missingValues"), found)
    tests = [f"{subject.expression} IS NULL"] if None in values else []
    if texts := _literals(values, subject):
        tests.append(f"{subject.expression} IN ({', '.join(texts)})")
    return f"count(*) FILTER (WHERE {' OR '.join(tests) or 'false'})"


def _invalid(arguments: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> str:
    value, tests = subject.expression, []
    if "validValues" in arguments:
        texts = _literals(_listed(arguments["validValues"], (*path, "validValues"), found), subject)
        tests.append(f"{value} NOT IN ({', '.join(texts)})" if texts else f"{value} IS NOT NULL")
    if "pattern" in arguments and _can_match(arguments["pattern"], subject, (*path, "pattern"), found):
        tests.append(f"NOT regexp_matches({value}, {literal(arguments['pattern'])})")
    if not tests and not found:
        found.add("QUALITY_ARGUMENT", path, "invalidValues needs validValues or a pattern.")
    return f"count(*) FILTER (WHERE {' OR '.join(tests) or 'false'})"


def _duplicates(_arguments: Mapping[str, Any], subject: Subject, _path: Path, _found: Findings) -> str:
    return f"count({subject.expression}) - count(DISTINCT {subject.expression})"


_Make = Callable[[Mapping[str, Any], Subject, Path, Findings], str]

_OF_PROPERTY: Final[Mapping[str, _Make]] = {
    "nullValues": _nulls,
    "missingValues": _missing,
    "invalidValues": _invalid,
    "duplicateValues": _duplicates,
}


def _listed(values: Any, path: Path, found: Findings) -> Sequence[Any]:
    plain = isinstance(values, list) and not any(isinstance(each, list | dict) for each in values)
    if plain and len(values) <= _MOST_VALUES:
        return list(values)
    found.add("QUALITY_ARGUMENT", path, f"This is a list of at most {_MOST_VALUES} plain values.")
    return []


def _literals(values: Sequence[Any], subject: Subject) -> list[str]:
    """Return those of the values that the property can hold, as SQL compares its expression with them."""
    if subject.is_column and subject.kind in _NUMBERS:
        return [repr(each) for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    if subject.is_column and subject.kind == "boolean":
        return [str(each).lower() for each in values if isinstance(each, bool)]
    texts = [each if isinstance(each, str) else json.dumps(each) for each in values if each is not None]
    return [literal(each) for each in texts]


def _can_match(pattern: Any, subject: Subject, path: Path, found: Findings) -> bool:
    if subject.kind != "string":
        found.add("QUALITY_ARGUMENT", path, "A pattern is for strings only. Use validValues, or sql.")
    elif is_pattern(pattern, path, found):
        if not _BEYOND_RE2.search(pattern):
            return True
        detail = "A share of records is counted by RE2, which knows no lookaround and no backreference."
        found.add("PATTERN_INVALID", path, detail)
    return False
