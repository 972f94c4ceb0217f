"""Uploads that break off: how the service behind is told, so that it never keeps a part as a whole.

grpc ends the requests of a cancelled call exactly as it ends those of a finished one, and cancels the servicer a moment
later; a quick servicer has answered by then. So an upload is not cancelled but spoiled: its last message is empty,
which no method that takes many messages accepts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

SPOILED = b""
"""A message with nothing set."""
CANCELLED_WITHIN = 0.05
"""Seconds in which the end of a cancelled call's requests is followed by its cancellation."""
REFUSED_WITHIN = 5.0
"""Seconds a service has to refuse a spoiled upload before the call is cancelled after all."""


class Forwarded:
    """The requests of one upload through the gRPC door."""

    def __init__(self, requests: AsyncIterator[bytes]) -> None:
        self._requests = requests
        self._broken = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the requests; at a break, one that spoils them."""
        try:
            async for request in self._requests:
                yield request
        except grpc.aio.BaseError:
            self._broken.set()
        try:
            await asyncio.wait_for(self._broken.wait(), CANCELLED_WITHIN)
        except TimeoutError:
            return
        yield SPOILED

    async def answer(self, call: Any) -> bytes:
        """Return the call's answer; when the caller breaks off, first see the spoiled upload refused."""
        answering = asyncio.ensure_future(_wait(call))
        try:
            return await asyncio.shield(answering)
        except asyncio.CancelledError:
            self._broken.set()
            await asyncio.wait([answering], timeout=REFUSED_WITHIN)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            raise


async def _wait(call: Any) -> bytes:
    answer: bytes = await call
    return answer
