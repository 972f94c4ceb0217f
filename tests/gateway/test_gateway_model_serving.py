"""Processes that serve models beside the one that trains: who gets which call, and that none fails when one leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from counterfoil.common.v1.receipts_pb2 import Receipt
from counterfoil.models.v1 import forecasts_pb2, forecasts_pb2_grpc, models_pb2, models_pb2_grpc
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import TokenVerifier, load_trusted_keys
from counterfoil_gateway import api as apis
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.receipts import composed
from counterfoil_gateway.serving import FAMILIES, SERVING

from tests.gateway import backends
from tests.gateway.conftest import ADMIN, Doors, gateway_and_backend
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")
SERVICES = ("ingest", "contracts", "graph", "models", "governance")
KEY = (("x-api-key", ADMIN),)


class Named:
    """A channel that gives its name and the method instead of what calls it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, _kind: str) -> Any:
        return lambda method, **_: (self._name, method)


@dataclass
class Fleet:
    """A gateway with one backend for models and all else, and two that serve models."""

    doors: Doors
    serving: list[backends.Backend]
    servers: list[grpc.aio.Server]
    addresses: list[str]


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(keys_dir: Path) -> AsyncIterator[Fleet]:
    verifier = TokenVerifier(load_trusted_keys(keys_dir / "keys" / "trusted"), SystemClock())
    serving = [backends.Backend(verifier) for _ in range(2)]
    started = [await backends.serve(each, address=f"127.0.0.1:{free_port()}") for each in serving]
    servers, addresses = [each[0] for each in started], [each[1] for each in started]
    async for doors in gateway_and_backend(keys_dir, model_serving_target=f"ipv4:{','.join(addresses)}"):
        yield Fleet(doors, serving, servers, addresses)
    for server in servers:
        await server.stop(0)


async def test_only_the_families_that_make_and_read_outputs_go_there(api: apis.Api):
    apart: Any = {name: Named(name) for name in (*SERVICES, SERVING)}
    together: Any = {name: Named(name) for name in SERVICES}
    for method in api.methods:
        serves = method.owner == "models" and method.service in FAMILIES
        assert Calls(api, apart).any(method) == (SERVING if serves else method.owner, method.name)
        assert Calls(api, together).any(method) == (method.owner, method.name)
    assert {m.service for m in api.methods if m.owner == "models"} - FAMILIES == {"ModelService"}
    replay: Any = composed(apart)["/counterfoil.governance.v1.ReceiptService/ReplayReceipt"]
    assert {name: call[0] for name, call in replay._producers.items()} == {
        "models": SERVING,
        "graph": "graph",
        "ingest": "ingest",
    }


async def test_both_doors_shared_reads_and_receipts_ask_the_processes_that_serve(fleet: Fleet):
    doors, headers = fleet.doors, {"x-api-key": ADMIN}

    def asked(kind: type) -> tuple[int, int]:
        return (
            sum(isinstance(each, kind) for each in doors.backend.requests),
            sum(isinstance(each, kind) for one in fleet.serving for each in one.requests),
        )

    made = await doors.http.post("/v1/forecasts", json={"model_id": "demand"}, headers=headers)
    assert made.status_code == 200, made.text
    forecasts: Any = forecasts_pb2_grpc.ForecastServiceStub(doors.rpc)
    await forecasts.CreateForecast(forecasts_pb2.CreateForecastRequest(model_id="demand"), metadata=KEY)
    assert asked(forecasts_pb2.CreateForecastRequest) == (0, 2)
    read = await doors.http.get("/v1/forecasts/0197", headers=headers)
    assert read.status_code == 200, read.text
    assert asked(forecasts_pb2.GetForecastRequest) == (0, 1)
    assert sum(sum(each.shared) for each in fleet.serving) == 1
    models: Any = models_pb2_grpc.ModelServiceStub(doors.rpc)
    await models.GetModel(models_pb2.GetModelRequest(model_id="demand"), metadata=KEY)
    assert asked(models_pb2.GetModelRequest) == (1, 0)
    for each in fleet.serving:
        each.produced["models.1"] = Receipt(receipt_id="models.1", purpose="served")
    receipt = await doors.http.get("/v1/receipts/models.1", headers=headers)
    assert receipt.json()["purpose"] == "served"
    replayed = await doors.http.post("/v1/receipts/models.1:replay", json={}, headers=headers)
    assert replayed.json()["outcome"] == "MATCH"


async def test_readiness_names_them(fleet: Fleet):
    ready = (await fleet.doors.http.get("/readyz")).json()
    assert ready["checks"][SERVING] == "ok"
    for server in fleet.servers:
        await server.stop(0)
    ready = (await fleet.doors.http.get("/readyz")).json()
    assert ready["checks"][SERVING].startswith("does not answer")
    assert ready["checks"]["models"] == "ok"


async def test_calls_go_round_those_that_are_there_and_none_fails_when_one_leaves(fleet: Fleet):
    headers = {"x-api-key": ADMIN}

    async def statuses(count: int) -> set[int]:
        answers = [
            await fleet.doors.http.post("/v1/forecasts", json={"model_id": "demand"}, headers=headers)
            for _ in range(count)
        ]
        return {answer.status_code for answer in answers}

    def counts() -> list[int]:
        return [len(each.requests) for each in fleet.serving]

    assert await statuses(20) == {200}
    assert min(counts()) >= 5
    await fleet.servers[0].stop(0)
    before = counts()
    assert await statuses(20) == {200}
    assert counts() == [before[0], before[1] + 20]
    back, _, _ = await backends.serve(fleet.serving[0], address=fleet.addresses[0])
    try:
        async with asyncio.timeout(60):
            while counts()[0] == before[0]:
                assert await statuses(2) == {200}
                await asyncio.sleep(0.05)
    finally:
        await back.stop(0)
