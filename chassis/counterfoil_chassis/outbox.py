"""Messages that leave with the transaction that caused them: written with it, delivered after it, at least once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import grpc
from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_chassis import telemetry
from counterfoil_chassis.backoff import Backoff, wait
from counterfoil_chassis.clock import Clock, to_micros
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.metrics import OUTBOX_AGE, OUTBOX_MESSAGES
from counterfoil_chassis.status import cause_of
from counterfoil_chassis.tables import TABLES

_BATCH_ITEMS = 100
_BATCH_BYTES = 4 * 1024 * 1024
_POLL_SECONDS = 5.0
_table = TABLES.outbox

ENQUEUE = "INSERT INTO outbox (topic, payload, traceparent, created_us) VALUES (?1, ?2, ?3, ?4)"
"""What `enqueue` does, for a transaction of the database that is not SQLAlchemy's; its places are numbered."""

_logger = logging.getLogger(__name__)


async def enqueue(connection: AsyncConnection, *, topic: str, payload: bytes, now: datetime) -> None:
    """Write a message in the open transaction; wake the relay after the commit (`database.after_commit`)."""
    values = {
        "topic": topic,
        "payload": payload,
        "traceparent": telemetry.current_traceparent(),
        "created_us": to_micros(now),
    }
    await connection.execute(insert(_table).values(values))


class OutboxRelay:
    """Delivers the messages of one topic in the order they were written, at most 100 or 4 MiB at once.

    Delivery that fails by gRPC, a CounterfoilError or the operating system is tried again with growing pauses, for
    ever and in order; anything else is a bug and ends the process. What is delivered is deleted; a crash in between
    delivers it again, so the receiver must be idempotent.
    """

    def __init__(
        self, database: Database, topic: str, deliver: Callable[[Sequence[bytes]], Awaitable[None]], clock: Clock
    ) -> None:
        self._database = database
        self._topic = topic
        self._deliver = deliver
        self._clock = clock
        self._awake = asyncio.Event()
        self._messages = 0
        self._oldest_us = 0
        self._cause = ""

    def wake(self) -> None:
        """Say that there is something to deliver."""
        self._awake.set()

    async def run(self) -> None:
        """Deliver for ever; another process's messages are found within five seconds."""
        backoff = Backoff(first=0.1, longest=30.0)
        with (
            HEALTH.checking(f"outbox {self._topic}", self._problem),
            OUTBOX_MESSAGES.reading(self._topic, read=lambda: self._messages),
            OUTBOX_AGE.reading(self._topic, read=self._age),
        ):
            while True:
                self._awake.clear()
                rows = await self._next()
                if not rows:
                    await wait(self._awake, _POLL_SECONDS)
                elif await self._delivered(rows, attempt=backoff.attempt):
                    backoff.reset()
                    await self._delete(rows)
                else:
                    await backoff.pause()

    def _age(self) -> float:
        return (to_micros(self._clock.now()) - self._oldest_us) / 1e6 if self._messages else 0.0

    def _problem(self) -> str:
        if not self._cause:
            return ""
        return (
            f"{self._messages} messages wait, the oldest for {self._age():.0f} s: {self._cause}; "
            "they are kept and sent again, see that the service they go to answers"
        )

    async def _next(self) -> list[Row[Any]]:
        wanted = select(_table.c.sequence, _table.c.payload, _table.c.traceparent, _table.c.created_us)
        wanted = wanted.where(_table.c.topic == self._topic).order_by(_table.c.sequence).limit(_BATCH_ITEMS)
        waiting = select(func.count()).select_from(_table).where(_table.c.topic == self._topic)
        async with self._database.read() as connection:
            rows: list[Row[Any]] = list(await connection.execute(wanted))
            full = len(rows) == _BATCH_ITEMS
            self._messages = (await connection.execute(waiting)).scalar_one() if full else len(rows)
        self._oldest_us = rows[0].created_us if rows else 0
        size, kept = 0, 0
        for row in rows:
            size += len(row.payload)
            if kept and size > _BATCH_BYTES:
                break
            kept += 1
        return rows[:kept]

    async def _delivered(self, rows: Sequence[Row[Any]], *, attempt: int) -> bool:
        attributes: dict[str, str | int] = {
            telemetry.ATTRIBUTE_TOPIC: self._topic,
            telemetry.ATTRIBUTE_ITEMS: len(rows),
        }
        links = telemetry.links_to([row.traceparent for row in rows])
        with telemetry.tracer().start_as_current_span(
            telemetry.SPAN_OUTBOX_DELIVER, links=links, attributes=attributes
        ):
            try:
                await self._deliver([row.payload for row in rows])
            except (grpc.aio.AioRpcError, CounterfoilError, OSError) as error:
                self._cause = _cause(error)
                if attempt == 0:
                    age = (to_micros(self._clock.now()) - rows[0].created_us) / 1e6
                    fields = {"topic": self._topic, "items": len(rows), "oldest_seconds": age, "cause": self._cause}
                    _logger.warning("delivery failed; it is tried again", extra=fields)
                return False
        self._cause = ""
        if attempt:
            _logger.info("delivery works again", extra={"topic": self._topic})
        return True

    async def _delete(self, rows: Sequence[Row[Any]]) -> None:
        async with self._database.begin() as connection:
            await connection.execute(delete(_table).where(_table.c.sequence.in_([row.sequence for row in rows])))


def _cause(error: Exception) -> str:
    return cause_of(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
