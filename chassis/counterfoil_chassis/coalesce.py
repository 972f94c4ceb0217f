"""Coalescing: what several callers ask of one method travels in shared calls.

A unary call between processes costs some hundred microseconds of processor time whatever it carries. So what is asked
while one is under way rides in the next one, which sets off when that one is answered, or beside it once there is much
to carry. There is no timer: an idle one sends at once. A call that takes long is not waited for: others go beside it,
up to a bound. Within a call it is the callee that has to answer without the item that takes long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Generic, TypeVar

import grpc

from counterfoil_chassis.errors import ResourceExhaustedError
from counterfoil_chassis.status import status_of

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 2
MANY_ITEMS = 16
MANY_BYTES = 256 << 10
"""What waits is much from here on: it sets off beside one call under way, so that caller and callee both have work."""
SLOW_SECONDS = 0.05
"""After which a second one does so whatever it carries."""
LONG_SECONDS = 0.25
MOST_LONG = 8
"""Calls beyond `IN_FLIGHT` once those in flight have taken `LONG_SECONDS`."""
MAX_ITEMS = 256
MAX_BYTES = 4 << 20
MAX_WAITING_BYTES = 64 << 20
_TURNS = 3
"""Of the loop between an answer and the next call, unless that has much to carry: what came while the callers were told
is read and asked, and rides along. Where nothing has come the turns take no time."""


class TooMuchWaitsError(ResourceExhaustedError):
    """More waits for a service than memory should hold; try again a little later."""

    reason = "BUSY"


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    deadline: float
    done: asyncio.Future[Result]


class Coalescer(Generic[Item, Result]):
    """Sends items in shared calls; each caller gets its own result, error and deadline."""

    def __init__(
        self,
        send: Callable[[Sequence[Item], float], Awaitable[Sequence[Result]]],
        *,
        size_of: Callable[[Item], int],
        many: int = MANY_ITEMS,
    ) -> None:
        """Take what makes one call: items and seconds to results in their order; and an item's size in bytes.

        From `many` items on what waits is much; more are worth waiting for where an item costs the callee little.
        """
        self._send = send
        self._size_of = size_of
        self._many = many
        self._waiting: list[_Waiting[Item, Result]] = []
        self._waiting_bytes = 0
        self._calls: dict[asyncio.Task[None], float] = {}
        self._is_beginning = False

    async def ask(self, item: Item, *, timeout: float) -> Result:  # noqa: ASYNC109  (it becomes part of the shared call's)
        """Return the item's result within `timeout` seconds.

        Raises TooMuchWaitsError, TimeoutError, or what `send` raised. A caller that is cancelled takes its item along
        if it was not sent yet.
        """
        size = self._size_of(item)
        if self._waiting and self._waiting_bytes + size > MAX_WAITING_BYTES:
            text = "too much waits for this; send it again after a second"
            raise TooMuchWaitsError(text, retry_after=timedelta(seconds=1))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        entry = _Waiting(item, size, time.monotonic() + timeout, done)
        self._waiting.append(entry)
        self._waiting_bytes += size
        if not self._is_beginning and self._has_room():
            self._is_beginning = True  # what is asked in this turn of the loop rides along
            loop.call_soon(self._turn, 0, context=Context())  # nobody's deadline or trace is the shared call's
        expiry = loop.call_later(timeout, _expire, done)
        try:
            return await done
        finally:
            expiry.cancel()

    def _turn(self, left: int) -> None:
        """Begin in so many turns of the loop, or now if there is much to carry."""
        if left and not self._is_much():
            asyncio.get_running_loop().call_soon(self._turn, left - 1)
        else:
            self._is_beginning = False
            self._begin()

    def _begin(self) -> None:
        """Start calls while there is something to send and room for a call."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._has_room():
            batch = self._take()
            if batch:
                call = asyncio.ensure_future(self._call(batch))
                self._calls[call] = time.monotonic()
                late = [loop.call_later(seconds, self._begin) for seconds in (SLOW_SECONDS, LONG_SECONDS)]
                call.add_done_callback(partial(self._ended, late))

    def _has_room(self) -> bool:
        running = len(self._calls)
        if not running:
            return True
        if running < IN_FLIGHT:
            return self._is_much() or self._running_for(SLOW_SECONDS) == running
        return running < IN_FLIGHT + min(self._running_for(LONG_SECONDS), MOST_LONG)

    def _is_much(self) -> bool:
        return len(self._waiting) >= self._many or self._waiting_bytes >= MANY_BYTES

    def _running_for(self, seconds: float) -> int:
        """Return how many calls have been under way for so long."""
        since = time.monotonic() - seconds
        return sum(began <= since for began in self._calls.values())

    def _ended(self, late: Sequence[asyncio.TimerHandle], call: asyncio.Task[None]) -> None:
        for timer in late:
            timer.cancel()
        del self._calls[call]
        if not self._is_beginning:
            self._is_beginning = True
            self._turn(_TURNS)

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Take the oldest items, as many as fit into one call; those whose callers left are dropped."""
        taken: list[_Waiting[Item, Result]] = []
        size = seen = 0
        for entry in self._waiting:
            if not entry.done.done():
                if taken and (len(taken) == MAX_ITEMS or size + entry.size > MAX_BYTES):
                    break
                taken.append(entry)
                size += entry.size
            seen += 1
            self._waiting_bytes -= entry.size
        del self._waiting[:seen]
        return taken

    async def _call(self, batch: list[_Waiting[Item, Result]]) -> None:
        """Make one call; when it fails for what one item may have caused, its halves go apart."""
        try:
            results = await self._send([entry.item for entry in batch], _time_left(batch))
        except grpc.aio.AioRpcError as error:
            if len(batch) > 1 and _may_be_one_items(error):
                middle = len(batch) // 2
                await self._call(batch[:middle])
                await self._call(batch[middle:])
                return
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to those who wait for these items)
            _fail(batch, error)
        else:
            for entry, result in zip(batch, results, strict=True):
                if not entry.done.done():
                    entry.done.set_result(result)


def _may_be_one_items(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether one item may have made a call fail: what breaks a rule, or makes the messages too large.

    Of a size gRPC itself complains, without our details; with them the callee says that it has too much to do.
    """
    code = error.code()
    return code is grpc.StatusCode.INVALID_ARGUMENT or (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED and status_of(error) is None
    )


def _time_left(batch: Sequence[_Waiting[Item, Result]]) -> float:
    """Return the seconds of the most patient caller: each other one stops waiting by itself."""
    return max(0.001, max(entry.deadline for entry in batch) - time.monotonic())


def _expire(done: asyncio.Future[Result]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())


def _fail(batch: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
    for entry in batch:
        if not entry.done.done():
            entry.done.set_exception(error)
