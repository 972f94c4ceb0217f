"""Calls through a faulty connection: not multiplied, ended in time, and back by themselves once the fault is gone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.receipts_pb2 import GetReceiptRequest, Receipt
from counterfoil.common.v1.receipts_pb2_grpc import ReceiptProducerServiceStub
from counterfoil_chassis import call
from counterfoil_chassis.breaker import Breaker
from counterfoil_chassis.call import connect
from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import failure_of

from tests.chassis.faults import Fault, FaultProxy, fault_proxy
from tests.chassis.probe import Probe, ProbeSettings, bearer, principal_token, receipt_of

CALLS = 200
AT_ONCE = 20
PATIENCE = 2.0
MARGIN = 1.0  # this machine may be busy
SOON = (("grpc.http2.ping_timeout_ms", 1_000),)
"""Five times as impatient as outside of tests about connections that swallow what they are sent."""
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


class NeverOpen(Breaker):
    """Leaves the work to gRPC's throttling."""

    def failed(self) -> None:
        """Take no notice."""


class Rig:
    """A service behind a proxy, and a caller."""

    def __init__(self, proxy: FaultProxy, stub: Any, token: str, reached: list[str]) -> None:
        self.proxy = proxy
        self.stub = stub
        self.token = token
        self.reached = reached
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    async def call(self) -> bool:
        """Make one call, note how it ended and how long it took."""
        begun = time.monotonic()
        try:
            await self.stub.GetReceipt(receipt_of(), **bearer(self.token, timeout=PATIENCE))
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            assert failure.metadata["dependency"] == "probe"
            self.outcomes[failure.reason] += 1
            return False
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begun)
        self.outcomes["OK"] += 1
        return True

    async def many(self) -> None:
        """Make many calls, some at once."""
        left = iter(range(CALLS))

        async def some() -> None:
            for _ in left:
                await self.call()

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def recovered(self) -> float:
        """Return the seconds until a call is answered; fail after ten."""
        begun = time.monotonic()
        async with asyncio.timeout(10):
            while not await self.call():
                await asyncio.sleep(0.05)
        return time.monotonic() - begun


MakeRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
def make_rig(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> MakeRig:
    monkeypatch.setattr(call, "_PATIENCE", SOON)
    return partial(_rig, stack, settings, data_dir)


async def _rig(stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path, breaker: Breaker | None = None) -> Rig:
    reached: list[str] = []

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        reached.append(request.receipt_id)
        return Receipt(receipt_id=request.receipt_id)

    running = await stack.enter_async_context(started("probe", settings, Probe(get=get).build))
    proxy = await stack.enter_async_context(fault_proxy(running.address))
    dependency = Dependency("probe", breaker=breaker)
    stub = ReceiptProducerServiceStub(await stack.enter_async_context(connect(proxy.address, to=dependency)))
    made = Rig(proxy, stub, principal_token(data_dir), reached)
    for _ in range(AT_ONCE):
        assert await made.call()
    made.reached.clear()
    made.outcomes.clear()
    return made


@pytest.mark.alone
@pytest.mark.figures
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
async def test_a_fault_multiplies_no_load_outlives_no_deadline_and_passes(make_rig: MakeRig, fault: Fault) -> None:
    made = await make_rig()
    await made.proxy.set(fault)
    await made.many()
    amplification = (len(made.reached) + made.proxy.refused_calls) / CALLS
    outcomes = dict(made.outcomes)
    await made.proxy.set(Fault.NONE)
    recovery = await made.recovered()
    print(
        f"{fault.value}: {amplification:.2f} calls arrived per call made, slowest {made.slowest:.2f} s, "
        f"recovered in {recovery:.2f} s, {outcomes}"
    )
    assert amplification <= 1.1
    assert made.slowest <= PATIENCE + MARGIN
    assert recovery <= 4.0 + MARGIN
    if fault is Fault.SLOW:
        assert outcomes == {"OK": CALLS}
    else:
        assert "OK" not in outcomes
        assert outcomes["DEPENDENCY_UNAVAILABLE"] > CALLS / 2, "most calls were refused at once"


@pytest.mark.figures
@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.RESET], ids=lambda fault: fault.value)
async def test_throttling_alone_keeps_retries_from_multiplying_load(make_rig: MakeRig, fault: Fault) -> None:
    made = await make_rig(NeverOpen())
    await made.proxy.set(fault)
    await made.many()
    arrived = len(made.reached) + made.proxy.refused_calls
    print(f"{fault.value}, no breaker: {arrived / CALLS:.2f} calls arrived per call made")
    assert arrived / CALLS <= 1.1
    assert arrived > CALLS / 2 or fault is Fault.RESET  # a lost connection takes its neighbours along


async def test_a_short_fault_is_not_noticed_at_all(make_rig: MakeRig) -> None:
    made = await make_rig()
    await made.proxy.set(Fault.UNAVAILABLE)
    calls = [asyncio.create_task(made.call()) for _ in range(3)]
    while made.proxy.refused_calls < 3:
        await asyncio.sleep(0.001)
    await made.proxy.set(Fault.NONE)
    assert await asyncio.gather(*calls) == [True, True, True]
