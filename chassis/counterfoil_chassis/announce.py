"""What a service has another one know of each workspace as it is now: said again until it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc

from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.status import cause_of

_logger = logging.getLogger(__name__)


class Announcer:
    """Announces a workspace's whole present state whenever it is told that it changed; run `run` in the background.

    `announce` reads the state and sends it; the receiver replaces what it was told before, so that nothing is lost when
    several changes become one, and nothing when the same is said twice. Whoever keeps the workspaces says all of them
    at the start. What fails by gRPC, a CounterfoilError or the operating system is tried again with growing pauses,
    for ever; the receiver keeps what it was told last. Anything else is a bug and ends the process.
    """

    def __init__(self, announce: Callable[[str], Awaitable[None]], *, name: str) -> None:
        self._announce = announce
        self._name = name
        self._waiting: dict[str, None] = {}
        self._telling = ""
        self._awake = asyncio.Event()
        self._cause = ""

    def changed(self, workspace: str) -> None:
        """Announce a workspace as it is from now on; call it after the commit."""
        self._waiting[workspace] = None
        self._awake.set()

    def forget(self, workspace: str) -> None:
        """Announce nothing more of a workspace that is gone."""
        self._waiting.pop(workspace, None)
        if self._telling == workspace:
            self._telling = ""

    async def run(self) -> None:
        """Announce for the process's life."""
        backoff = Backoff(first=0.2, longest=30.0)
        with HEALTH.checking(f"announce {self._name}", self._problem):
            while True:
                self._awake.clear()
                self._cause = await self._round(attempt=backoff.attempt)
                if self._cause:
                    await backoff.pause()
                else:
                    backoff.reset()
                    await self._awake.wait()

    async def _round(self, *, attempt: int) -> str:
        """Announce each workspace that waits, once; return why one has to wait on."""
        cause = ""
        for workspace in list(self._waiting):
            if workspace not in self._waiting:  # forgotten meanwhile
                continue
            del self._waiting[workspace]
            self._telling = workspace
            try:
                await self._announce(workspace)
            except (grpc.aio.AioRpcError, CounterfoilError, OSError) as error:
                if self._telling == workspace:
                    self._waiting[workspace] = None
                if not cause and attempt == 0:
                    fields = {"announcement": self._name, "workspace": workspace, "cause": _cause(error)}
                    _logger.warning("an announcement failed; it is made again", extra=fields)
                cause = _cause(error)
        return cause

    def _problem(self) -> str:
        if not self._cause:
            return ""
        return f"{len(self._waiting)} workspaces wait: {self._cause}; see that the service that is told answers"


def _cause(error: Exception) -> str:
    return cause_of(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
