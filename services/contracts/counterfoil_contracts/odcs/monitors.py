"""What a document promises of its datasets as wholes: quality rules that no single record can break, service levels."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
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

MOST_SQL: Final = 100_000
"""Characters of all queries of a contract together."""

MOST_OF_DOCUMENT: Final = 2_000
"""Of all datasets of a contract together."""

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
    nodes = document.get("schema", [])
    places = _Places(nodes)
    queries = _Queries()
    made = {node["name"]: _Making(queries) for node in nodes}
    promises = chain(_every_rule(nodes, made, found), _every_level(document, places, made, found))
    for number, (dataset, add) in enumerate(promises):
        if number >= MOST_OF_DOCUMENT or made[dataset].count >= MOST_MONITORS:
            detail = f"A dataset has at most {MOST_MONITORS} rules and levels, a contract {MOST_OF_DOCUMENT}."
            found.add("TOO_MANY_RULES", ("schema",), detail)
            break
        add()
    owner = _owner(document)
    return {name: DatasetMonitors(owner, tuple(each.rules), tuple(each.levels)) for name, each in made.items()}


_Add = tuple[str, Callable[[], None]]
"""A promise before it is compiled: its dataset, and what compiles it."""


def _every_rule(nodes: Sequence[Mapping[str, Any]], made: Mapping[str, _Making], found: Findings) -> Iterator[_Add]:
    for index, node in enumerate(nodes):
        for rule, subject, path in _rules(node, ("schema", index), found):
            yield node["name"], partial(made[node["name"]].add_rule, rule, subject, path, found)


def _every_level(
    document: Mapping[str, Any], places: _Places, made: Mapping[str, _Making], found: Findings
) -> Iterator[_Add]:
    for index, node in enumerate(document.get("slaProperties", []) if made else []):
        path: Path = ("slaProperties", index)
        level, value = _LEVELS.get(str(node["property"]).lower()), _number(node["value"])
        if level is None or value is None:  # prose, or what concerns people: kept with the document
            if _customs(node).get("dataBreaker"):
                known = ", ".join(each.value for each in LevelProperty)
                found.add("SLA_NOT_RUN", path, f"Only {known} with a number for a value can be watched and hold data.")
            continue
        limit = _limit(level, value, node, path, found)
        for dataset, column in _elements(node, level, path, places, found):
            yield dataset, partial(made[dataset].add_level, node, path, found, level=level, column=column, limit=limit)


@dataclass
class _Queries:
    """How much SQL of a document may still be read: reading it costs a second per megabyte and more."""

    left: int = MOST_SQL

    def take(self, text: str, path: Path, found: Findings) -> bool:
        """Tell whether a query may be read; a finding says that it may not."""
        self.left -= len(text)
        if self.left < 0:
            found.add("QUALITY_QUERY", path, f"The queries of a contract hold at most {MOST_SQL} characters together.")
        return self.left >= 0


@dataclass
class _Making:
    queries: _Queries
    rules: list[DatasetRule] = field(default_factory=list)
    levels: list[ServiceLevel] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        return len(self._names)

    def add_level(
        self,
        node: Mapping[str, Any],
        path: Path,
        found: Findings,
        *,
        level: LevelProperty,
        column: str,
        limit: float | None,
    ) -> None:
        plan = self.plan(node, level.value, path, found)
        if limit is not None:
            seconds, percent = (limit, 0.0) if level in _TIMES else (0.0, limit)
            self.levels.append(ServiceLevel(plan, level, column, seconds, percent))

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
        select = query(rule, subject, path, found) if is_sql and self.queries.take(rule["query"], path, found) else ""
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


def _rules(node: Mapping[str, Any], path: Path, found: Findings) -> Iterator[tuple[Mapping[str, Any], Subject, Path]]:
    """Yield the rules of a dataset that say something of it as a whole, with what each is about."""
    dataset = node["name"]
    yield from _of(node, Subject(dataset), path)
    waiting: deque[tuple[Mapping[str, Any], tuple[str, ...], Path]] = deque()
    waiting.extend((each, (), (*path, "properties", at)) for at, each in enumerate(node.get("properties", [])))
    while waiting:
        each, above, place = waiting.popleft()
        subject = Subject(dataset, (*above, each["name"]), each["logicalType"])
        yield from _of(each, subject, place)
        below = each.get("properties", []) if subject.kind == "object" else []
        waiting.extend((child, subject.steps, (*place, "properties", at)) for at, child in enumerate(below))
        _refuse_within(each, subject, place, found)


def _refuse_within(node: Mapping[str, Any], subject: Subject, path: Path, found: Findings) -> None:
    """Add a finding for each rule about the items of an array or the values of a map: nothing counts those."""
    waiting: list[tuple[Mapping[str, Any], Path]] = [(node["items"], (*path, "items"))] if "items" in node else []
    if "map" in node:
        waiting.append((node["map"]["value"], (*path, "map", "value")))
    while waiting:
        each, place = waiting.pop()
        for _, _, rule_place in _of(each, subject, place):
            found.add("QUALITY_PLACE", rule_place, "Items of arrays are not counted: state it as sql, at the dataset.")
        waiting += [(child, (*place, "properties", at)) for at, child in enumerate(each.get("properties", []))]
        waiting += [(each["items"], (*place, "items"))] if "items" in each else []


def _of(node: Mapping[str, Any], subject: Subject, path: Path) -> Iterator[tuple[Mapping[str, Any], Subject, Path]]:
    for index, rule in enumerate(node.get("quality", [])):
        is_library = "metric" in rule
        # What must be 0 of a property's values is refused record by record, and cannot come about.
        if rule.get("type") == "sql" or (is_library and not (subject.steps and is_for_each_record(rule))):
            yield rule, subject, (*path, "quality", index)


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


class _Places:
    """The datasets of a document and their properties by the names that elements call them; physical names count."""

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        self.datasets = [each["name"] for each in datasets]
        self._datasets: defaultdict[str, list[str]] = defaultdict(list)
        self._properties: defaultdict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
        for dataset in datasets:
            for name in _names(dataset):
                self._datasets[name].append(dataset["name"])
            for each in dataset.get("properties", []):
                for name in _names(each):
                    self._properties[name].append((dataset["name"], each))

    def find(self, element: str) -> list[tuple[str, Mapping[str, Any] | None]]:
        """Return what `dataset`, `dataset.property` or `property` means."""
        if whole := self._datasets.get(element):
            return [(each, None) for each in whole]
        head, _, tail = element.rpartition(".")
        named = self._properties.get(tail, [])
        exact = [(dataset, each) for dataset, each in named if dataset in self._datasets.get(head, ())]
        return list(exact or named)


def _elements(
    node: Mapping[str, Any], level: LevelProperty, path: Path, places: _Places, found: Findings
) -> Iterator[tuple[str, str]]:
    """Yield the datasets, and the columns that tell their records' age, which a service level is about."""
    text = str(node.get("element", ""))
    elements = dict.fromkeys(each.strip() for each in text.split(",") if each.strip())
    if not elements:
        yield from ((each, "") for each in places.datasets)
    seen: set[tuple[str, str]] = set()
    for element in elements:
        meant = places.find(element)
        if not meant:
            found.add("ELEMENT_UNKNOWN", (*path, "element"), "Name a dataset of this contract, or dataset.property.")
        for dataset, node_of_column in meant:
            aged = node_of_column if level in _AGED else None
            if aged is not None and aged["logicalType"] not in ("date", "timestamp"):
                found.add("ELEMENT_TYPE", (*path, "element"), "A date or a timestamp tells the age of a record.")
            place = dataset, aged["name"] if aged is not None else ""
            if place not in seen:
                seen.add(place)
                yield place


def _names(node: Mapping[str, Any]) -> set[str]:
    return {node["name"], node.get("physicalName") or node["name"]}


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
