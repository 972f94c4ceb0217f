"""What is promised of a dataset as a whole, as the protos say it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from counterfoil.contracts.v1 import contracts_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from counterfoil_contracts.entities import DatasetRule, LevelProperty, MonitorPlan, ServiceLevel

_PROPERTIES: Final = {
    LevelProperty.LATENCY: pb.ServiceLevel.LATENCY,
    LevelProperty.FREQUENCY: pb.ServiceLevel.FREQUENCY,
    LevelProperty.RETENTION: pb.ServiceLevel.RETENTION,
    LevelProperty.AVAILABILITY: pb.ServiceLevel.AVAILABILITY,
    LevelProperty.ERROR_RATE: pb.ServiceLevel.ERROR_RATE,
}


def to_dataset_rule(rule: DatasetRule) -> pb.DatasetRule:
    """Return a quality rule of a dataset as a whole."""
    return pb.DatasetRule(
        plan=_plan(rule.plan),
        metric=rule.metric,
        property=rule.property,
        measure=rule.measure,
        query=rule.query,
        operator=pb.DatasetRule.Operator.Value(rule.operator.name),
        bounds=rule.bounds,
        percent=rule.percent,
    )


def to_service_level(level: ServiceLevel) -> pb.ServiceLevel:
    """Return a service level of a dataset."""
    return pb.ServiceLevel(
        plan=_plan(level.plan),
        property=_PROPERTIES[level.property],
        column=level.column,
        limit=_duration(level.seconds),
        percent=level.percent,
    )


def _plan(plan: MonitorPlan) -> pb.MonitorPlan:
    return pb.MonitorPlan(
        name=plan.name,
        description=plan.description,
        severity=plan.severity,
        schedule=plan.schedule,
        data_breaker=plan.data_breaker,
        auto_resume=plan.auto_resume,
        window=_duration(plan.window_seconds),
    )


def _duration(seconds: float) -> Duration | None:
    if not seconds:
        return None
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made
