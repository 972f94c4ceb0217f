"""promtool's tests of every alert: that it fires, that it does not, and that it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from tools.slo.definition import Definition, Objective, Part
from tools.slo.rules import rules


class Situation(Part):
    """What happens in a test of all objectives, in minutes and shares of it that are bad, and who is told then."""

    name: str
    course: list[tuple[int, Literal["none", "lightly", "twice", "all"]]]
    told: list[str]


SITUATIONS: Final = (
    Situation(name="all is well", course=[(60, "none")], told=[]),
    Situation(name="everything fails", course=[(60, "all")], told=["page", "ticket"]),
    Situation(name="twice the budget is used for hours", course=[(100, "twice")], told=["ticket"]),
    Situation(name="a short failure", course=[(354, "none"), (2, "lightly"), (2, "none")], told=[]),
    Situation(name="a failure that is over", course=[(60, "all"), (45, "none")], told=["ticket"]),
)


def objective_tests(found: Definition) -> dict[str, Any]:
    """Return promtool's tests of every objective's alerts, in every situation."""
    alerts = [rule for group in rules(found)["objectives"]["groups"] for rule in group["rules"] if "alert" in rule]
    tests = []
    for situation in SITUATIONS:
        minutes = sum(length for length, _ in situation.course)
        series = {name: values for each in found.objectives for name, values in _series(each, situation)}
        checks = [_check(minutes, rule, {}, fires=rule["labels"]["severity"] in situation.told) for rule in alerts]
        tests.append(_test(situation.name, series, checks))
    return {"rule_files": ["../rules/objectives.yaml"], "evaluation_interval": "2m", "tests": tests}


def condition_tests(found: Definition) -> dict[str, Any]:
    """Return promtool's tests of every alert on a condition: its series that fire it, and those that must not."""
    [group] = rules(found)["conditions"]["groups"]
    tests = []
    for alert, rule in zip(found.conditions(), group["rules"], strict=True):
        for fires, series in ((True, alert.fires), (False, alert.silent)):
            name = f"{alert.name} {'fires' if fires else 'is silent'}"
            tests.append(_test(name, series, [_check(60, rule, alert.labels, fires=fires)]))
    return {"rule_files": ["../rules/conditions.yaml"], "evaluation_interval": "5m", "tests": tests}


def _test(name: str, series: Mapping[str, str], checks: Sequence[Any]) -> dict[str, Any]:
    given = [{"series": each, "values": values} for each, values in series.items()]
    return {"name": name, "interval": "1m", "input_series": given, "alert_rule_test": checks}


def _check(minutes: int, rule: Mapping[str, Any], labels: Mapping[str, str], *, fires: bool) -> dict[str, Any]:
    told = {
        "exp_labels": {**rule["labels"], **labels},
        "exp_annotations": {name: _filled(text, labels) for name, text in rule["annotations"].items()},
    }
    return {"eval_time": f"{minutes}m", "alertname": rule["alert"], "exp_alerts": [told] if fires else []}


def _filled(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)


def _series(each: Objective, situation: Situation) -> Iterator[tuple[str, str]]:
    """Yield the series of an objective in a situation, with promtool's values."""
    labels = f'{{job="counterfoil",{each.example.labels}'
    if each.gauge:
        name = each.gauge.partition("{")[0]
        yield f"{name}{labels}}}", " ".join(_gauge(each, situation))
        return
    shares = {"none": 0.0, "lightly": 0.1, "twice": 2 * each.budget, "all": 1.0}
    rates = [(minutes, round(10_000 * shares[share])) for minutes, share in situation.course]
    total, bad, good = (
        _counter([(n, 10_000) for n, _ in rates]),
        _counter(rates),
        _counter([(n, 10_000 - b) for n, b in rates]),
    )
    if each.failed:
        yield f"{each.requests}_total{labels},{each.example.good}}}", good
        if any(rate for _, rate in rates):
            yield f"{each.requests}_total{labels},{each.example.bad}}}", bad
    else:
        yield f"{each.requests}_duration_seconds_count{labels}}}", total
        yield f'{each.requests}_duration_seconds_bucket{labels},le="{each.slower_than}"}}', good


def _counter(rates: Sequence[tuple[int, int]]) -> str:
    value, parts = 0, []
    for minutes, rate in rates:
        parts.append(f"{value}+{rate}x{minutes - 1}")
        value += rate * minutes
    return " ".join(parts)


def _gauge(each: Objective, situation: Situation) -> Iterator[str]:
    """Yield values below and above the bound; a share of the time is one minute of it among many."""
    for minutes, share in situation.course:
        if share == "twice":
            bad = round(minutes * 2 * each.budget)
            yield f"0x{minutes // 2 - bad - 1} {2 * each.above + 1:g}x{bad - 1} 0x{minutes - minutes // 2 - 1}"
        else:
            yield f"{0 if share == 'none' else 2 * each.above + 1:g}x{minutes - 1}"
