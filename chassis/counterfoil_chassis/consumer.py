"""Consumers of a log: a batch's effect and the place after it commit together, so nothing is missed or done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from sqlalchemy import and_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import CounterfoilError, FailedPreconditionError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.metrics import CONSUMER_BEHIND
from counterfoil_chassis.status import cause_of, failure_of
from counterfoil_chassis.tables import TABLES

T = TypeVar("T")

_SILENCE_SECONDS = 15.0  # a heartbeat comes every five
_table = TABLES.cursor
_logger = logging.getLogger(__name__)


class EpochUnknownError(FailedPreconditionError):
    """The log was restored and does not continue the life of it that the cursor belongs to."""

    reason = "LOG_EPOCH_UNKNOWN"


@dataclass(frozen=True)
class Cursor:
    """Where to read next: an offset in one life of the log; an empty epoch means nothing was read yet."""

    log_epoch: str
    next_offset: int


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Some records and the offset after them; `records` None is a heartbeat, sent when there is nothing to read.

    `received_us` is when the newest of them was received.
    """

    log_epoch: str
    next_offset: int
    records: T | None
    received_us: int = 0


class LogConsumer(Generic[T]):
    """Reads one partition of one workspace's log from its stored cursor and applies batch after batch.

    `read(cursor)` opens the stream; `apply(connection, records)` does the effect in the transaction that also moves
    the cursor. A failing stream is opened again from the cursor; an error of `apply` ends the consumer. `remedy` says
    how what it made is made anew when the log was restored and this service was not.

    The sender refuses a cursor that its log does not continue. So a stream that answers in another life of the log than
    its cursor's continues that one, and the cursor goes over to it.
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        workspace: str,
        partition: int,
        read: Callable[[Cursor], AsyncIterable[Batch[T]]],
        apply: Callable[[AsyncConnection, T], Awaitable[None]],
        remedy: str,
    ) -> None:
        self._database = database
        self._key = {"workspace": workspace, "consumer": name, "partition": partition}
        self._read = read
        self._apply = apply
        self._remedy = remedy
        self._continued = ""  # the life of the log that the running stream was asked to go on from
        self._heard = time.monotonic()
        self._behind = 0.0
        self._cause = ""

    async def run(self) -> None:
        """Consume for ever; raise EpochUnknownError, which says what to do, when the log was restored.

        What it raises is told by this process's health until a consumer of the same place begins.
        """
        name = str(self._key["consumer"])
        forget = HEALTH.add(f"log consumer {name}", self._problem, key=("log consumer", *self._key.values()))
        self._heard = time.monotonic()
        try:
            with CONSUMER_BEHIND.reading(name, read=self._lag):
                await self._consume()
        except CounterfoilError as error:
            self._cause = f"stopped ({error.reason}): {error.message}"
            raise
        except BaseException:
            forget()
            raise

    def _lag(self) -> float:
        silent = time.monotonic() - self._heard
        return silent if silent > _SILENCE_SECONDS else self._behind

    def _problem(self) -> str:
        return self._cause

    async def _consume(self) -> None:
        backoff = Backoff(first=0.1, longest=5.0)
        while True:
            try:
                cursor = await self.cursor()
                self._continued = cursor.log_epoch
                async for batch in self._read(cursor):
                    await self._take(batch)
                    self._heard, self._cause = time.monotonic(), ""
                    self._behind = max(0.0, time.time() - batch.received_us / 1e6) if batch.received_us else 0.0
                    backoff.reset()
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
                if failure.reason == EpochUnknownError.reason:
                    raise self._epoch_unknown(failure.metadata.get("log_epoch", ""), failure.detail) from error
                self._cause = f"the log cannot be read ({cause_of(error)}); it is tried again"
                if backoff.attempt == 0:
                    fields = {**self._key, "cause": f"{failure.code.name}: {failure.detail}"}
                    _logger.warning("reading the log is interrupted", extra=fields)
            await backoff.pause()

    async def cursor(self) -> Cursor:
        """Return the stored cursor; at the beginning, offset 0 of no epoch."""
        async with self._database.read() as connection:
            return await self._cursor(connection)

    async def _take(self, batch: Batch[T]) -> None:
        if batch.records is None:
            known = (await self.cursor()).log_epoch
            if self._goes_over(known, batch.log_epoch):
                async with self._database.begin() as connection:
                    cursor = await self._cursor(connection)
                    await self._store(connection, Cursor(batch.log_epoch, cursor.next_offset))
            return
        async with self._database.begin() as connection:
            cursor = await self._cursor(connection)
            self._goes_over(cursor.log_epoch, batch.log_epoch)
            if batch.next_offset <= cursor.next_offset:
                return  # done by another reader of the same name
            await self._apply(connection, batch.records)
            await self._store(connection, Cursor(batch.log_epoch, batch.next_offset))

    def _goes_over(self, known: str, found: str) -> bool:
        """Return whether the cursor goes over to another life of the log; raise EpochUnknownError when it must not."""
        if known in ("", found):
            return False
        if known != self._continued:
            raise self._epoch_unknown(found, "The log was restored while it was read.")
        return True

    def _epoch_unknown(self, found: str, why: str) -> EpochUnknownError:
        return EpochUnknownError(
            f"{why} The consumer {self._key['consumer']} of workspace {self._key['workspace']} stands still: restore "
            f"this service from the backup that the log was restored from, or {self._remedy}.",
            metadata={"log_epoch": found, **{key: str(value) for key, value in self._key.items()}},
        )

    async def _cursor(self, connection: AsyncConnection) -> Cursor:
        here = and_(*(_table.c[column] == value for column, value in self._key.items()))
        row = (await connection.execute(select(_table.c.log_epoch, _table.c.next_offset).where(here))).first()
        return Cursor(log_epoch=row.log_epoch, next_offset=row.next_offset) if row else Cursor("", 0)

    async def _store(self, connection: AsyncConnection, cursor: Cursor) -> None:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        place = {"log_epoch": cursor.log_epoch, "next_offset": cursor.next_offset}
        row = insert(_table).values(**self._key, **place)
        await connection.execute(row.on_conflict_do_update(index_elements=list(_table.primary_key), set_=place))
