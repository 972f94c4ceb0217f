"""A circuit breaker: who has called in vain too often does not call for a while, but for one try a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

LOOKED_AT: Final = 10
"""Calls that are looked at, counted from the first one that failed."""
FAILURES: Final = 5
"""So many of them failed: the breaker opens."""
FORGOTTEN_AFTER: Final = 30.0
"""Seconds without a failure after which the earlier ones say nothing any more."""
PAUSE: Final = 1.0
"""Seconds between two tries while it is open."""
PATIENCE: Final = 2.0
"""A call that was given less than these seconds says nothing about the other side when they run out."""


class Breaker:
    """Judges one dependency by what became of the calls to it.

    A failure is a call that nobody answered. An answer, whatever it says, is none: a callee's NOT_FOUND shows that it
    is well. Nor is a call that ran out of time while others were answered: it asked for much. While the breaker is open
    one call a second goes through; the first answer closes it.
    """

    __slots__ = ("_answered_at", "_failed_at", "_failures", "_monotonic", "_next_try", "_recent", "is_open")

    def __init__(self, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self.is_open = False
        self._monotonic = monotonic
        self._recent: deque[bool] = deque()  # whether each call failed; empty while all is well
        self._failures = 0
        self._failed_at = self._answered_at = self._next_try = float("-inf")

    def lets_through(self) -> bool:
        """Say whether a call may be made; while open, yes means that it is this second's try."""
        if not self.is_open:
            return True
        now = self._monotonic()
        if now < self._next_try:
            return False
        self._next_try = now + PAUSE
        return True

    def answered(self) -> None:
        """Note that a call was answered."""
        self._answered_at = self._monotonic()
        if self.is_open:
            self.is_open = False
            self._forget()
        elif self._recent:
            self._note(failed=False)

    def failed(self) -> None:
        """Note that a call reached nobody, or lost its connection."""
        now = self._monotonic()
        if now - self._failed_at > FORGOTTEN_AFTER:
            self._forget()
        self._failed_at = now
        self._note(failed=True)
        if self._failures >= FAILURES and not self.is_open:
            self.is_open = True
            self._next_try = now + PAUSE

    def ran_out_of_time(self, begun: float, timeout: float) -> None:
        """Note that a call, begun at that moment of `time.perf_counter`, got no answer within `timeout` seconds."""
        if timeout >= PATIENCE and self._answered_at < begun:
            self.failed()

    def _note(self, *, failed: bool) -> None:
        self._recent.append(failed)
        self._failures += failed
        if len(self._recent) > LOOKED_AT:
            self._failures -= self._recent.popleft()
        if not self._failures:
            self._recent.clear()

    def _forget(self) -> None:
        self._recent.clear()
        self._failures = 0
