"""What keeps one sick or slow service from taking others along: breaker, turns, ends, retries, shedding, drain."""

from __future__ import annotations

import asyncio
import importlib.resources
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.receipts_pb2 import GetReceiptRequest, Receipt
from counterfoil.common.v1.receipts_pb2_grpc import ReceiptProducerServiceStub
from counterfoil.ingest.v1.records_pb2 import ReadRecordsRequest, ReadRecordsResponse
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceStub
from counterfoil_chassis.breaker import FAILURES, FORGOTTEN_AFTER, LOOKED_AT, PATIENCE, PAUSE, Breaker
from counterfoil_chassis.call import connect, following
from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.errors import Code, UnavailableError
from counterfoil_chassis.guarded import UnboundedCallError
from counterfoil_chassis.methods import repeatable
from counterfoil_chassis.serve import started
from counterfoil_chassis.shedding import Load, OverloadedError
from counterfoil_chassis.status import failure_of
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client import REGISTRY

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


class Seconds:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(seconds: Seconds) -> Breaker:
    return Breaker(seconds)


def opened(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES):
        breaker.failed()
    assert breaker.is_open
    return breaker


def test_half_of_the_last_calls_failing_opens_it_and_less_does_not(seconds: Seconds) -> None:
    half, less = Breaker(seconds), Breaker(seconds)
    for number in range(3 * LOOKED_AT):
        half.failed() if number % 2 else half.answered()
        less.answered() if number % 3 else less.failed()
        if half.is_open:
            break
    assert half.is_open
    assert not less.is_open


def test_failures_with_long_quiet_between_them_say_nothing(breaker: Breaker, seconds: Seconds) -> None:
    for _ in range(5 * FAILURES):
        breaker.failed()
        seconds.now += FORGOTTEN_AFTER + 1
    assert not breaker.is_open


def test_an_open_one_lets_one_call_a_second_through_until_one_is_answered(breaker: Breaker, seconds: Seconds) -> None:
    opened(breaker)
    let_through = 0
    for _ in range(80):
        seconds.now += PAUSE / 8
        let_through += breaker.lets_through()
    assert let_through == 10
    breaker.failed()
    assert not breaker.lets_through()
    breaker.answered()
    assert all(breaker.lets_through() for _ in range(100))
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert not breaker.is_open, "what was before counts no more"


def test_running_out_of_time_says_something_only_when_the_time_was_long_and_nobody_else_was_answered(
    breaker: Breaker, seconds: Seconds
) -> None:
    begun = seconds.now
    seconds.now += 10
    for _ in range(2 * FAILURES):
        breaker.ran_out_of_time(begun, PATIENCE / 2)
    breaker.answered()
    for _ in range(2 * FAILURES):
        breaker.ran_out_of_time(begun, 10.0)
    assert not breaker.is_open
    begun = seconds.now + 1
    seconds.now += 20
    for _ in range(FAILURES):
        breaker.ran_out_of_time(begun, 10.0)
    assert breaker.is_open


async def test_more_calls_than_may_run_wait_for_their_turn_and_more_than_may_wait_are_refused(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    entered, go = asyncio.Semaphore(0), asyncio.Semaphore(0)
    most = running = 0

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        nonlocal most, running
        running += 1
        most = max(most, running)
        entered.release()
        await go.acquire()
        running -= 1
        return Receipt(receipt_id=request.receipt_id)

    served = await stack.enter_async_context(started("probe", settings, Probe(get=get).build))
    dependency = Dependency("probe", 2)
    stub = ReceiptProducerServiceStub(await stack.enter_async_context(connect(served.address, to=dependency)))
    token = principal_token(data_dir)

    async def call(name: str) -> str:
        return str((await stub.GetReceipt(receipt_of(name), **bearer(token))).receipt_id)

    calls = [asyncio.create_task(call(str(number))) for number in range(4)]
    for _ in range(2):
        await entered.acquire()
    assert (dependency.running, dependency.waiting) == (2, 2)
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), **bearer(token))))
    assert (failure.code, failure.reason) == (Code.UNAVAILABLE, "DEPENDENCY_BUSY")
    assert (failure.metadata, failure.retry_after) == ({"dependency": "probe"}, timedelta(seconds=1))
    calls[3].cancel()
    with suppress(asyncio.CancelledError):
        await calls[3]
    assert dependency.waiting == 1, "who leaves waits no more"
    for _ in range(3):
        go.release()
    assert await asyncio.gather(*calls[:3]) == ["0", "1", "2"]
    assert (most, dependency.running, dependency.waiting) == (2, 0, 0)


