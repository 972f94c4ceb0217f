"""What is promised of a dataset as a whole, as JSON in a column."""

from __future__ import annotations

from typing import Any

import orjson

from counterfoil_contracts.entities import (
    DatasetMonitors,
    DatasetRule,
    LevelProperty,
    MonitorPlan,
    Operator,
    ServiceLevel,
)


def monitors_json(monitors: DatasetMonitors) -> bytes:
    """Return the column's value."""
    return orjson.dumps(monitors)


def to_monitors(column: bytes | None) -> DatasetMonitors:
    """Read the column's value; none, of a version that an older release kept, promises nothing."""
    if column is None:
        return DatasetMonitors()
    values = orjson.loads(column)
    return DatasetMonitors(values["owner"], tuple(map(_rule, values["rules"])), tuple(map(_level, values["levels"])))


def _rule(values: dict[str, Any]) -> DatasetRule:
    changed = {
        "plan": MonitorPlan(**values["plan"]),
        "operator": Operator(values["operator"]),
        "bounds": tuple(values["bounds"]),
    }
    return DatasetRule(**values | changed)


def _level(values: dict[str, Any]) -> ServiceLevel:
    changed = {"plan": MonitorPlan(**values["plan"]), "property": LevelProperty(values["property"])}
    return ServiceLevel(**values | changed)
