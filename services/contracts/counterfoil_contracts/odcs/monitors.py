"""What a document promises of its datasets as wholes: quality rules that no single record can break, service levels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cronsim import CronSim, CronSimError

from counterfoil_contracts.entities import (
    DatasetMonitors,
    DatasetRule,
    LevelProperty,
    MonitorPlan,
    Operator,
    ServiceLevel,
)
from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.measures import Subject, measure, query
from counterfoil_contracts.odcs.quality import is_for_each_record

LONGEST_NAME: Final = 100
MOST_MONITORS: Final = 200
"""Of one dataset."""

_OPERATORS: Final = {
    "mustBe": Operator.EQUAL,
    "mustNotBe": Operator.NOT_EQUAL,
    "mustBeGreaterThan": Operator.GREATER,
    "mustBeGreaterOrEqualTo": Operator.AT_LEAST,
    "mustBeLessThan": Operator.LESS,
    "mustBeLessOrEqualTo": Operator.AT_MOST,
    "mustBeBetween": Operator.BETWEEN,
    "mustNotBeBetween": Operator.NOT_BETWEEN,
}
_LEVELS: Final = {each.value.lower(): each for each in LevelProperty}
_TIMES: Final = frozenset({LevelProperty.LATENCY, LevelProperty.FREQUENCY, LevelProperty.RETENTION})
_AGED: Final = frozenset({LevelProperty.LATENCY, LevelProperty.RETENTION})
_SECONDS: Final = {
    name: seconds
    for names, seconds in (
        ("s sec second seconds", 1),
        ("min minute minutes", 60),
        ("h hr hour hours", 3600),
        ("d day days", 86_400),
        ("w week weeks", 7 * 86_400),
        ("mo month months", 30 * 86_400),
        ("y yr year years", 365 * 86_400),
    )
    for name in names.split()
}
_DURATION: Final = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]+)\s*")
_LONGEST_SECONDS: Final = 100 * 365 * 86_400
_CRON_FIELDS: Final = 5
_LONGEST_SCHEDULE: Final = 200
_ANY_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_OPTIONS: Final = ("dataBreaker", "autoResume")


def compile_monitors(document: Mapping[str, Any], found: Findings) -> Mapping[str, DatasetMonitors]:
    """Return what is to be watched of each dataset, by its name, and add a finding for what cannot be."""
    owner = _owner(document)
    nodes = document.get("schema", [])
    made = {node["name"]: _Making() for node in nodes}
    for index, node in enumerate(nodes):
        for rule, subject, path in _rules(node, ("schema", index)):
            made[node["name"]].add_rule(rule, subject, path, found)
    for index, level in enumerate(document.get("slaProperties", []) if nodes else []):
        _add_level(level, ("slaProperties", index), nodes, made, found)
    for index, node in enumerate(nodes):
        if made[node["name"]].count > MOST_MONITORS:
            found.add("TOO_MANY_RULES", ("schema", index), f"A dataset has at most {MOST_MONITORS} rules and levels.")
    return {name: DatasetMonitors(owner, tuple(each.rules), tuple(each.levels)) for name, each in made.items()}


@dataclass
class _Making:
    rules: list[DatasetRule] = field(default_factory=list)
    levels: list[ServiceLevel] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        return len(self.rules) + len(self.levels)

    def add_rule(self, rule: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> None:
        is_sql = rule.get("type") == "sql"
        metric = "sql" if is_sql else rule["metric"]
        fallback = f"{subject.title}.{metric}" if subject.steps else metric
        plan = self.plan(rule, fallback, path, found)
        bounds = _bounds(rule, path, found)
        percent = not is_sql and str(rule.get("unit", "")).lower() in ("percent", "%")
        if percent and metric == "rowCount":
            found.add("QUALITY_UNIT", (*path, "unit"), "rowCount counts rows; a share of themselves is always 100.")
        if is_sql and plan.window_seconds:
            found.add("MONITOR_OPTION", path, "An sql rule says itself which rows it reads, e.g. by _received_at.")
        aggregate = "" if is_sql else measure(metric, rule, subject, path, found)
        select = query(rule, subject, path, found) if is_sql else ""
        if bounds and (aggregate or select):
            operator, numbers = bounds
            made = DatasetRule(plan, metric, subject.title, aggregate, select, operator, numbers, percent)
            self.rules.append(made)

    def plan(self, node: Mapping[str, Any], fallback: str, path: Path, found: Findings) -> MonitorPlan:
        name = self._unused(str(node.get("id") or node.get("name") or fallback))
        customs = _customs(node)
        for option in _OPTIONS:
            if not isinstance(customs.get(option, False), bool):
                found.add("MONITOR_OPTION", (*path, "customProperties"), f"{option} is true or false.")
        window = customs.get("window", "")
        seconds = _duration(str(window)) if window else 0
        if seconds is None:
            found.add("MONITOR_OPTION", (*path, "customProperties"), "window is a time such as 24h or 7d.")
        return MonitorPlan(
            name=name,
            description=str(node.get("description") or node.get("name") or "")[:1000],
            severity=str(node.get("severity", ""))[:100],
            schedule=_schedule(node, path, found),
            data_breaker=customs.get("dataBreaker") is True,
            auto_resume=customs.get("autoResume") is True,
            window_seconds=seconds or 0,
        )

    def _unused(self, wanted: str) -> str:
        """Return a name that can stand in a path, not used before; the same document gives the same names."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", wanted)[:LONGEST_NAME].strip("-.") or "rule"
        number, made = 1, name
        while made.casefold() in self._names:
            number += 1
            made = f"{name}-{number}"
        self._names.add(made.casefold())
        return made


