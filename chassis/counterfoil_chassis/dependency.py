"""Another service as this process depends on it: a breaker, and a bound on the calls that run and wait at once."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import deque
from datetime import timedelta
from typing import Final

import grpc

from counterfoil_chassis.breaker import PAUSE, Breaker
from counterfoil_chassis.errors import Code, CounterfoilError, DeadlineExceededError, UnavailableError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.metrics import DEPENDENCY_CALLS, DEPENDENCY_OPEN, DEPENDENCY_REFUSED
from counterfoil_chassis.status import DETAILS_KEY, code_of, status_of, to_status

CALLS: Final = 256
"""Calls to one dependency that run at once, unless a setting says otherwise; as many again may wait."""
WAIT: Final = 1.0
"""Seconds that a call waits for its turn at most."""
# Whoever cancels a call gets no status. One that arrives so was lost by a server that stopped before it took the call.
_QUIET_SECONDS: Final = 60.0
_logger = logging.getLogger(__name__)
_UNANSWERED = (Code.UNAVAILABLE, Code.CANCELLED)


class DependencyUnavailableError(UnavailableError):
    """A service that this needs does not answer; the metadata's `dependency` names it. Try again later."""

    reason = "DEPENDENCY_UNAVAILABLE"


class DependencyBusyError(UnavailableError):
    """Too many calls to a service that this needs run already; the metadata's `dependency` names it."""

    reason = "DEPENDENCY_BUSY"


class Dependency:
    """One service that is called, by whatever number of channels; `name` is told to callers and is a metric's label."""

    def __init__(self, name: str, calls: int = CALLS, *, breaker: Breaker | None = None) -> None:
        self.name = name
        self.breaker = breaker or Breaker()
        self.calls = calls
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._metadata = {"dependency": name}
        self._quiet_until = 0.0
        itself = weakref.ref(self)
        for metric, read in (
            (DEPENDENCY_OPEN, lambda: float(found.breaker.is_open) if (found := itself()) else 0.0),
            (DEPENDENCY_CALLS, lambda: float(found.running + found.waiting) if (found := itself()) else 0.0),
        ):
            weakref.finalize(self, metric.add(name, read=read))
        weakref.finalize(self, HEALTH.add(f"service {name}", lambda: found.problem() if (found := itself()) else ""))

    def problem(self) -> str:
        """Return what is wrong with it, for this process's health."""
        return "it does not answer, and is tried once a second; see that it runs" if self.breaker.is_open else ""

    @property
    def is_full(self) -> bool:
        """Say whether one more call has to wait for its turn."""
        return self.running >= self.calls

    @property
    def waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return len(self._waiting)

    def require(self) -> None:
        """Return when a call may be made; raise AioRpcError with DEPENDENCY_UNAVAILABLE while the breaker is open."""
        if self.breaker.is_open and not self.breaker.lets_through():
            DEPENDENCY_REFUSED.labels(self.name, "open").inc()
            raise as_rpc_error(self._unavailable(f"{self.name} did not answer lately; try again after a second"))

    async def turn(self, seconds: float) -> float:
        """Wait for one's turn, which counts as running from then on; return the seconds that took.

        Raise AioRpcError with DEPENDENCY_BUSY after a second, or at once when too many wait already.
        """
        begun = time.monotonic()
        if len(self._waiting) >= self.calls:
            raise self._busy()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(min(seconds, WAIT)):
                await place
        except TimeoutError:
            if not _is_given(place):
                raise self._busy() from None
        except asyncio.CancelledError:
            if _is_given(place):
                self.release()
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
        return time.monotonic() - begun

    def release(self) -> None:
        """End a call: whoever waits longest has the turn."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def told(self, error: grpc.aio.AioRpcError, begun: float, timeout: float | None) -> grpc.aio.AioRpcError:
        """Judge a failed call; return its error, with this dependency's name where the callee itself said nothing."""
        code = code_of(error)
        if code not in (*_UNANSWERED, Code.DEADLINE_EXCEEDED) or status_of(error) is not None:
            self.breaker.answered()
            return error
        if code in _UNANSWERED:
            self.breaker.failed()
            self._log(error)
            return as_rpc_error(self._unavailable(f"{self.name} does not answer; try again"))
        if timeout is not None:
            self.breaker.ran_out_of_time(begun, timeout)
        return self.late()

    def _log(self, error: grpc.aio.AioRpcError) -> None:
        """Tell what gRPC itself says, a refused certificate for example, once a minute: nobody else is told."""
        now = time.monotonic()
        if code_of(error) is Code.UNAVAILABLE and now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            fields = {"dependency": self.name, "cause": error.details()}
            _logger.warning("a service does not answer", extra=fields)

    def late(self) -> grpc.aio.AioRpcError:
        """Return the error of a call that got no answer in time."""
        text = f"{self.name} did not answer in time; try again or allow more time"
        return as_rpc_error(DeadlineExceededError(text, metadata=self._metadata))

    def _unavailable(self, text: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(text, metadata=self._metadata, retry_after=timedelta(seconds=PAUSE))

    def _busy(self) -> grpc.aio.AioRpcError:
        DEPENDENCY_REFUSED.labels(self.name, "busy").inc()
        text = f"too many calls to {self.name} run already; try again after a second"
        return as_rpc_error(DependencyBusyError(text, metadata=self._metadata, retry_after=timedelta(seconds=PAUSE)))


def as_rpc_error(error: CounterfoilError) -> grpc.aio.AioRpcError:
    """Return a failure in the form in which a callee's would arrive."""
    code = next(each for each in grpc.StatusCode if each.value[0] == error.code)
    trailers = grpc.aio.Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details=error.message)


def _is_given(place: asyncio.Future[None]) -> bool:
    return place.done() and not place.cancelled()
