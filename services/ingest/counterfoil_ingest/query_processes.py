"""The processes in which queries run, as ingest sees them: each runs one at a time, and is ended when that overruns."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from counterfoil_chassis.apart import EndedError, Process, Processes
from counterfoil_chassis.errors import CounterfoilError

from counterfoil_ingest.query_errors import NotReplayableError, ResultTooLargeError
from counterfoil_ingest.read_errors import QueryTooLargeError, SqlInvalidError

_REFUSALS: Final[dict[str, type[CounterfoilError]]] = {
    each.reason: each for each in (SqlInvalidError, QueryTooLargeError, ResultTooLargeError, NotReplayableError)
}
_ENVIRONMENT: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Arrow's own allocator takes a gibibyte at once: nearly all that a process may have, and DuckDB could have none."""
_logger = logging.getLogger(__name__)


class QueryProcess:
    """A process that runs one query; see `query_process` for what it is asked and answers."""

    def __init__(self, process: Process, *, memory: str) -> None:
        self._process = process
        self._memory = memory

    @property
    def pid(self) -> int:
        """Its number in the operating system."""
        return self._process.pid

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message; raise QueryTooLargeError when the process has died."""
        try:
            await self._process.send(message)
        except EndedError:
            raise self._died() from None

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next message and the bytes with it; raise what the query was refused with."""
        try:
            message: dict[str, Any] = await self._process.receive()
            data = await self._process.read(message.get("size", 0))
        except EndedError:
            raise self._died() from None
        if "refused" in message:
            self._process.reusable = not message.get("ends", False)
            if "log" in message:
                _logger.error("query failed on the lake's files", extra={"error": message["log"]})
            raise _REFUSALS[message["refused"]](message["message"])
        self._process.reusable = "end" in message
        return message, data

    def _died(self) -> QueryTooLargeError:
        return QueryTooLargeError(
            f"The query needs more memory or time than there is ({self._memory}). Aggregate earlier, or select less."
        )


class QueryProcesses:
    """Lends processes that run queries within so much memory, and keeps a few that are idle."""

    def __init__(self, *, memory: str, idle: int, niceness: int = 0) -> None:
        """Take also by how much nicer than this one the processes are, from 0 to 19: others are served first."""
        self._memory = memory
        self._niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + niceness) if niceness else None
        self._processes = Processes("counterfoil_ingest.query_process", memory, idle=idle, environment=_ENVIRONMENT)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[QueryProcess]:
        """Lend a process for one query; one that did not answer to the end, whatever the reason, is ended.

        Raises NotStartedError.
        """
        async with self._processes.lent() as process:
            if self._niceness is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended, which who asks it is told
                    os.setpriority(os.PRIO_PROCESS, process.pid, self._niceness)
            yield QueryProcess(process, memory=self._memory)

    async def close(self) -> None:
        """End the processes that are idle."""
        await self._processes.close()