def _rules(node: Mapping[str, Any], path: Path) -> Iterator[tuple[Mapping[str, Any], Subject, Path]]:
    """Yield the rules of a dataset that say something of it as a whole, with what each is about."""
    dataset = node["name"]
    yield from _of(node, Subject(dataset), path)
    waiting: list[tuple[Mapping[str, Any], tuple[str, ...], Path]]
    waiting = [(each, (), (*path, "properties", at)) for at, each in enumerate(node.get("properties", []))]
    while waiting:
        each, above, place = waiting.pop(0)
        steps = (*above, each["name"])
        yield from _of(each, Subject(dataset, steps, each["logicalType"]), place)
        below = each.get("properties", []) if each["logicalType"] == "object" else []
        waiting += [(child, steps, (*place, "properties", at)) for at, child in enumerate(below)]


def _of(node: Mapping[str, Any], subject: Subject, path: Path) -> Iterator[tuple[Mapping[str, Any], Subject, Path]]:
    for index, rule in enumerate(node.get("quality", [])):
        is_library = "metric" in rule
        # What must be 0 of a property's values is refused record by record, and cannot come about.
        if rule.get("type") == "sql" or (is_library and not (subject.steps and is_for_each_record(rule))):
            yield rule, subject, (*path, "quality", index)


def _add_level(
    node: Mapping[str, Any],
    path: Path,
    datasets: Sequence[Mapping[str, Any]],
    made: Mapping[str, _Making],
    found: Findings,
) -> None:
    level = _LEVELS.get(str(node["property"]).lower())
    value = _number(node["value"])
    if level is None or value is None:
        if _customs(node).get("dataBreaker"):
            known = ", ".join(each.value for each in LevelProperty)
            found.add("SLA_NOT_RUN", path, f"Only {known} with a number for a value can be watched and hold data.")
        return  # prose, or what concerns people: kept with the document
    limit = _limit(level, value, node, path, found)
    for dataset, column in _elements(node, level, path, datasets, found):
        plan = made[dataset].plan(node, level.value, path, found)
        if limit is not None:
            seconds, percent = (limit, 0.0) if level in _TIMES else (0.0, limit)
            made[dataset].levels.append(ServiceLevel(plan, level, column, seconds, percent))


def _limit(level: LevelProperty, value: float, node: Mapping[str, Any], path: Path, found: Findings) -> float | None:
    unit = str(node.get("unit", "")).strip().lower()
    if level not in _TIMES:
        if unit in ("", "percent", "%") and 0 <= value <= 100:
            return value
        found.add("SLA_VALUE", path, f"{level.value} is a share from 0 to 100 in percent.")
        return None
    seconds = _duration(f"{value:.6f}{unit}")
    if seconds is None:
        found.add("SLA_VALUE", path, f"{level.value} is a time above 0 in s, min, h, d, w, months or y.")
    return seconds


