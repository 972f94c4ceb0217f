"""What is generated from slo.yaml: wrong expressions are refused, dashboards have Grafana's shape, tests notice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.observability.conftest import FOLDER, NO_PROMETHEUS, ROOT
from tools.slo.checks import check_names
from tools.slo.dashboards import SCHEMA_VERSION
from tools.slo.definition import load

SOURCE = {"type": "object", "required": ["type", "uid"], "properties": {"uid": {"const": "${datasource}"}}}
TARGET = {
    "type": "object",
    "required": ["refId", "expr", "datasource"],
    "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": {"type": "string", "minLength": 1}, "datasource": SOURCE},
}
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig", "options"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["timeseries", "stat", "bargauge"]},
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "properties": {"x": {"maximum": 23}, "w": {"minimum": 1, "maximum": 24}, "h": {"minimum": 1}},
        },
        "fieldConfig": {"type": "object", "required": ["defaults", "overrides"]},
        "targets": {"type": "array", "minItems": 1, "items": TARGET},
        "datasource": SOURCE,
    },
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time", "annotations"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "id": False,
        "schemaVersion": {"const": SCHEMA_VERSION},
        "panels": {"type": "array", "items": PANEL},
        "templating": {"type": "object", "required": ["list"]},
    },
}
"""Of Grafana's classic dashboard JSON what ours must have: https://grafana.com/docs/grafana/v12.1/dashboards/build-dashboards/view-dashboard-json-model/"""
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))


@pytest.mark.parametrize(
    "expression",
    [
        'max(counterfoil_lake_behind_seconds{job="counterfoil"})',
        'sum by (workspace) (counterfoil_outbox_messages{job="counterfoil"})',
        'counterfoil_watch_age_seconds{topic="receipts"}',
        "vector(1) > 0",
    ],
)
def test_an_expression_that_names_what_nobody_exports_is_refused(expression: str) -> None:
    assert check_names(load(), {"somewhere": expression})


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_has_the_shape_that_grafana_reads(file: Path) -> None:
    document: dict[str, Any] = json.loads(file.read_text())
    jsonschema.validate(document, DASHBOARD)
    variables = {each["name"] for each in document["templating"]["list"]}
    assert set(re.findall(r"\$(?!__)(\w+)|\${(\w+)}", file.read_text())) <= {(v, "") for v in variables} | {
        ("", v) for v in variables
    }
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    places = [panel["gridPos"] for panel in document["panels"]]
    cells = {(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
    assert len(cells) == sum(p["w"] * p["h"] for p in places), "panels overlap"


def test_uids_are_unique_and_every_dashboard_is_one_of_slo_yaml() -> None:
    assert [json.loads(file.read_text())["uid"] for file in DASHBOARDS] == sorted(
        {board.uid for board in load().dashboards}
    )


def test_every_runbook_is_listed() -> None:
    listed = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    for file in (ROOT / "docs" / "runbooks").glob("*.md"):
        assert file.name == "README.md" or f"({file.name})" in listed, file.name


BREAKS = {
    "a bound that is never reached": (
        "conditions.yaml",
        "ServiceAwayGateway fires",
        (r'(up{job="counterfoil",service="gateway"}) == 1', r"\1 > -1"),
    ),
    "a page that ignores its long windows": ("objectives.yaml", "a short failure", (r"> 0\.0\d+ and", "> 0 and")),
    "a failure that does not count": ("objectives.yaml", "everything fails", (r"5\.\.", "6..")),
}
"""Mistakes in a file of rules, and the unit test that notices."""


@pytest.mark.parametrize("mistake", BREAKS)
def test_the_rules_unit_tests_notice(mistake: str, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip(NO_PROMETHEUS)
    file, name, (pattern, instead) = BREAKS[mistake]
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    tests = yaml.safe_load((FOLDER / "tests" / file).read_text())
    tests["tests"] = [each for each in tests["tests"] if each["name"] == name]
    (tmp_path / "tests" / file).write_text(yaml.safe_dump(tests))
    broken, times = re.subn(pattern, instead, (FOLDER / "rules" / file).read_text())
    assert times
    (tmp_path / "rules" / file).write_text(broken)
    command = ["promtool", "test", "rules", tmp_path / "tests" / file]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "FAILED" in ran.stdout + ran.stderr
