"""One process that trains and two that serve beside it, behind one gateway, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from counterfoil_chassis.identity import write_key_pair
from prometheus_client.parser import text_string_to_metric_families

from tests.postgres import Server, direct
from tests.system.installation import Installation, free_offset, until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, problem, sales_csv

SERVICES = ("gateway", "models", "graph", "ingest", "contracts", "governance")
SECONDS = 60
T = TypeVar("T")
CREATE = "models.v1.ForecastService/CreateForecast"


@dataclass
class Serving:
    """A process that serves; it can be killed and started again at its address."""

    listen: str
    metrics: str
    environment: Mapping[str, str]
    output: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it and wait until it serves."""
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "counterfoil_models"],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=dict(self.environment),
            )
        until(self._serves, seconds=SECONDS, what="it does not serve")

    def _serves(self) -> bool | None:
        assert self.process.poll() is None, self.output.read_text()
        try:
            answer = httpx.get(f"http://{self.metrics}/readyz", timeout=5, trust_env=False)
        except httpx.TransportError:
            return None
        return True if answer.status_code == 200 else None

    def calls(self, method: str) -> int:
        """Return how many calls of a method it has answered, also of those that travelled together."""
        text = httpx.get(f"http://{self.metrics}/metrics", timeout=10, trust_env=False).text
        wanted = {"method": f"counterfoil.{method}", "code": "OK"}
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(
            int(each.value)
            for each in samples
            if each.name == "counterfoil_server_calls_total" and each.labels == wanted
        )

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@dataclass
class Fleet:
    """All of it, as one workspace sees it."""

    installation: Installation
    tenant: Tenant
    serving: tuple[Serving, Serving]
    database: str

    @property
    def http(self) -> httpx.Client:
        return self.tenant.http

    def checks(self) -> dict[str, str]:
        """Return what readiness says of each service now; one that has no second for an answer is not ready."""
        found: dict[str, str] = self.http.get("/readyz").json()["checks"]
        return found

    def forecast(self, horizon: int) -> dict[str, Any]:
        return ok(self.http.post("/v1/forecasts", json={"model_id": "shops", "horizon_days": horizon}))

    def asked_of_both(self, method: str, ask: Callable[[], T]) -> list[T]:
        """Ask until both have answered a method; a connection that is made anew changes whose turn it is."""
        before = [each.calls(method) for each in self.serving]
        answers: list[T] = []
        for _ in range(20):
            answers += [ask(), ask()]
            if all(each.calls(method) > past for each, past in zip(self.serving, before, strict=True)):
                return answers
        raise AssertionError(f"one of the two has answered nothing: {[each.calls(method) for each in self.serving]}")

    def in_ledger(self, receipt_id: str) -> bool:
        with direct(f"{self.database}_governance") as connection:
            return bool(connection.execute(f"SELECT 1 FROM receipts WHERE receipt_id = '{receipt_id}'"))


@pytest.fixture(scope="module")
def fleet(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("serving")
    database, ports = postgres.installation(), free_offset()
    data = folder / "data"
    for name in SERVICES:
        write_key_pair(data / "keys" / f"{name}.pem", data / "keys" / "trusted", name)
    listens = {
        "INGEST": f"127.0.0.1:{7101 + ports}",
        "GRAPH": f"127.0.0.1:{7103 + ports}",
        "GOVERNANCE": f"127.0.0.1:{7105 + ports}",
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}
    plain |= {
        "COUNTERFOIL_DATABASE_URL": database,
        "COUNTERFOIL_TRUSTED_KEYS_DIR": str(data / "keys" / "trusted"),
        "COUNTERFOIL_MODELS_PRIVATE_KEY_FILE": str(data / "keys" / "models.pem"),
        "COUNTERFOIL_MODELS_ROLE": "serving",
        **{f"COUNTERFOIL_MODELS_{name}_TARGET": address for name, address in listens.items()},
    }

    def serving(number: int) -> Serving:
        listen, metrics = (f"127.0.0.1:{port + number + ports}" for port in (8080, 9100))
        own = {
            "COUNTERFOIL_DATA_DIR": str(folder / f"serving-{number}"),  # a disk of its own
            "COUNTERFOIL_MODELS_LISTEN": listen,
            "COUNTERFOIL_MODELS_METRICS_LISTEN": metrics,
        }
        return Serving(listen, metrics, plain | own, folder / f"serving-{number}.log")

    both = (serving(0), serving(1))
    settings = {f"COUNTERFOIL_{name}_LISTEN": address for name, address in listens.items()}
    settings["COUNTERFOIL_DATABASE_URL"] = database
    settings["COUNTERFOIL_GATEWAY_MODEL_SERVING_TARGET"] = f"ipv4:{','.join(each.listen for each in both)}"
    with ExitStack() as stack:
        for each in both:
            stack.callback(each.end)
            each.start()
        installation = stack.enter_context(Installation.running(data, settings=settings))
        admin = stack.enter_context(installation.http(installation.admin_key))
        tenant = Tenant.create(installation, admin, workspace="serving")
        stack.callback(tenant.http.close)
        tenant.activate(DAY_SALES.format(version="1.0.0"))
        assert tenant.upload("sales", sales_csv(100), form="csv")["state"] == "SUCCEEDED"
        ok(tenant.http.post("/v1/models", json={"model_id": "shops", **SALES_MODEL}))
        tenant.train("shops")
        yield Fleet(installation, tenant, both, database)


def test_readiness_names_the_processes_that_serve(fleet: Fleet):
    until(lambda: fleet.checks().get("models-serving") == "ok" or None, seconds=SECONDS, what="nobody serves")


def test_outputs_are_made_read_and_replayed_by_whichever_process_has_its_turn(fleet: Fleet):
    made = fleet.forecast(3)
    assert all(each == made for each in fleet.asked_of_both(CREATE, lambda: fleet.forecast(3)))
    path = f"/v1/forecasts/{made['forecast_id']}"
    read = fleet.asked_of_both("models.v1.ForecastService/GetForecast", lambda: ok(fleet.http.get(path)))
    assert all(each == made for each in read)
    replay = f"/v1/receipts/{made['receipt_id']}:replay"
    replayed = fleet.asked_of_both(
        "common.v1.ReceiptProducerService/Replay", lambda: ok(fleet.http.post(replay, json={}))
    )
    assert {each["outcome"] for each in replayed} == {"MATCH"}


def test_the_same_question_asked_at_once_has_one_answer(fleet: Fleet):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: fleet.forecast(4), range(8)))
    assert all(answer == answers[0] for answer in answers)
    found = ok(fleet.http.get("/v1/forecasts", params={"model_id": "shops"}))["forecasts"]
    assert [one["forecast_id"] for one in found if one["horizon_days"] == 4] == [answers[0]["forecast_id"]]