def _elements(
    node: Mapping[str, Any],
    level: LevelProperty,
    path: Path,
    datasets: Sequence[Mapping[str, Any]],
    found: Findings,
) -> list[tuple[str, str]]:
    """Return the datasets, and the columns that tell their records' age, which a service level is about."""
    elements = [each.strip() for each in str(node.get("element", "")).split(",") if each.strip()]
    if not elements:
        return [(each["name"], "") for each in datasets]
    result = []
    for element in elements:
        places = _places(element, datasets)
        if not places:
            found.add("ELEMENT_UNKNOWN", (*path, "element"), "Name a dataset of this contract, or dataset.property.")
        for dataset, column in places:
            aged = column if level in _AGED else None
            if aged is not None and aged["logicalType"] not in ("date", "timestamp"):
                found.add("ELEMENT_TYPE", (*path, "element"), "A date or a timestamp tells the age of a record.")
            result.append((dataset["name"], aged["name"] if aged is not None else ""))
    return list(dict.fromkeys(result))


def _places(
    element: str, datasets: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Find `dataset`, `dataset.property` or `property`; physical names count, too."""
    whole: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = [
        (each, None) for each in datasets if element in _names(each)
    ]
    if whole:
        return whole
    head, _, tail = element.rpartition(".")
    named = [(dataset, each) for dataset in datasets for each in dataset.get("properties", []) if tail in _names(each)]
    exact = [(dataset, each) for dataset, each in named if head in _names(dataset)]
    return list(exact or named)


def _names(node: Mapping[str, Any]) -> tuple[Any, ...]:
    return node["name"], node.get("physicalName")


def _bounds(rule: Mapping[str, Any], path: Path, found: Findings) -> tuple[Operator, tuple[float, ...]] | None:
    name = next(each for each in _OPERATORS if each in rule)
    values = rule[name] if isinstance(rule[name], list) else [rule[name]]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in values):
        found.add("QUALITY_BOUND", (*path, name), "What a dataset as a whole is measured by is a number.")
        return None
    numbers = tuple(float(each) for each in values)
    if list(numbers) != sorted(numbers):
        found.add("QUALITY_BOUND", (*path, name), "The smaller number comes first.")
        return None
    return _OPERATORS[name], numbers


def _schedule(node: Mapping[str, Any], path: Path, found: Findings) -> str:
    text = str(node.get("schedule", ""))
    if not text or str(node.get("scheduler", "cron")).lower() != "cron":
        return ""  # another scheduler's business; here it is looked at every period
    if len(text) <= _LONGEST_SCHEDULE and len(text.split()) == _CRON_FIELDS:  # more would be seconds
        with suppress(CronSimError, StopIteration):
            next(CronSim(text, _ANY_DAY))
            return text
    found.add("SCHEDULE_INVALID", (*path, "schedule"), "A schedule is five fields of cron, e.g. 0 6 * * mon-fri.")
    return ""


def _customs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {each["property"]: each["value"] for each in node.get("customProperties", [])}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _duration(text: str) -> float | None:
    parts = _DURATION.fullmatch(text.lower())
    seconds = float(parts[1]) * _SECONDS.get(parts[2], 0) if parts else 0.0
    return seconds if 0 < seconds <= _LONGEST_SECONDS else None


def _owner(document: Mapping[str, Any]) -> str:
    """Return who is responsible: the team, or of a list of people (ODCS before 3.1) the owner, or the first one."""
    team = document.get("team") or {}
    if isinstance(team, Mapping):
        name, members = team.get("name", ""), team.get("members", [])
    else:
        name, members = "", team
    owners = [each for each in members if "owner" in str(each.get("role", "")).lower()]
    people = [str(each["username"]) for each in (*owners, *members) if not each.get("dateOut")]
    return str(name or (people[0] if people else "") or document.get("domain", ""))[:200]
