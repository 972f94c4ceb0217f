"""Events that travel through a connection that comes and goes: none that was acknowledged is lost, none is doubled."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from counterfoil.ingest.v1 import sources_pb2
from counterfoil_chassis import call
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.identity import Caller
from counterfoil_gateway.append import Appender
from counterfoil_gateway.credentials import SignedIn
from counterfoil_gateway.problems import Problem
from counterfoil_ingest import blocks

from tests.chassis.faults import Fault, FaultProxy, fault_proxy
from tests.ingest.conftest import LogRig
from tests.ingest.ingest_service import APPEND, IngestService, ingest_in

SENDERS = 8
WORKING = 0.4
COURSE = (
    (Fault.RESET, 0.2),
    (Fault.REFUSE, 1.2),
    (Fault.RESET, 0.2),
    (Fault.UNAVAILABLE, 1.0),
    (Fault.RESET, 0.2),
    (Fault.HALF_OPEN, 0.6),
    (Fault.RESET, 0.2),
    (Fault.HANG, 0.6),
    (Fault.RESET, 0.2),
)
"""Faults with their seconds; gRPC's retries bridge the short ones."""


class Sender:
    """Sends one event after the other: one with an id again until it is acknowledged, those without one only once."""

    def __init__(self, name: str, appender: Appender, signed_in: SignedIn) -> None:
        self._name = name
        self._appender = appender
        self._signed_in = signed_in
        self.acknowledged: list[str] = []
        self.answers: Counter[str] = Counter()
        self.stopped = False

    async def run(self) -> None:
        """Send until stopped."""
        for number in itertools.count():
            if self.stopped:
                return
            for kind in ("named", "nameless", "nameless too"):
                await self._until_acknowledged(f"{self._name}-{number}-{kind}", again=kind == "named")

    async def _until_acknowledged(self, mark: str, *, again: bool) -> None:
        event = {"type": "track", "event": "Seen", "userId": mark} | ({"messageId": mark} if again else {})
        while not await self._sent(orjson.dumps({"batch": [event]}), mark):
            await asyncio.sleep(0.05)
            if not again:
                return

    async def _sent(self, body: bytes, mark: str) -> bool:
        how = {"protocol": "segment", "route": "batch", "content_type": "application/json"}
        try:
            await self._appender.append(self._signed_in, body, received_at=self._appender.now(), **how)
        except Problem as problem:
            if (
                problem.status == 503
                and problem.metadata == {"dependency": "ingest"}
                and problem.headers["retry-after"]
            ):
                self.answers[problem.reason] += 1
                return False
            raise
        self.answers["OK"] += 1
        self.acknowledged.append(mark)
        return True


async def comes_and_goes(proxy: FaultProxy) -> None:
    """Let one fault after the other happen, with working times between."""
    for fault, seconds in COURSE:
        await asyncio.sleep(WORKING)
        await proxy.set(fault)
        await asyncio.sleep(seconds)
        await proxy.set(Fault.NONE)
    await asyncio.sleep(WORKING)


async def signed_in(ingest: IngestService) -> SignedIn:
    """Return the holder of a source's key; its events go to `unplanned`, which needs no contract."""
    mapping = sources_pb2.SourceMapping(type="track", event="Planned", dataset="events")
    request = sources_pb2.CreateSourceRequest(display_name="Shop", mappings=[mapping])
    made = await ingest.sources.CreateSource(request, **ingest.called())
    principal = f"source:{made.source.source_id}"
    token = ingest.token("acme", principal, (APPEND,))
    return SignedIn(b"", Caller("acme", principal, frozenset({APPEND}), ""), token)


@pytest.mark.figures
async def test_what_is_acknowledged_through_faults_is_in_the_log_once(
    tmp_path: Path,
    open_log: Callable[[], Awaitable[LogRig]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call, "_PATIENCE", (("grpc.http2.ping_timeout_ms", 500),))
    async with (
        ingest_in(tmp_path) as ingest,
        fault_proxy(ingest.address) as proxy,
        connect(proxy.address, to=Dependency("ingest"), traced=False) as channel,
    ):
        appender = Appender(channel, signer=ingest.gateway, clock=SystemClock())
        holder = await signed_in(ingest)
        senders = [Sender(str(number), appender, holder) for number in range(SENDERS)]
        running = [asyncio.create_task(sender.run()) for sender in senders]
        await comes_and_goes(proxy)
        for sender in senders:
            sender.stopped = True
        await asyncio.gather(*running)
    acknowledged = [mark for sender in senders for mark in sender.acknowledged]
    log = (await open_log()).log
    found = Counter(
        orjson.loads(record.data)["user_id"]
        for block in log.read("acme", 0, 0, max_bytes=1 << 30)
        for record in blocks.decode(block)
    )
    answers = sum((sender.answers for sender in senders), Counter())
    print(f"{len(acknowledged)} acknowledged, {sum(found.values())} in the log, {dict(answers)}")
    assert set(acknowledged) <= set(found), "an acknowledged event is lost"
    assert set(found.values()) == {1}, "an event is in the log twice"
    assert answers["OK"] > 100
    assert answers["DEPENDENCY_UNAVAILABLE"], "no fault was noticed"
