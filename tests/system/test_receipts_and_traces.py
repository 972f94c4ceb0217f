"""One trace from the door to the data, and a receipt that makes its numbers again or says why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from counterfoil_chassis.settings import url_of

from tests.postgres import direct
from tests.system.installation import traceparent
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, sales_csv


@pytest.fixture(scope="module")
def shop(tenant: Tenant) -> Tenant:
    """A workspace whose model `shops` serves."""
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    assert tenant.upload("sales", sales_csv(150), form="csv")["state"] == "SUCCEEDED"
    ok(tenant.http.post("/v1/models", json={"model_id": "shops", **SALES_MODEL}))
    tenant.train("shops")
    return tenant


@pytest.fixture(scope="module")
def forecast(shop: Tenant) -> tuple[str, dict[str, Any]]:
    """The trace id of the request, and the forecast it got."""
    header, trace_id = traceparent()
    answer = shop.http.post(
        "/v1/forecasts", json={"model_id": "shops"}, headers={"traceparent": header, "Request-Timeout": "60"}
    )
    return trace_id, ok(answer)


def test_one_trace_shows_gateway_and_ingest_for_a_post(shop: Tenant):
    _, write_key = shop.source()
    header, trace_id = traceparent()
    event = {"type": "track", "event": "Seen", "userId": "ada"}
    with shop.installation.http() as client:
        answer = client.post(
            "/v1/batch", json={"batch": [event]}, headers={"traceparent": header}, auth=(write_key, "")
        )
    assert answer.status_code == 200
    spans = shop.installation.trace(trace_id, services={"gateway", "ingest"})
    assert all(span["traceID"] == trace_id for span in spans)


def test_one_trace_shows_gateway_models_and_ingest_for_a_forecast(shop: Tenant, forecast: tuple[str, dict[str, Any]]):
    trace_id, made = forecast
    shop.installation.trace(trace_id, services={"gateway", "models", "ingest"})
    receipt = ok(shop.http.get(f"/v1/receipts/{made['receipt_id']}"))
    assert receipt["trace_id"] == trace_id


def test_a_trace_is_listed_by_its_service_and_its_page_opens(shop: Tenant, forecast: tuple[str, dict[str, Any]]):
    import httpx

    trace_id, _ = forecast
    base = shop.installation.traces_url
    with httpx.Client(base_url=base, trust_env=False, timeout=60) as client:
        assert {"gateway", "ingest", "models"} <= set(client.get("/api/services").json()["data"])
        assert client.get("/api/traces", params={"service": "models", "limit": 5}).json()["data"]
        page = client.get(f"/trace/{trace_id}")
        assert page.status_code == 200
        assert "html" in page.headers["content-type"]


def test_the_receipt_says_what_stands_behind_the_numbers(shop: Tenant, forecast: tuple[str, dict[str, Any]]):
    _, made = forecast
    receipt = ok(shop.http.get(f"/v1/receipts/{made['receipt_id']}"))
    assert receipt["producer"] == "models"
    assert receipt["principal"] == "admin"
    assert receipt["workspace"] == shop.workspace
    assert receipt["output"] == f"forecasts/{made['forecast_id']}"
    [series] = receipt["inputs"]
    assert series["snapshot"]["dataset"] == "sales"
    assert series["rows"] == 300
    assert [contract["contract_id"] for contract in receipt["contracts"]] == ["day-sales"]
    version = ok(shop.http.get("/v1/models/shops/versions/1"))
    assert receipt["model"]["artifact_sha256"] == version["artifact_sha256"]
    assert len(receipt["output_sha256"]) == 64


def test_asking_again_gives_the_same_forecast_and_receipt(shop: Tenant, forecast: tuple[str, dict[str, Any]]):
    _, made = forecast
    assert ok(shop.http.post("/v1/forecasts", json={"model_id": "shops"})) == made


def test_the_receipt_replays(shop: Tenant, forecast: tuple[str, dict[str, Any]]):
    replay = ok(shop.http.post(f"/v1/receipts/{forecast[1]['receipt_id']}:replay", json={}))
    assert replay["outcome"] == "MATCH", replay
    assert replay["expected_sha256"] == replay["actual_sha256"]


def test_it_replays_still_when_more_data_has_come(shop: Tenant, forecast: tuple[str, dict[str, Any]]):
    shop.append("sales", [{"sold_at": "2025-03-03T08:00:00Z", "shop": "north", "amount": 999}])
    replay = ok(shop.http.post(f"/v1/receipts/{forecast[1]['receipt_id']}:replay", json={}))
    assert replay["outcome"] == "MATCH", replay
    fresh = ok(shop.http.post("/v1/forecasts", json={"model_id": "shops"}))
    assert fresh["receipt_id"] != forecast[1]["receipt_id"]


@dataclass
class KeptArtifact:
    """The champion's artifact in the database, past the service."""

    url: str
    sha256: str

    def read(self) -> bytes:
        with direct(self.url) as database:
            [(kept,)] = database.execute(f"SELECT bytes FROM artifact WHERE sha256 = '{self.sha256}'")
        return bytes(kept)

    def write(self, content: bytes) -> None:
        self.delete()
        bytes_ = f"X'{content.hex()}'" if self.url.startswith("sqlite") else f"'\\x{content.hex()}'::bytea"
        with direct(self.url) as database:
            database.execute(f"INSERT INTO artifact VALUES ('{self.sha256}', {bytes_})")

    def delete(self) -> None:
        with direct(self.url) as database:
            database.execute(f"DELETE FROM artifact WHERE sha256 = '{self.sha256}'")


@pytest.fixture
def artifact(shop: Tenant) -> Iterator[KeptArtifact]:
    """The champion's artifact, put back afterwards."""
    environment = psutil.Process(shop.installation.process.pid).environ()
    server = environment.get("COUNTERFOIL_DATABASE_URL", "")
    url = url_of("models", server) if server else f"sqlite:///{shop.installation.data / 'models.db'}"
    kept = KeptArtifact(url, ok(shop.http.get("/v1/models/shops/versions/1"))["artifact_sha256"])
    before = kept.read()
    yield kept
    kept.write(before)


def test_an_altered_artifact_is_never_a_silent_match(
    shop: Tenant, forecast: tuple[str, dict[str, Any]], artifact: KeptArtifact
):
    replay_path = f"/v1/receipts/{forecast[1]['receipt_id']}:replay"
    content = artifact.read()
    digit = next(place for place, byte in enumerate(content) if chr(byte) in "12345678")
    altered = [
        content[:digit] + bytes([content[digit] + 1]) + content[digit + 1 :],
        content + b" ",
        content[: len(content) // 2],
        b"",
    ]
    for bad in altered:
        artifact.write(bad)
        _assert_no_match(shop, replay_path)
    artifact.delete()
    _assert_no_match(shop, replay_path)
    artifact.write(content)
    assert ok(shop.http.post(replay_path, json={}))["outcome"] == "MATCH"


def _assert_no_match(shop: Tenant, replay_path: str) -> None:
    answer = shop.http.post(replay_path, json={})
    if answer.status_code == 200:
        assert answer.json()["outcome"] == "MISMATCH"
    else:
        assert answer.json()["reason"] not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"), answer.text