async def test_no_turn_is_lost_or_given_twice_whoever_leaves_when() -> None:
    chance = random.Random(7)
    dependency = Dependency("probe", 3)
    outcomes: Counter[str] = Counter()
    running = 0

    async def one() -> None:
        nonlocal running
        if dependency.is_full:
            await dependency.turn(5.0)
        else:
            dependency.running += 1
        running += 1
        assert running <= 3
        try:
            await asyncio.sleep(chance.random() / 500)
        finally:
            running -= 1
            dependency.release()

    async def left_or_done(task: asyncio.Task[None]) -> None:
        try:
            await task
        except asyncio.CancelledError:
            outcomes["left"] += 1
        except grpc.aio.AioRpcError:
            outcomes["busy"] += 1
        else:
            outcomes["done"] += 1

    for _ in range(300):
        tasks = [asyncio.create_task(one()) for _ in range(chance.randrange(1, 9))]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for task in tasks:
            if chance.random() < 0.3:
                task.cancel()
        await asyncio.gather(*(left_or_done(task) for task in tasks))
        assert (running, dependency.running, dependency.waiting) == (0, 0, 0)
    assert min(outcomes["left"], outcomes["busy"], outcomes["done"]) > 50, outcomes


async def test_nobody_waits_longer_than_a_second_for_a_turn(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    entered = asyncio.Event()

    async def get(_request: Any, _context: Any) -> Receipt:
        entered.set()
        await asyncio.Event().wait()
        return Receipt()

    served = await stack.enter_async_context(started("probe", settings, Probe(get=get).build))
    stub = ReceiptProducerServiceStub(
        await stack.enter_async_context(connect(served.address, to=Dependency("probe", 1)))
    )
    token = principal_token(data_dir)
    first = asyncio.create_task(failed(stub.GetReceipt(receipt_of(), **bearer(token, timeout=60))))
    await entered.wait()
    begun = time.monotonic()
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), **bearer(token, timeout=50))))
    assert failure.reason == "DEPENDENCY_BUSY"
    assert 0.9 < time.monotonic() - begun < 10, "it neither left at once nor waited for the other's end"
    first.cancel()
    await asyncio.wait([first])


