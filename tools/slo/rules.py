"""The rules of Prometheus: shares that are bad over several windows, and alerts.

Site Reliability Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts". Long windows are sums of what is recorded
every half minute, so that each costs a series and not the log of all requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tools.slo.definition import Alert, Definition, Objective

WINDOWS: Final = ("30m", "1h", "2h", "6h", "1d", "3d")
BURNS: Final = {"page": ((14.4, "1h", "5m"), (6, "6h", "30m")), "ticket": ((3, "1d", "2h"), (1, "3d", "6h"))}
"""By severity: how many times faster than the window allows, over a long window and, to end soon, over a short one."""
PATIENCE: Final = {"page": "2m", "ticket": "15m"}
_SPEED: Final = {"page": "the budget is burning fast", "ticket": "the budget will not last"}


@dataclass(frozen=True)
class Rule:
    """An alert."""

    name: str
    expr: str
    patience: str
    severity: str

    def document(self, found: Definition, each: Objective | Alert, summary: str, **labels: str) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.patience,
            "labels": {"severity": self.severity, "owner": each.owner, **labels},
            "annotations": {"summary": summary, "runbook_url": f"{found.runbooks}/{each.runbook}.md"},
        }


def rules(found: Definition) -> dict[str, dict[str, Any]]:
    """Return the rules of Prometheus, by file."""
    base, alerts = [], []
    for each in found.objectives:
        labels = {"slo": each.name}
        base += [
            {"record": "counterfoil:slo_bad:rate5m", "labels": labels, "expr": each.bad},
            {"record": "counterfoil:slo_total:rate5m", "labels": labels, "expr": each.total},
            {"record": "counterfoil:slo_target:ratio", "labels": labels, "expr": f"vector({1 - each.budget:g})"},
        ]
        for severity in BURNS:
            expr = " or ".join(_burns(each, *burn) for burn in BURNS[severity])
            rule = Rule(each.alert(severity), expr, PATIENCE[severity], severity)
            alerts.append(rule.document(found, each, f"{each.title}: {_SPEED[severity]}", slo=each.name))
    base.append(
        {
            "record": "counterfoil:slo_bad:ratio_rate5m",
            "expr": "counterfoil:slo_bad:rate5m / counterfoil:slo_total:rate5m",
        }
    )
    base += [{"record": f"counterfoil:slo_bad:ratio_rate{window}", "expr": _over(window)} for window in WINDOWS]
    left = f"1 - ({_over(found.window)}) / on (slo) (1 - counterfoil:slo_target:ratio)"
    budget = [{"record": "counterfoil:slo_budget_left:ratio", "expr": left}]
    conditions = [
        Rule(each.name, each.expr, each.for_, each.severity).document(found, each, each.summary)
        for each in found.conditions()
    ]
    objectives = [
        {"name": "counterfoil-objectives", "interval": "30s", "rules": base},
        {"name": "counterfoil-budgets", "interval": "5m", "rules": budget},
        {"name": "counterfoil-burn-rates", "interval": "30s", "rules": alerts},
    ]
    groups = [{"name": "counterfoil-conditions", "interval": "30s", "rules": conditions}]
    return {"objectives": {"groups": objectives}, "conditions": {"groups": groups}}


def _burns(each: Objective, factor: float, long: str, short: str) -> str:
    bound = f"{factor * each.budget:.6g}"
    ratio = f'counterfoil:slo_bad:ratio_rate{{window}}{{{{slo="{each.name}"}}}} > {bound}'
    return f"({ratio.format(window=long)} and {ratio.format(window=short)})"


def _over(window: str) -> str:
    total = f"sum_over_time(counterfoil:slo_total:rate5m[{window}])"
    return f"sum_over_time(counterfoil:slo_bad:rate5m[{window}]) / {total}"
