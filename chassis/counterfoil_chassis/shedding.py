"""Load shedding: what a process could only answer late, it refuses at once, and keeps its memory."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Final

from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.metrics import OVERLOAD_REFUSED

RETRY_AFTER: Final = timedelta(seconds=1)
_LOOK_EVERY_SECONDS = 0.1


class OverloadedError(UnavailableError):
    """More is asked of this process than it can answer in time; nothing was done. Send it again after a second."""

    reason = "OVERLOADED"


class Load:
    """What runs in a process, and how long its event loop lets everybody wait; both have a bound.

    A request runs in `with load:`, or between `enter` and `leave`.
    """

    def __init__(self, *, most: int, delay: float) -> None:
        """Take how many requests may run at once, and from how many seconds of delay on none is taken."""
        self.running = 0
        self.delay = 0.0
        """Seconds that the event loop came late at both of the last two looks: one long step is no overload."""
        self._most = most
        self._most_delay = delay

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Count a request that begins; raise OverloadedError when it would be one too many."""
        if self.running >= self._most:
            raise overloaded("running")
        if self.delay > self._most_delay:
            raise overloaded("delay")
        self.running += 1

    def leave(self) -> None:
        """Count a request that has ended."""
        self.running -= 1

    async def watch(self) -> None:
        """Look for ever how late the event loop is."""
        earlier = 0.0
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            late = time.perf_counter() - begun - _LOOK_EVERY_SECONDS
            self.delay, earlier = min(earlier, late), late


def overloaded(bound: str) -> OverloadedError:
    """Return the refusal, and count it by the bound that was reached."""
    OVERLOAD_REFUSED.labels(bound).inc()
    return OverloadedError("too much is asked of this at once; try again after a second", retry_after=RETRY_AFTER)
