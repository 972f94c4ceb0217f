from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.outbox import OutboxRelay, enqueue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.chassis.probe import HandClock, eventually

pytestmark = pytest.mark.both_engines

CLOCK = HandClock()


class Receiver:
    """Takes what is delivered; can be told to fail before or after it took a batch."""

    def __init__(self, *plan: str) -> None:
        self.plan = list(plan)
        self.got: list[bytes] = []
        self.batches: list[int] = []
        self.changed = asyncio.Condition()

    async def deliver(self, payloads: Sequence[bytes]) -> None:
        step = self.plan.pop(0) if self.plan else "take"
        if step == "refuse":
            raise UnavailableError("not now")
        async with self.changed:
            self.got.extend(payloads)
            self.batches.append(len(payloads))
            self.changed.notify_all()
        if step == "crash":
            raise RuntimeError("the process dies before it can note the delivery")

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: len(set(self.got)) >= count)


async def put(database: Database, relay: OutboxRelay | None, *payloads: bytes, topic: str = "t") -> None:
    async with database.begin() as connection:
        for payload in payloads:
            await enqueue(connection, topic=topic, payload=payload, now=CLOCK.now())
        if relay is not None:
            database.after_commit(connection, relay.wake)


@asynccontextmanager
async def running(relay: OutboxRelay) -> AsyncIterator[None]:
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def left(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one()


async def test_what_commits_is_delivered_once_in_order_and_then_gone(database: Database) -> None:
    receiver = Receiver()
    relay = OutboxRelay(database, "t", receiver.deliver, CLOCK)

    async def only_the_other() -> bool:
        return await left(database) == 1

    sent = [f"{n:04}".encode() for n in range(250)]
    await put(database, None, *sent[:150])
    await put(database, None, b"other", topic="other")
    async with running(relay):
        await receiver.until(150)
        await put(database, relay, *sent[150:])
        await receiver.until(250)
        await eventually(only_the_other)
    assert receiver.got == sent
    assert max(receiver.batches) <= 100


async def test_what_rolls_back_is_never_delivered(database: Database) -> None:
    receiver = Receiver()
    relay = OutboxRelay(database, "t", receiver.deliver, CLOCK)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the transaction is the statement
        async with database.begin() as connection:
            await enqueue(connection, topic="t", payload=b"lost", now=CLOCK.now())
            raise ZeroDivisionError
    async with running(relay):
        await put(database, relay, b"kept")
        await receiver.until(1)
    assert receiver.got == [b"kept"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["take", "refuse", "crash"]), max_size=3), st.integers(1, 5))
async def test_every_message_arrives_in_order_whatever_fails_between(
    database: Database, plan: list[str], count: int
) -> None:
    receiver = Receiver(*plan)
    sent = [f"{n}".encode() for n in range(count)]
    await put(database, None, *sent)
    while await left(database):
        relay = OutboxRelay(database, "t", receiver.deliver, CLOCK)  # a fresh process finds what the last one left
        task = asyncio.create_task(relay.run())
        await eventually(partial(_over, database, task))
        task.cancel()
        with suppress(asyncio.CancelledError, RuntimeError):
            await task
    assert list(dict.fromkeys(receiver.got)) == sent
    assert receiver.got == sent * (len(receiver.got) // len(sent))


async def _over(database: Database, task: asyncio.Task[None]) -> bool:
    return task.done() or await left(database) == 0


async def test_large_messages_go_in_smaller_batches(database: Database) -> None:
    receiver = Receiver()
    relay = OutboxRelay(database, "t", receiver.deliver, CLOCK)
    await put(database, None, *[bytes([n]) * 3_000_000 for n in range(3)], b"x" * 6_000_000)
    async with running(relay):
        await receiver.until(4)
    assert receiver.batches == [1, 1, 1, 1]


async def test_a_bug_in_delivery_ends_the_relay_instead_of_hiding(database: Database) -> None:
    async def deliver(_payloads: Sequence[bytes]) -> None:
        raise TypeError("a bug")

    await put(database, None, b"x")
    with pytest.raises(TypeError, match="a bug"):
        await OutboxRelay(database, "t", deliver, CLOCK).run()
    assert await left(database) == 1
