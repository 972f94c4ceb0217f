"""What the gateway counts, and how `/readyz` names what is missing in a service."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self

import grpc
import httpx
import pytest
from counterfoil.ingest.v1.sources_pb2 import GetSourceRequest
from counterfoil.ingest.v1.sources_pb2_grpc import SourceServiceStub
from counterfoil_chassis.health import HEALTH, READINESS
from counterfoil_chassis.serve import HealthServicer
from counterfoil_gateway.readiness import Readiness
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from tests.gateway.conftest import ADMIN, UNKNOWN, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Growth:
    """How much a sample grew while the block ran."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name, self._labels = name, labels

    def __enter__(self) -> Self:
        self._before = count(self._name, **self._labels)
        return self

    @property
    def so_far(self) -> float:
        return count(self._name, **self._labels) - self._before

    def __exit__(self, *_: object) -> None:
        self.by = self.so_far


async def test_requests_count_under_their_route_never_under_their_path(doors: Doors, admin: dict[str, str]) -> None:
    route = "GET /v1/sources/{source_id}"
    with (
        Growth("counterfoil_gateway_requests_total", route=route, status="200") as requests,
        Growth("counterfoil_gateway_requests_duration_seconds_count", route=route) as durations,
        Growth("counterfoil_gateway_requests_total", route="other", status="404") as lost,
        Growth("counterfoil_gateway_requests_total", route="POST /v1/track", status="200") as events,
    ):
        await doors.http.get("/v1/sources/s1", headers=admin)
        await doors.http.get("/nowhere/at/all", headers=admin)
        await doors.http.post("/v1/track", json={"event": "e", "userId": "u"}, auth=httpx.BasicAuth(WRITE, ""))
    assert (requests.by, durations.by, lost.by, events.by) == (1, 1, 1, 1)
    routes = {
        sample.labels["route"] for family in REGISTRY.collect() for sample in family.samples if "route" in sample.labels
    }
    assert not any("s1" in each or "nowhere" in each for each in routes)
    assert count("counterfoil_gateway_requests_in_flight", route=route) == 0


async def test_refusals_count_by_reason_at_either_door(doors: Doors) -> None:
    with (
        Growth("counterfoil_gateway_refusals_total", reason="CREDENTIAL_INVALID") as refusals,
        Growth(
            "counterfoil_server_calls_total",
            method="counterfoil.ingest.v1.SourceService/GetSource",
            code="UNAUTHENTICATED",
        ) as calls,
    ):
        await doors.http.get("/v1/sources", headers={"x-api-key": UNKNOWN})
        await doors.http.post("/v1/track", json={"event": "e"}, auth=httpx.BasicAuth("cfw_" + "x" * 43, ""))
        with pytest.raises(grpc.aio.AioRpcError):
            await SourceServiceStub(doors.rpc).GetSource(
                GetSourceRequest(source_id="s1"), metadata=(("x-api-key", UNKNOWN),), timeout=60
            )
        async with asyncio.timeout(60):
            while not calls.so_far:  # the caller has its answer a moment before the call has ended
                await asyncio.sleep(0.01)
    assert (refusals.by, calls.by) == (3, 1)


async def test_a_call_that_is_served_counts_as_ok(doors: Doors) -> None:
    method = "counterfoil.ingest.v1.SourceService/GetSource"
    with Growth("counterfoil_server_calls_total", method=method, code="OK") as calls:
        await SourceServiceStub(doors.rpc).GetSource(
            GetSourceRequest(source_id="s1"), metadata=(("x-api-key", ADMIN),), timeout=60
        )
    assert calls.by >= 1  # the service behind stands in this process, too


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what other tests' servers in this process have checked."""
    monkeypatch.setattr(HEALTH, "_sources", {})
    monkeypatch.setattr(HEALTH, "_known", {})


@asynccontextmanager
async def a_service(*, ready: bool):
    health = HealthServicer()
    status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    await health.set(READINESS, status)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.mark.usefixtures("alone")
async def test_readyz_names_the_check_that_fails_in_a_service() -> None:
    async with a_service(ready=False) as failing:
        with HEALTH.checking("database", lambda: "start PostgreSQL", needed=True):
            await HEALTH.report(datetime.now(UTC))
            well, told = await Readiness({"graph": failing}, {}).report()
        assert not well
        assert told["graph"] == "database: start PostgreSQL"
        _, told = await Readiness({"graph": failing}, {}).report()
        assert told["graph"] == "is not ready"


@pytest.mark.usefixtures("alone")
async def test_a_service_that_goes_on_without_something_is_ready_all_the_same() -> None:
    async with a_service(ready=True) as degraded:
        with HEALTH.checking("watch contracts", lambda: "start contracts"):
            await HEALTH.report(datetime.now(UTC))
            assert await Readiness({"ingest": degraded}, {}).report() == (True, {"ingest": "ok"})
