"""What compiled contracts promise of datasets as wholes, read from their messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from counterfoil.contracts.v1 import contracts_pb2 as pb

from counterfoil_ingest.monitors import (
    AVAILABILITY,
    ERROR_RATE,
    FREQUENCY,
    LATENCY,
    NO_PROMISES,
    RETENTION,
    SQL,
    Operator,
    Promise,
    Promises,
)

_LEVELS: Final = {
    pb.ServiceLevel.LATENCY: (LATENCY, Operator.AT_MOST),
    pb.ServiceLevel.FREQUENCY: (FREQUENCY, Operator.AT_MOST),
    pb.ServiceLevel.RETENTION: (RETENTION, Operator.AT_MOST),
    pb.ServiceLevel.AVAILABILITY: (AVAILABILITY, Operator.AT_LEAST),
    pb.ServiceLevel.ERROR_RATE: (ERROR_RATE, Operator.AT_MOST),
}
_OPERATORS: Final = frozenset(each.value for each in Operator)
_SHARES: Final = frozenset({AVAILABILITY, ERROR_RATE})


def promises_of(message: pb.CompiledContract) -> Promises:
    """Return what a compiled contract promises; what a newer contracts service says beyond this release is left out."""
    rules = [_of_rule(each) for each in message.dataset_rules if int(each.operator) in _OPERATORS and each.bounds]
    levels = [_of_level(each) for each in message.service_levels if each.property in _LEVELS]
    return Promises(message.owner, (*rules, *levels)) if rules or levels else NO_PROMISES


def _of_rule(rule: pb.DatasetRule) -> Promise:
    unit = "value" if rule.metric == SQL else "percent" if rule.percent else "rows"
    return Promise(
        **_planned(rule.plan),
        metric=rule.metric,
        operator=Operator(rule.operator),
        bounds=tuple(rule.bounds),
        unit=unit,
        about=rule.property,
        measure=rule.measure,
        query=rule.query,
    )


def _of_level(level: pb.ServiceLevel) -> Promise:
    metric, operator = _LEVELS[level.property]
    is_share = metric in _SHARES
    return Promise(
        **_planned(level.plan),
        metric=metric,
        operator=operator,
        bounds=(level.percent if is_share else level.limit.ToTimedelta().total_seconds(),),
        unit="percent" if is_share else "seconds",
        about=level.column,
        column=level.column,
    )


def _planned(plan: pb.MonitorPlan) -> Mapping[str, Any]:
    return {
        "name": plan.name,
        "description": plan.description,
        "severity": plan.severity,
        "schedule": plan.schedule,
        "data_breaker": plan.data_breaker,
        "auto_resume": plan.auto_resume,
        "window": plan.window.ToTimedelta().total_seconds(),
    }
