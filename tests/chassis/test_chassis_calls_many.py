"""CallMany over real servers: each item its own caller, deadline, trace and status; none of them harms another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from counterfoil.common.v1.calls_pb2 import CallItem, CallManyRequest, CallResult
from counterfoil.common.v1.calls_pb2_grpc import CallServiceStub
from counterfoil.common.v1.receipts_pb2 import GetReceiptRequest, Receipt
from counterfoil_chassis import calls, telemetry
from counterfoil_chassis.call import budget
from counterfoil_chassis.errors import Code, NotFoundError
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.metrics import SERVER_CALLS
from counterfoil_chassis.serve import Service, started
from counterfoil_chassis.status import failure_of
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.chassis.probe import (
    HandClock,
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

GET = "/counterfoil.common.v1.ReceiptProducerService/GetReceipt"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass
class KeepingProbe(Probe):
    """One whose receipts stay the same for good."""

    async def build(self, *given: Any) -> Service:
        made = await super().build(*given)
        return Service(made.servicers, unchanging=[GET])


@pytest.fixture
def ask(stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path) -> Callable[..., Any]:
    """Start a probe, and return what sends it items."""

    async def start(probe: Probe, **options: Any) -> Callable[..., Any]:
        running = await stack.enter_async_context(started("probe", settings, probe.build, **options))
        stub = await open_stub(stack, running, CallServiceStub)

        async def call(*items: CallItem, clock: Any = None, seconds: float = 10.0) -> list[CallResult]:
            token = signer(data_dir, "gateway", clock).mint_service()
            found = await stub.CallMany(CallManyRequest(items=items), **bearer(token, seconds))
            return list(found.results)

        return call

    return start


def item(data_dir: Path, receipt_id: str = "probe.1", **fields: Any) -> CallItem:
    made = {"token": principal_token(data_dir), "method": GET, "request": receipt_of(receipt_id).SerializeToString()}
    return CallItem(**{**made, **fields})


def receipt(result: CallResult) -> str:
    assert result.status == b"", Status.FromString(result.status)
    return Receipt.FromString(result.response).receipt_id


def reason(result: CallResult) -> tuple[Code, str]:
    status = Status.FromString(result.status)
    assert result.response == b""
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return Code(status.code), info.reason


@pytest.mark.parametrize("probe", [Probe, KeepingProbe])
async def test_each_item_is_answered_for_its_own_caller(ask: Any, data_dir: Path, probe: type[Probe]) -> None:
    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        await asyncio.sleep(0)
        return Receipt(receipt_id=f"{current_caller().workspace}/{request.receipt_id}")

    call = await ask(probe(get=get))
    for _ in range(2):
        found = await call(
            *(
                item(data_dir, f"probe.{number}", token=principal_token(data_dir, workspace=workspace))
                for number in range(5)
                for workspace in ("acme", "other")
            )
        )
        expected = [f"{workspace}/probe.{number}" for number in range(5) for workspace in ("acme", "other")]
        assert [receipt(each) for each in found] == expected


@pytest.mark.parametrize("probe", [Probe, KeepingProbe])
async def test_poison_fails_alone_with_the_status_that_a_call_of_its_own_has(
    ask: Any, data_dir: Path, probe: type[Probe], caplog: pytest.LogCaptureFixture
) -> None:
    class GoneError(NotFoundError):
        reason = "GONE"

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        if request.receipt_id == "probe.gone":
            raise GoneError("there is none")
        if request.receipt_id == "probe.bug":
            raise RuntimeError("our own fault")
        return Receipt(receipt_id=request.receipt_id)

    call = await ask(probe(get=get))
    with caplog.at_level(logging.CRITICAL):
        found = await call(
            item(data_dir, "probe.1"),
            item(data_dir, token="none"),
            item(data_dir, token=principal_token(data_dir, "models.read")),
            item(data_dir, token=signer(data_dir, "models").mint_service()),
            item(data_dir, request=b"\xff"),
            item(data_dir, receipt_id=""),
            item(data_dir, "probe.gone"),
            item(data_dir, "probe.bug"),
            item(data_dir, method="/counterfoil.ingest.v1.RecordService/ReadRecords"),
            item(data_dir, method="/no.such/Method"),
            item(data_dir, "probe.2"),
        )
    assert (receipt(found[0]), receipt(found[-1])) == ("probe.1", "probe.2")
    assert [reason(each) for each in found[1:-1]] == [
        (Code.UNAUTHENTICATED, "TOKEN_INVALID"),
        (Code.PERMISSION_DENIED, "SCOPE_MISSING"),
        (Code.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED"),
        (Code.INVALID_ARGUMENT, "BAD_MESSAGE"),
        (Code.INVALID_ARGUMENT, "BAD_FIELD"),
        (Code.NOT_FOUND, "GONE"),
        (Code.INTERNAL, "INTERNAL"),
        (Code.UNIMPLEMENTED, "NOT_CARRIED"),
        (Code.UNIMPLEMENTED, "NOT_CARRIED"),
    ]


async def test_a_slow_item_is_sent_away_and_its_neighbours_have_their_answers(
    ask: Any, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = asyncio.Event()

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        if request.receipt_id == "probe.slow":
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return Receipt(receipt_id=request.receipt_id)

    monkeypatch.setattr(calls, "PATIENCE_SECONDS", 0.05)
    call = await ask(Probe(get=get))
    found = await call(item(data_dir, "probe.1"), item(data_dir, "probe.slow"), item(data_dir, "probe.2"))
    assert [receipt(found[0]), receipt(found[2])] == ["probe.1", "probe.2"]
    assert reason(found[1]) == (Code.ABORTED, "TAKES_LONG")
    async with asyncio.timeout(30):
        await cancelled.wait()


async def test_many_that_take_a_while_are_answered_one_after_the_other(
    ask: Any, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = most = 0

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Receipt(receipt_id=request.receipt_id)

    monkeypatch.setattr(calls, "PATIENCE_SECONDS", 0.3)
    call = await ask(Probe(get=get))
    ids = [f"probe.{number}" for number in range(200)]  # together longer than anybody is silent for
    assert [receipt(each) for each in await call(*(item(data_dir, each) for each in ids))] == ids
    assert most == calls.AT_ONCE


async def test_the_item_s_own_deadline_is_the_handler_s(ask: Any, data_dir: Path) -> None:
    left: list[float] = []

    async def get(_request: GetReceiptRequest, _context: Any) -> Receipt:
        left.append(budget(90.0))
        return Receipt()

    call = await ask(Probe(get=get))
    short, none = item(data_dir), item(data_dir)
    short.timeout.FromMilliseconds(20_000)
    none.timeout.FromMilliseconds(0)
    _, late, _ = await call(short, none, item(data_dir), seconds=60.0)
    assert reason(late)[0] is Code.DEADLINE_EXCEEDED
    assert 5.0 < left[0] <= 20.0
    assert 40.0 < left[1] <= 60.0


async def test_what_never_changes_is_read_once_per_workspace(ask: Any, data_dir: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def get(request: GetReceiptRequest, context: Any) -> Receipt:
        asked.append((current_caller().workspace, request.receipt_id))
        if request.receipt_id == "probe.later" and asked.count(asked[-1]) == 1:
            raise NotFoundError("not yet")
        return await answer(request, context)

    call = await ask(KeepingProbe(get=get))
    for _ in range(3):
        await call(item(data_dir), item(data_dir, "probe.later"))
    await call(item(data_dir, token=principal_token(data_dir, workspace="other")))
    expected = [("acme", "probe.1"), ("acme", "probe.later"), ("acme", "probe.later"), ("other", "probe.1")]
    assert sorted(asked) == sorted(expected)


async def test_what_is_kept_is_not_for_a_token_that_has_expired_or_lacks_the_scope(ask: Any, data_dir: Path) -> None:
    clock = HandClock()
    call = await ask(KeepingProbe(get=answer), clock=clock)
    gateway = signer(data_dir, "gateway", clock)
    allowed, other = (
        gateway.mint(workspace="acme", principal="ada", scopes=[scope]) for scope in ("governance.read", "models.read")
    )
    await call(item(data_dir, token=allowed), clock=clock)
    clock.forward(timedelta(minutes=4))
    kept, refused = await call(item(data_dir, token=allowed), item(data_dir, token=other), clock=clock)
    assert receipt(kept) == "probe.1"
    assert reason(refused) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    clock.forward(timedelta(minutes=2))
    [late] = await call(item(data_dir, token=allowed), clock=clock)
    assert reason(late) == (Code.UNAUTHENTICATED, "TOKEN_EXPIRED")


@pytest.mark.parametrize("probe", [Probe, KeepingProbe])
async def test_each_item_continues_its_own_trace(ask: Any, data_dir: Path, probe: type[Probe]) -> None:
    call = await ask(probe(get=answer))
    exporter = InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    for number in range(2):
        await call(
            item(data_dir, traceparent=f"00-{TRACE}-{number + 1:016x}-01"),
            item(data_dir, token="none", traceparent=f"00-{TRACE[::-1]}-{number + 1:016x}-01"),
        )
    spans = [span for span in exporter.get_finished_spans() if span.name == GET]
    assert sorted(span.parent.span_id for span in spans) == [1, 1, 2, 2]
    assert sorted(f"{span.context.trace_id:032x}" for span in spans) == sorted([TRACE, TRACE[::-1]] * 2)
    good = next(span for span in spans if span.context.trace_id == int(TRACE, 16))
    assert good.attributes[telemetry.ATTRIBUTE_WORKSPACE] == "acme"
    assert good.attributes["rpc.grpc.status_code"] == 0


@pytest.mark.parametrize("probe", [Probe, KeepingProbe])
async def test_each_item_is_counted_as_a_call_of_its_method(ask: Any, data_dir: Path, probe: type[Probe]) -> None:
    call = await ask(probe(get=answer))
    outcomes = SERVER_CALLS.of(GET.removeprefix("/")).outcomes
    before = dict(outcomes)
    for _ in range(2):
        await call(item(data_dir), item(data_dir, token="none"))
    counted = {outcome: count - before.get(outcome, 0) for outcome, count in outcomes.items()}
    assert {outcome: count for outcome, count in counted.items() if count} == {"OK": 2, "UNAUTHENTICATED": 2}


async def test_only_the_gateway_may_send_it(stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path) -> None:
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    stub = await open_stub(stack, running, CallServiceStub)
    request = CallManyRequest(items=[item(data_dir)])
    for token in (principal_token(data_dir), signer(data_dir, "models").mint_service()):
        failure = failure_of(await failed(stub.CallMany(request, **bearer(token))))
        assert (failure.code, failure.reason) == (Code.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED")
