"""What the parts of a process say of themselves: databases, watched feeds, consumers of the log, outboxes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.watch_pb2 import WatchHeartbeat, WatchResponse
from counterfoil_chassis.consumer import Batch, Cursor, EpochUnknownError, LogConsumer
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.health import FAILING_KEY, HEALTH, Check, disk_space
from counterfoil_chassis.metrics import measure_loop_lag
from counterfoil_chassis.outbox import OutboxRelay, enqueue
from counterfoil_chassis.serve import started
from counterfoil_chassis.watch import Watcher
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client import REGISTRY

from tests.chassis.probe import HandClock, Probe, ProbeSettings, answer, eventually, open_stub


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what other tests' servers in this process have checked."""
    monkeypatch.setattr(HEALTH, "_sources", {})
    monkeypatch.setattr(HEALTH, "_known", {})


async def check(name: str) -> Check | None:
    return next((each for each in await HEALTH.report(datetime.now(UTC)) if each.name == name), None)


async def becomes(name: str, *, ok: bool) -> Check:
    found: list[Check] = []

    async def so() -> bool:
        each = await check(name)
        if each is None or each.ok is not ok:
            return False
        found.append(each)
        return True

    await eventually(so)
    return found[-1]


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_watcher_says_since_when_it_heard_nothing_and_why_and_recovers() -> None:
    there = asyncio.Event()

    async def stream(_after: int) -> AsyncIterator[WatchResponse]:
        if not there.is_set():
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE,
                grpc.aio.Metadata(),
                grpc.aio.Metadata(),
                details="ipv4:10.0.0.9:7105 refused",
            )
        while True:
            yield WatchResponse(revision=1, heartbeat=WatchHeartbeat())
            await asyncio.sleep(0.05)

    watcher = Watcher(stream, lambda _key, _resource: None, lambda _key: None, name="governance things")
    async with running(watcher.run()):
        failing = await becomes("watch governance things", ok=False)
        assert "UNAVAILABLE" in failing.detail
        assert "10.0.0.9" not in failing.detail  # it is told at a public door
        assert not failing.needed
        there.set()
        await becomes("watch governance things", ok=True)
        age = sample("counterfoil_watch_age_seconds", watch="governance things")
        assert age is not None
        assert age < 5
    assert await check("watch governance things") is None
    assert sample("counterfoil_watch_age_seconds", watch="governance things") is None


async def nothing(_connection: Any, _records: Any) -> None:
    return None


def consumer(database: Database, read: Any) -> LogConsumer[Any]:
    return LogConsumer(
        database, name="parts", workspace="w", partition=0, read=read, apply=nothing, remedy="count again"
    )


async def test_a_consumer_tells_how_far_it_is_behind(database: Database) -> None:
    received_us = int((time.time() - 60) * 1e6)
    at_head = asyncio.Event()

    async def read(_cursor: Cursor) -> AsyncIterator[Batch[Any]]:
        yield Batch("e1", 3, ["record"], received_us)
        await at_head.wait()
        yield Batch("e1", 3, None)
        await asyncio.Event().wait()

    def lag() -> float:
        return sample("counterfoil_consumer_behind_seconds", consumer="parts") or 0.0

    async with running(consumer(database, read).run()):

        async def behind() -> bool:
            return 59 < lag() < 90

        async def caught_up() -> bool:
            return lag() < 1

        await eventually(behind)
        at_head.set()
        await eventually(caught_up)


async def test_a_consumer_that_stopped_is_told_until_one_of_its_place_begins(database: Database) -> None:
    async def restored(_cursor: Cursor) -> AsyncIterator[Batch[Any]]:
        yield Batch("e1", 3, ["record"])
        yield Batch("e2", 9, ["record"])
        yield Batch("e3", 9, ["record"])

    with pytest.raises(EpochUnknownError):
        await consumer(database, restored).run()
    stopped = await becomes("log consumer parts", ok=False)
    assert "LOG_EPOCH_UNKNOWN" in stopped.detail
    assert "count again" in stopped.detail

    async def heartbeats(cursor: Cursor) -> AsyncIterator[Batch[Any]]:
        while True:
            yield Batch(cursor.log_epoch, cursor.next_offset, None)
            await asyncio.sleep(0.02)

    async with running(consumer(database, heartbeats).run()):
        await becomes("log consumer parts", ok=True)
    assert await check("log consumer parts") is None


async def test_an_outbox_tells_how_much_waits_how_long_and_why(database: Database) -> None:
    clock, refuses = HandClock(), True

    async def deliver(_payloads: Sequence[bytes]) -> None:
        if refuses:
            raise UnavailableError("governance is away")

    async with database.begin() as connection:
        for payload in (b"1", b"2", b"3"):
            await enqueue(connection, topic="parts", payload=payload, now=clock.now())
    clock.forward(timedelta(seconds=90))
    async with running(OutboxRelay(database, "parts", deliver, clock).run()):
        failing = await becomes("outbox parts", ok=False)
        assert "3 messages wait, the oldest for 90 s: governance is away" in failing.detail
        assert sample("counterfoil_outbox_messages", topic="parts") == 3
        assert sample("counterfoil_outbox_age_seconds", topic="parts") == 90
        refuses = False
        await becomes("outbox parts", ok=True)

        async def empty() -> bool:
            return sample("counterfoil_outbox_messages", topic="parts") == 0

        await eventually(empty)
        assert sample("counterfoil_outbox_age_seconds", topic="parts") == 0


async def test_a_database_that_cannot_be_read_takes_readiness_away_and_a_closed_one_is_none(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'probe.db'}")
    failing = await becomes("database", ok=False)
    assert failing.needed
    assert not HEALTH.ready
    await database.close()
    assert await check("database") is None
    assert HEALTH.ready


async def test_who_asks_for_health_is_told_what_fails(stack: AsyncExitStack, settings: ProbeSettings) -> None:
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    health = await open_stub(stack, running, HealthStub)
    with HEALTH.checking("disk", lambda: "make room"):
        await HEALTH.report(datetime.now(UTC))
        call = health.Check(HealthCheckRequest(), timeout=30)
        await call
        assert (FAILING_KEY, b'{"disk":"make room"}') in tuple(await call.trailing_metadata())
    call = health.Check(HealthCheckRequest(), timeout=30)
    await call
    assert FAILING_KEY not in dict(await call.trailing_metadata())


def test_a_disk_is_full_before_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = {"total": 100 << 30, "free": 2 << 30}
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), usage))
    assert disk_space(tmp_path)() == ""
    usage["free"] = 900 << 20
    assert "900 MiB" in disk_space(tmp_path)()
    usage |= {"total": 4 << 30, "free": 250 << 20}  # a small one keeps 5 %
    assert disk_space(tmp_path)() == ""


async def test_a_disk_that_is_gone_is_told_and_ends_nobody(tmp_path: Path) -> None:
    with HEALTH.checking("disk", disk_space(tmp_path / "nowhere")):
        assert "cannot be looked at: No such file" in (await becomes("disk", ok=False)).detail


async def test_a_loop_that_is_held_up_shows() -> None:
    def late() -> float:
        total = sample("counterfoil_event_loop_lag_seconds_count") or 0.0
        return total - (sample("counterfoil_event_loop_lag_seconds_bucket", le="0.1") or 0.0)

    before = late()
    async with running(measure_loop_lag()):
        await asyncio.sleep(0)
        time.sleep(0.8)  # noqa: ASYNC251 - this is what is measured

        async def seen() -> bool:
            return late() > before

        await eventually(seen)