async def test_a_call_without_an_end_is_refused_but_for_what_is_followed(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    async def follow(_request: Any, _context: Any) -> AsyncIterator[ReadRecordsResponse]:
        yield ReadRecordsResponse(next_offset=1)

    served = await stack.enter_async_context(started("probe", settings, Probe(get=answer, follow=follow).build))
    stub = await open_stub(stack, served)
    with pytest.raises(UnboundedCallError, match="GetReceipt"):
        stub.GetReceipt(receipt_of(), metadata=bearer(principal_token(data_dir))["metadata"])
    records = await open_stub(stack, served, RecordServiceStub)
    stream = records.ReadRecords(ReadRecordsRequest(), **following(signer=signer(data_dir, "models")))
    assert [each.next_offset async for each in stream] == [1]


class Refusing(grpc.GenericRpcHandler):
    """Counts calls by method and refuses them; `pushback` says not to come again."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.pushback = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method

        async def refuse(_request: bytes, context: Any) -> bytes:
            self.calls[method] += 1
            trailers = (("grpc-retry-pushback-ms", "-1"),) if self.pushback else ()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no", trailers)
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


async def test_only_what_may_happen_twice_is_repeated(stack: AsyncExitStack) -> None:
    refusing = Refusing()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((refusing,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    stack.push_async_callback(server.stop, 0)
    expected = {
        "/counterfoil.governance.v1.KeyService/ListKeys": 4,
        "/counterfoil.ingest.v1.AppendService/AppendMany": 4,
        "/counterfoil.governance.v1.KeyService/CreateKey": 1,
        "/counterfoil.models.v1.ModelService/RollbackModel": 1,
    }
    for method in expected:
        channel = await stack.enter_async_context(connect(address))  # each with retries of its own
        await failed(channel.unary_unary(method)(b"", timeout=30))
    assert refusing.calls == expected
    refusing.pushback = True
    channel = await stack.enter_async_context(connect(address))
    await failed(channel.unary_unary("/counterfoil.governance.v1.KeyService/GetKey")(b"", timeout=30))
    assert refusing.calls["/counterfoil.governance.v1.KeyService/GetKey"] == 1


def test_what_writes_for_a_principal_is_repeated_only_where_it_says_that_this_is_harmless() -> None:
    image = importlib.resources.files("counterfoil").joinpath("api.binpb").read_bytes()
    names = {f"{service.rpartition('.')[2]}.{method}" for service, method in repeatable(image)}
    assert {"PersonService.GetPerson", "ChangeService.ReportChange", "ReceiptService.PutReceipts"} <= names
    writing = ("Create", "Rotate", "Revoke", "Rollback", "Promote", "Train", "Merge", "Split", "Upload", "Activate")
    writes = {name for name in names if name.partition(".")[2].startswith(writing)}
    # Asked by services only, with a request id that governance keeps; a place in the log that is only looked at; and
    # outputs, of which the same question of the same data has one.
    outputs = {f"{name}Service.Create{name}" for name in ("Forecast", "Attribution", "Lift")}
    assert writes == {"ChangeService.CreateChange", "RecordService.CreateSnapshot", *outputs}


async def test_a_service_refuses_what_is_one_too_many_but_answers_for_its_health_and_lets_itself_be_followed(
    stack: AsyncExitStack, data_dir: Path
) -> None:
    entered, go = asyncio.Semaphore(0), asyncio.Event()
    calls = 0

    async def get(_request: Any, _context: Any) -> Receipt:
        nonlocal calls
        calls += 1
        entered.release()
        await go.wait()
        return Receipt()

    async def follow(_request: Any, _context: Any) -> AsyncIterator[ReadRecordsResponse]:
        yield ReadRecordsResponse(next_offset=1)

    settings = ProbeSettings(data_dir=data_dir, max_running=2)
    served = await stack.enter_async_context(started("probe", settings, Probe(get=get, follow=follow).build))
    stub = await open_stub(stack, served)
    token = principal_token(data_dir)
    running = [asyncio.create_task(_awaited(stub.GetReceipt(receipt_of(), **bearer(token)))) for _ in range(2)]
    for _ in running:
        await entered.acquire()
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), **bearer("no token at all"))))
    assert (failure.code, failure.reason, failure.retry_after) == (
        Code.UNAVAILABLE,
        "OVERLOADED",
        timedelta(seconds=1),
    )
    assert calls == 2, "it is not repeated"
    health = await open_stub(stack, served, HealthStub)
    assert (await health.Check(HealthCheckRequest(), timeout=30)).status == HealthCheckResponse.SERVING
    records = await open_stub(stack, served, RecordServiceStub)
    stream = records.ReadRecords(ReadRecordsRequest(), **following(signer=signer(data_dir, "models")))
    assert (await stream.read()).next_offset == 1
    go.set()
    await asyncio.gather(*running)
    await stub.GetReceipt(receipt_of(), **bearer(token))


async def _awaited(call: Any) -> Any:
    return await call


async def one_long_step() -> None:
    """Keep the loop from everybody else for most of a second, then let each have a turn."""
    time.sleep(0.8)  # noqa: ASYNC251 - it is what this is about
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_loop_that_is_late_twice_takes_nothing_more_until_it_is_in_time_again() -> None:
    load = Load(most=10, delay=0.6)
    watching = asyncio.create_task(load.watch())
    await asyncio.sleep(0.15)
    await one_long_step()
    with load:
        assert load.running == 1
    await one_long_step()
    await one_long_step()
    with pytest.raises(OverloadedError), load:
        pass
    assert load.running == 0
    async with asyncio.timeout(30):
        while load.delay > 0.6:
            await asyncio.sleep(0.01)
    with load:
        pass
    watching.cancel()


async def test_a_service_that_stops_under_load_cuts_off_no_call_that_it_took(
    stack: AsyncExitStack, data_dir: Path
) -> None:
    taken: set[str] = set()

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        taken.add(request.receipt_id)
        await asyncio.sleep(0.02)
        return Receipt(receipt_id=request.receipt_id)

    settings = ProbeSettings(data_dir=data_dir)
    first = AsyncExitStack()
    served = await first.enter_async_context(started("probe", settings, Probe(get=get).build))
    stub = await open_stub(stack, served)
    token = principal_token(data_dir)
    answered: set[str] = set()
    refused: list[str] = []

    async def sender(name: str) -> None:
        for number in range(10**6):
            asked = f"{name}.{number}"
            try:
                answered.add((await stub.GetReceipt(receipt_of(asked), **bearer(token))).receipt_id)
            except grpc.aio.AioRpcError as error:
                refused.append(failure_of(error).reason)
                return

    senders = [asyncio.create_task(sender(str(number))) for number in range(20)]
    while len(answered) < 200:
        await asyncio.sleep(0.01)
    await first.aclose()
    await asyncio.gather(*senders)
    assert taken == answered
    assert set(refused) == {"DEPENDENCY_UNAVAILABLE"}


async def test_an_error_of_a_dependency_is_told_on_with_its_name_and_not_asked_for_again(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    nobody = ReceiptProducerServiceStub(
        await stack.enter_async_context(connect("127.0.0.1:9", to=Dependency("governance")))
    )
    calls = 0

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        nonlocal calls
        calls += 1
        return await nobody.GetReceipt(request, **bearer("", timeout=3.0))

    served = await stack.enter_async_context(started("probe", settings, Probe(get=get).build))
    stub = await open_stub(stack, served)
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir)))))
    assert (failure.code, failure.reason) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert failure.metadata == {"dependency": "governance"}
    assert calls == 1


async def test_a_callees_own_refusals_never_open_the_breaker(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    async def get(_request: Any, _context: Any) -> Receipt:
        raise UnavailableError("the lake is behind", retry_after=timedelta(seconds=1))

    served = await stack.enter_async_context(started("probe", settings, Probe(get=get).build))
    dependency = Dependency("probe")
    stub = ReceiptProducerServiceStub(await stack.enter_async_context(connect(served.address, to=dependency)))
    for token in (principal_token(data_dir), "none"):
        for _ in range(2 * FAILURES):
            await failed(stub.GetReceipt(receipt_of(), **bearer(token)))
    assert not dependency.breaker.is_open


def test_what_is_open_and_what_was_refused_is_measured() -> None:
    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"counterfoil_{name}", {"dependency": "measured", **labels})

    dependency = Dependency("measured", 1)
    assert value("dependency_open") == 0.0
    opened(dependency.breaker)
    with pytest.raises(grpc.aio.AioRpcError):
        dependency.require()
    assert value("dependency_open") == 1.0
    assert value("dependency_refused_total", cause="open") == 1.0
    dependency.running = 1
    assert value("dependency_calls") == 1.0
    del dependency
    assert value("dependency_open") is None, "a process forgets what it does not depend on any more"
