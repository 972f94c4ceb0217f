"""Dashboards of Grafana 12 from a list of panels: its classic JSON model, with ids that stay."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Final = 41
"""What Grafana 12.1 writes; it brings an older one up to date when it reads it, a newer one it refuses."""
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _ACROSS = 8, 8, 3
_TYPES: Final = {"lines": "timeseries", "stat": "stat", "bar": "bargauge"}


class Panel(BaseModel):
    """One panel: expressions by what their lines are called."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    kind: Literal["lines", "stat", "bar"] = "lines"
    unit: str
    show: dict[str, str]
    help: str = ""


class Dashboard(BaseModel):
    """One dashboard; `per_service` lets the reader choose the services, as `$service` in expressions."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    uid: str
    title: str
    per_service: bool = False
    panels: list[Panel]


def filled(expression: str) -> str:
    """Return an expression of a panel as Grafana asks it: all services, five minutes."""
    return expression.replace("$__rate_interval", "5m").replace("$service", ".*")


def document(board: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["counterfoil"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Counterfoil", "tags": ["counterfoil"], "asDropdown": True}],
        "templating": {"list": [_source_variable(), *([_service_variable()] if board.per_service else [])]},
        "panels": [_panel(panel, number) for number, panel in enumerate(board.panels)],
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _service_variable() -> dict[str, Any]:
    query = 'label_values(counterfoil_event_loop_lag_seconds_count{job="counterfoil"}, service)'
    return {
        "name": "service",
        "label": "Service",
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "services"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    row, column = divmod(number, _ACROSS)
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if panel.kind == "lines":
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number + 1,
        "type": _TYPES[panel.kind],
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for place, (legend, expr) in enumerate(panel.show.items())
        ],
    }
