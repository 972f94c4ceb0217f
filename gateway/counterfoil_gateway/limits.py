"""How much one caller may ask: a token bucket per key, and one per address for keys that turn out to be none.

The library `limits` counts in windows behind a storage of its own; what is wanted here is a bucket in memory on a path
that is measured in microseconds, and a bucket is one number per caller: the time at which it would be full again
(GCRA, ITU-T I.371). Each gateway counts for itself, so a caller gets at most this much times the number of gateways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from counterfoil_gateway.problems import C, Problem

MOST_CALLERS = 100_000


@dataclass(frozen=True)
class Rate:
    """So many per second on average, and so many at once."""

    per_second: float
    """0 = without a limit."""
    burst: int


class Limiter:
    """The buckets of one kind; `name` is told to callers."""

    def __init__(self, name: str, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._rate = rate
        self._step = 1 / rate.per_second if rate.per_second else 0.0
        self._depth = self._step * max(1, rate.burst)
        self._monotonic = monotonic
        self._full_at: dict[Hashable, float] = {}

    def take(self, caller: Hashable) -> None:
        """Count one request; raise Problem 429 when there are too many."""
        if not self._step:
            return
        now = self._monotonic()
        full_at = max(self._full_at.get(caller, now), now) + self._step
        if full_at - now > self._depth:
            raise self._refusal(full_at - now - self._depth)
        if len(self._full_at) >= MOST_CALLERS and caller not in self._full_at:
            self._forget(now)
        self._full_at[caller] = full_at

    def require(self, caller: Hashable) -> None:
        """Raise Problem 429 when the next request would be one too many; count nothing."""
        now = self._monotonic()
        full_at = max(self._full_at.get(caller, now), now) + self._step
        if full_at - now > self._depth:
            raise self._refusal(full_at - now - self._depth)

    def _forget(self, now: float) -> None:
        """Drop the full buckets, which say nothing, and if that is not enough those begun first."""
        kept = [(caller, at) for caller, at in self._full_at.items() if at > now]
        self._full_at = dict(kept[-MOST_CALLERS // 2 :])

    def _refusal(self, wait: float) -> Problem:
        """Say how long to wait, in the fields of draft-ietf-httpapi-ratelimit-headers-10, too."""
        seconds = max(1, math.ceil(wait))
        window = max(1, math.ceil(self._depth))
        headers = {
            "retry-after": str(seconds),
            "ratelimit-policy": f'"{self._name}";q={self._rate.burst};w={window}',
            "ratelimit": f'"{self._name}";r=0;t={seconds}',
        }
        text = f"too many requests: {self._rate.per_second:g} a second are served on average; wait {seconds} s"
        metadata = {"limit": self._name}
        return Problem(C.RESOURCE_EXHAUSTED, text, "RATE_LIMITED", metadata=metadata, headers=headers)
