"""Rules and dashboards against what a running installation exports: each names something that is there."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from counterfoil.models.v1 import models_pb2, models_pb2_grpc

from tests.observability.conftest import Prometheus
from tests.system.installation import Installation, until
from tests.system.tenant import Tenant, ok
from tools.slo.dashboards import filled
from tools.slo.definition import Definition, load

SELECTOR = re.compile(r"[a-z_]+{[^}]*}")
NEVER_HERE = {
    "Load that is refused": "nothing is refused in a test of a few requests",
    "counterfoil_overload_refused_total": "the same",
    'check=~"certificate|door certificate"': "it runs without TLS",
}
"""What has no data in this installation, and why."""


@pytest.fixture(scope="module")
def found() -> Definition:
    return load()


@pytest.fixture(scope="module", autouse=True)
def traffic(watched: Installation, prometheus: Prometheus) -> None:
    """Traffic, and the same again once Prometheus has seen it: a rate needs two scrapes that differ."""
    with watched.http(watched.admin_key) as admin:
        tenant = Tenant.create(watched, admin, workspace="observed")
    _, write_key = tenant.source()
    send(tenant, write_key)
    seen = 'min(count_over_time(counterfoil_server_calls_total{service="gateway"}[1m])) > 1'
    until(lambda: prometheus.query(seen) or None, seconds=60, what="Prometheus has not seen the calls")
    send(tenant, write_key)
    tenant.http.close()


def send(tenant: Tenant, write_key: str) -> None:
    """Events, reads, a question and a refusal, by REST and gRPC."""
    assert tenant.send_events(write_key, [{"type": "track", "event": "Seen", "userId": "ada"}]).status_code == 200
    assert tenant.sql("SELECT count(*) > 0 FROM events") == [[True]]
    ok(tenant.http.get("/v1/models"))
    with tenant.installation.http("cfk_none") as stranger:
        assert stranger.get("/v1/models").status_code == 401
    with tenant.installation.channel() as channel:
        models_pb2_grpc.ModelServiceStub(channel).ListModels(
            models_pb2.ListModelsRequest(), metadata=[("x-api-key", tenant.key)], timeout=30
        )


def no_reason(text: str) -> bool:
    return not any(each in text for each in NEVER_HERE)


def test_every_process_is_scraped(prometheus: Prometheus, found: Definition) -> None:
    assert {each["metric"]["service"]: each["value"][1] for each in prometheus.query("up")} == dict.fromkeys(
        found.services, "1"
    )


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus, found: Definition) -> None:
    def evaluated() -> list[dict[str, str]] | None:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = until(evaluated, seconds=60, what="rules wait for their first evaluation")
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    assert len(rules) > 2 * len(found.objectives) + len(found.alerts)


def test_every_objective_is_measured_and_nobody_is_woken(prometheus: Prometheus, found: Definition) -> None:
    names = {each.name for each in found.objectives}

    def measured() -> bool | None:
        recorded = (
            "counterfoil:slo_bad:ratio_rate5m",
            "counterfoil:slo_bad:ratio_rate3d",
            "counterfoil:slo_budget_left:ratio",
        )
        return (
            True
            if all({each["metric"]["slo"] for each in prometheus.query(one)} == names for one in recorded)
            else None
        )

    until(measured, seconds=60, what="an objective is not measured")
    assert prometheus.query('ALERTS{alertname=~".*Available.*|Service.*|NobodyWrites|Database.*|Disk.*"}') == []


def test_every_panel_has_data(prometheus: Prometheus, found: Definition) -> None:
    asked = {
        f"{board.title}: {panel.title}: {expression}": filled(expression)
        for board in found.dashboards
        for panel in board.panels
        for expression in panel.show.values()
    }
    with ThreadPoolExecutor(4) as asking:
        answers = dict(zip(asked, asking.map(prometheus.query, asked.values()), strict=True))
    assert [where for where, answer in answers.items() if not answer and no_reason(where)] == []


def test_every_series_that_an_alert_looks_at_is_exported(prometheus: Prometheus, found: Definition) -> None:
    selectors = {selector for alert in found.conditions() for selector in SELECTOR.findall(alert.expr)}
    selectors |= {each.gauge for each in found.objectives if each.gauge}
    selectors -= {s for s in selectors if "models-serving" in s}  # `counterfoil up` serves models in one process
    assert [each for each in selectors if not prometheus.query(each) and no_reason(each)] == []


def test_what_has_no_data_here_is_exported_all_the_same(watched: Installation) -> None:
    page = httpx.get(f"http://127.0.0.1:{9100 + watched.offset}/metrics", trust_env=False).text
    assert "# TYPE counterfoil_overload_refused_total counter" in page
