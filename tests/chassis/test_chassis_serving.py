"""A service's life: health, readiness, background work, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.receipts_pb2 import Receipt
from counterfoil.ingest.v1.records_pb2 import ReadRecordsRequest, ReadRecordsResponse
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceStub
from counterfoil_chassis.call import following
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.tracing import is_traced
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.chassis.probe import (
    Probe,
    ProbeSettings,
    answer,
    bearer,
    failed,
    open_stub,
    principal_token,
    receipt_of,
    signer,
)
from tests.ports import free_port

SERVING = HealthCheckResponse.SERVING


async def test_health_needs_no_token_and_tells_liveness_from_readiness(
    stack: AsyncExitStack, settings: ProbeSettings
) -> None:
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    health = await open_stub(stack, running, HealthStub)
    for name in ("", "readiness", "liveness"):
        assert (await health.Check(HealthCheckRequest(service=name), timeout=30)).status == SERVING


async def test_it_is_alive_before_it_is_ready(stack: AsyncExitStack, data_dir: Path) -> None:
    go = asyncio.Event()
    port = free_port()
    settings = ProbeSettings(data_dir=data_dir, listen=f"127.0.0.1:{port}")
    starting = started("probe", settings, Probe(get=answer, ready=go.wait).build)
    entering = asyncio.create_task(starting.__aenter__())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = HealthStub(channel)
        alive = await health.Check(HealthCheckRequest(service="liveness"), timeout=30, wait_for_ready=True)
        ready = await health.Check(HealthCheckRequest(service="readiness"), timeout=30)
        assert (alive.status, ready.status) == (SERVING, HealthCheckResponse.NOT_SERVING)
        watched = health.Watch(HealthCheckRequest(service="readiness"))
        assert (await watched.read()).status == HealthCheckResponse.NOT_SERVING
        go.set()
        assert (await watched.read()).status == SERVING
        watched.cancel()
    await entering
    await starting.__aexit__(None, None, None)


async def test_what_runs_finishes_while_new_calls_are_refused(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def get(_request: Any, _context: Any) -> Receipt:
        entered.set()
        await release.wait()
        return Receipt(receipt_id="finished")

    service = AsyncExitStack()
    running = await service.enter_async_context(started("probe", settings, Probe(get=get).build))
    stub = await open_stub(stack, running)
    call = asyncio.create_task(_as_task(stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir)))))
    await entered.wait()
    watched = (await open_stub(stack, running, HealthStub)).Watch(HealthCheckRequest(service="readiness"))
    assert (await watched.read()).status == SERVING
    closing = asyncio.create_task(service.aclose())
    assert (await watched.read()).status == HealthCheckResponse.NOT_SERVING
    await failed(watched.read())  # the stream ends once new calls are refused
    late = await open_stub(stack, running)
    error = await failed(late.GetReceipt(receipt_of(), **bearer(principal_token(data_dir))))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not call.done()
    release.set()
    assert (await call).receipt_id == "finished"
    await closing


async def _as_task(call: Any) -> Any:
    return await call


async def test_what_does_not_finish_in_time_is_ended(stack: AsyncExitStack, data_dir: Path) -> None:
    entered = asyncio.Event()

    async def get(_request: Any, _context: Any) -> Receipt:
        entered.set()
        await asyncio.Event().wait()
        return Receipt()

    settings = ProbeSettings(data_dir=data_dir, drain_seconds=0.2)
    service = AsyncExitStack()
    running = await service.enter_async_context(started("probe", settings, Probe(get=get).build))
    stub = await open_stub(stack, running)
    call = asyncio.create_task(failed(stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir), timeout=30))))
    await entered.wait()
    async with asyncio.timeout(30):
        await service.aclose()
        assert (await call).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_streams_without_end_do_not_hold_up_the_drain(stack: AsyncExitStack, data_dir: Path) -> None:
    settings = ProbeSettings(data_dir=data_dir, drain_seconds=60)
    ended = asyncio.Event()

    async def follow(_request: Any, _context: Any) -> AsyncIterator[ReadRecordsResponse]:
        try:
            yield ReadRecordsResponse(next_offset=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    service = AsyncExitStack()
    running = await service.enter_async_context(started("probe", settings, Probe(follow=follow).build))
    records = await open_stub(stack, running, RecordServiceStub)
    health = await open_stub(stack, running, HealthStub)
    stream = records.ReadRecords(ReadRecordsRequest(follow=True), **following(signer=signer(data_dir, "models")))
    watched = health.Watch(HealthCheckRequest(service="readiness"))
    assert (await stream.read()).next_offset == 1
    assert (await watched.read()).status == SERVING
    async with asyncio.timeout(settings.drain_seconds / 2):
        await service.aclose()
    failure = failure_of(await failed(stream.read()))
    assert (failure.code.name, failure.reason) == ("UNAVAILABLE", "DRAINING")
    assert ended.is_set()


async def test_a_client_that_leaves_ends_its_stream(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    ended = asyncio.Event()

    async def follow(_request: Any, _context: Any) -> AsyncIterator[ReadRecordsResponse]:
        try:
            yield ReadRecordsResponse(next_offset=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = await stack.enter_async_context(started("probe", settings, Probe(follow=follow).build))
    records = await open_stub(stack, running, RecordServiceStub)
    stream = records.ReadRecords(ReadRecordsRequest(), **following(signer=signer(data_dir, "models")))
    await stream.read()
    stream.cancel()
    async with asyncio.timeout(30):
        await ended.wait()


async def test_background_work_that_fails_is_raised_to_who_started_it(settings: ProbeSettings) -> None:
    async def breaks() -> None:
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        async with started("probe", settings, Probe(get=answer, background=(breaks,)).build):
            await asyncio.Event().wait()


async def test_background_work_is_cancelled_after_the_last_call(settings: ProbeSettings) -> None:
    ended = asyncio.Event()

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with started("probe", settings, Probe(get=answer, background=(works,)).build):
        assert not ended.is_set()
    assert ended.is_set()


async def test_without_keys_it_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"probe\.pem does not exist"):
        async with started("probe", ProbeSettings(data_dir=tmp_path), Probe().build):
            pass


async def test_two_servers_do_not_share_a_port(stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path) -> None:
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    second = ProbeSettings(data_dir=data_dir, listen=running.address)
    with pytest.raises(StartError, match="cannot listen"):
        async with started("probe", second, Probe().build):
            pass


@pytest.mark.parametrize(
    ("method", "traced"),
    [
        ("/counterfoil.common.v1.ReceiptProducerService/GetReceipt", True),
        (b"/counterfoil.ingest.v1.RecordService/ReadRecords", True),
        ("/grpc.health.v1.Health/Check", False),
        (b"/counterfoil.governance.v1.CredentialService/WatchCredentials", False),
    ],
)
def test_health_checks_and_streams_without_end_get_no_spans(method: str | bytes, traced: bool) -> None:
    assert is_traced(SimpleNamespace(method=method)) is traced
