"""Growing pauses between attempts, and waits with an end."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Pauses that double from `first` to `longest` seconds, each shortened by up to half at random."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.attempt = 0

    async def pause(self) -> None:
        """Wait before the next attempt."""
        whole = min(self._longest, self._first * 2 ** min(self.attempt, 30))
        self.attempt += 1
        await asyncio.sleep(whole * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Begin again with the first pause, after a success."""
        self.attempt = 0


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
