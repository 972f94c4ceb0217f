"""Whether expressions can be true at all: they name what processes export, and promtool understands them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from tempfile import NamedTemporaryFile
from typing import Final

import yaml

from tools.slo import dashboards
from tools.slo.definition import FOLDER, ROOT, Definition
from tools.slo.rules import rules

TARGET_LABELS: Final = {"job", "service", "instance"}
_OF_PROCESSES: Final = ("start_time_seconds", "resident_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds")
_WORDS: Final = frozenset(
    """sum max min avg count by without on ignoring and or unless bool rate increase delta changes absent vector time
    topk histogram_quantile sum_over_time avg_over_time""".split()  # noqa: SIM905 - a list of them would be a page
)
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[a-zA-Z_:][\w:]*|\d+(?:\.\d+)?(?:e\d+)?|\S')


def check_names(found: Definition, expressions: Mapping[str, str]) -> list[str]:
    """Return what expressions name that no process exports, or that is no label of what they name."""
    known = exported()
    recorded = {
        rule["record"]: {"slo"}
        for written in rules(found).values()
        for group in written["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    wrong = []
    for where, expression in expressions.items():
        labels: set[str] = set(TARGET_LABELS)
        metrics = [token for token in _identifiers(expression) if token in known or token in recorded]
        for metric in metrics:
            labels |= (known | recorded)[metric]
        wrong += [
            f"{where}: {token} is neither a metric nor a label of {', '.join(metrics)}"
            for token in _identifiers(expression)
            if token not in known and token not in recorded and token not in labels
        ]
        if not metrics:
            wrong.append(f"{where}: names no metric")
    return wrong


def _identifiers(expression: str) -> list[str]:
    return [t for t in _TOKEN.findall(expression) if re.match(r"[a-zA-Z_:]", t) and t not in _WORDS]


def exported() -> dict[str, set[str]]:
    """Return every series that a process exports, with its labels, as docs/reference/telemetry.md lists them."""
    found = {f"process_{each}": TARGET_LABELS for each in _OF_PROCESSES} | {"up": TARGET_LABELS}
    found["ALERTS"] = {"alertname", "alertstate", "severity"}
    table = (ROOT / "docs" / "reference" / "telemetry.md").read_text()
    for name, kind, labels in re.findall(r"^\| `(counterfoil_\w+)` \| (\w+) \| (.*?) \|", table, re.MULTILINE):
        own = set(re.findall(r"\w+", labels)) | TARGET_LABELS
        if kind == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_count": own, f"{name}_sum": own}
        else:
            found[name] = own
    return found


def expressions(found: Definition) -> dict[str, str]:
    """Return every expression of a rule or panel by where it stands."""
    stated = {
        f"{rule.get('alert', rule.get('record'))} {rule.get('labels', {}).get('slo', '')}".strip(): rule["expr"]
        for written in rules(found).values()
        for group in written["groups"]
        for rule in group["rules"]
    }
    shown = {
        f"{board.title}: {panel.title}: {legend}": dashboards.filled(expr)
        for board in found.dashboards
        for panel in board.panels
        for legend, expr in panel.show.items()
    }
    return {where: expr for where, expr in (stated | shown).items() if not expr.startswith("vector(")}


def promtool(found: Definition) -> int:
    """Have promtool check what was generated; where it is absent, say so."""
    tool = shutil.which("promtool")
    if tool is None:
        print("skipped: promtool is not installed (Debian's package prometheus)")
        return 0
    panels = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions(found).values())]
    with NamedTemporaryFile("w", suffix=".yaml") as shown:
        yaml.safe_dump({"groups": [{"name": "panels", "rules": panels}]}, shown)
        for arguments in (
            ("check", "config", "prometheus.yml"),
            ("check", "rules", shown.name),
            ("test", "rules", "tests/objectives.yaml", "tests/conditions.yaml"),
        ):
            ran = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
            if ran.returncode:
                print(f"promtool {' '.join(arguments)}:\n{ran.stdout}{ran.stderr}")
                return 1
    return 0