def test_a_promotion_and_a_rollback_are_seen_by_both_at_once(fleet: Fleet):
    def versions() -> set[int]:
        return {each["model_version"] for each in fleet.asked_of_both(CREATE, lambda: fleet.forecast(5))}

    assert versions() == {1}
    assert fleet.tenant.train("shops")["version"] == 2
    assert versions() == {2}
    ok(fleet.http.post("/v1/models/shops/versions:rollback", json={"reason": "It is worse."}))
    assert versions() == {1}


def test_a_process_that_is_killed_costs_no_request_and_is_used_again_when_it_is_back(fleet: Fleet):
    stop = Event()
    made = fleet.forecast(6)

    def ask() -> list[int]:
        answers = []
        while not stop.is_set():
            answers.append(fleet.http.post("/v1/forecasts", json={"model_id": "shops", "horizon_days": 6}).status_code)
            answers.append(fleet.http.get(f"/v1/forecasts/{made['forecast_id']}").status_code)
        return answers

    victim = fleet.serving[0]
    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            before = victim.calls(CREATE)
            until(lambda: victim.calls(CREATE) > before + 5 or None, seconds=SECONDS, what="it got no calls")
            victim.end()
            other, past = fleet.serving[1], fleet.serving[1].calls(CREATE)
            until(lambda: other.calls(CREATE) > past + 10 or None, seconds=SECONDS, what="the other got no calls")
            victim.start()
            until(lambda: victim.calls(CREATE) > 5 or None, seconds=SECONDS, what="it is not used again")
        finally:
            stop.set()
    answers = [status for each in asking for status in each.result()]
    assert set(answers) == {200}, {status: answers.count(status) for status in set(answers)}


def test_while_the_process_that_trains_is_gone_the_others_serve_and_it_delivers_their_receipts_once_it_is_back(
    fleet: Fleet,
):
    parent = psutil.Process(fleet.installation.process.pid)
    parent.suspend()  # nobody starts it anew
    try:
        writer = fleet.installation.child("models")
        writer.kill()
        until(lambda: writer.status() == psutil.STATUS_ZOMBIE or None, seconds=SECONDS, what="it lives")
        problem(fleet.http.get("/v1/models/shops"), status=503, reason="DEPENDENCY_UNAVAILABLE")

        def told() -> bool | None:
            checks = fleet.checks()
            return (checks["models"] != "ok" and checks["models-serving"] == "ok") or None

        until(told, seconds=SECONDS, what="readiness does not say who is gone and who serves")
        sale = {"sold_at": "2025-06-01T08:00:00Z", "shop": "north", "amount": 120}
        fleet.tenant.append("sales", [sale])
        made = fleet.forecast(7)
        assert all(each == made for each in fleet.asked_of_both(CREATE, lambda: fleet.forecast(7)))
        assert ok(fleet.http.get(f"/v1/receipts/{made['receipt_id']}"))["output"] == f"forecasts/{made['forecast_id']}"
        assert ok(fleet.http.post(f"/v1/receipts/{made['receipt_id']}:replay", json={}))["outcome"] == "MATCH"
        assert not fleet.in_ledger(made["receipt_id"])
    finally:
        parent.resume()
    until(lambda: fleet.in_ledger(made["receipt_id"]) or None, seconds=SECONDS, what="the receipt is not delivered")
    until(fleet.installation._ready, seconds=SECONDS, what="not ready again")
    assert ok(fleet.http.get("/v1/models/shops"))["champion_version"] == 1
