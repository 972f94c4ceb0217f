"""The processes in which queries run, as ingest sees them: each runs one at a time, and is ended when that overruns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from counterfoil_chassis.errors import CounterfoilError

from counterfoil_ingest.query_errors import NotReplayableError, ResultTooLargeError
from counterfoil_ingest.read_errors import QueryTooLargeError, SqlInvalidError

_LENGTH: Final = 4
_MOST_QUERIES: Final = 200  # a process is replaced after so many: what libraries keep does not add up for ever
_REFUSALS: Final[dict[str, type[CounterfoilError]]] = {
    each.reason: each for each in (SqlInvalidError, QueryTooLargeError, ResultTooLargeError, NotReplayableError)
}
_logger = logging.getLogger(__name__)


class QueryProcess:
    """One process; see `query_process` for what it is asked and answers."""

    def __init__(self, process: asyncio.subprocess.Process, *, memory: str) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they are pipes
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self._memory = memory
        self.queries = 0
        self.answered = True
        """Whether it has answered all that it was asked, so that it can be asked again."""

    @property
    def pid(self) -> int:
        """Its number in the operating system."""
        return self._process.pid

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message; raise QueryTooLargeError when the process has died."""
        self.answered = False
        text = orjson.dumps(message)
        try:
            self._in.write(len(text).to_bytes(_LENGTH) + text)
            await self._in.drain()
        except (ConnectionError, RuntimeError):  # uvloop's when the pipe has been closed
            raise self._died() from None

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next message and the bytes with it; raise what the query was refused with."""
        try:
            size = int.from_bytes(await self._out.readexactly(_LENGTH))
            message: dict[str, Any] = orjson.loads(await self._out.readexactly(size))
            data = await self._out.readexactly(message.get("size", 0))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise self._died() from None
        if "refused" in message:
            self.answered = message["refused"] != QueryTooLargeError.reason
            if "log" in message:
                _logger.error("query failed on the lake's files", extra={"error": message["log"]})
            raise _REFUSALS[message["refused"]](message["message"])
        self.answered = "end" in message
        return message, data

    async def alive(self) -> bool:
        """Ask whether it is there: what a query did to it may show only after its answer."""
        try:
            await self.send({"there": True})
            await self.receive()
        except QueryTooLargeError:
            return False
        return True

    async def end(self) -> None:
        """End it, whatever it does; tell when it has ended by itself."""
        if self._process.returncode is not None:
            _logger.warning("query process ended by itself", extra={"exit_code": self._process.returncode})
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._in.close()
        await self._process.wait()

    def _died(self) -> QueryTooLargeError:
        return QueryTooLargeError(
            f"The query needs more memory or time than there is ({self._memory}). Aggregate earlier, or select less."
        )


class QueryProcesses:
    """Starts processes when they are needed, and keeps a few that are idle: starting one takes a second."""

    def __init__(self, *, memory: str, idle: int) -> None:
        self._memory = memory
        self._most_idle = idle
        self._idle: list[QueryProcess] = []

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[QueryProcess]:
        """Lend a process; one that did not answer to the end, whatever the reason, is ended."""
        process = await self._alive()
        process.queries += 1
        try:
            yield process
        finally:
            usable = process.answered and process.queries < _MOST_QUERIES and len(self._idle) < self._most_idle
            if usable:
                self._idle.append(process)
            else:
                await asyncio.shield(process.end())

    async def close(self) -> None:
        """End the processes that are idle."""
        while self._idle:
            await self._idle.pop().end()

    async def _alive(self) -> QueryProcess:
        while self._idle:
            process = self._idle.pop()
            try:
                if await process.alive():
                    return process
            except BaseException:
                await asyncio.shield(process.end())
                raise
            await process.end()
        return await self._started()

    async def _started(self) -> QueryProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "counterfoil_ingest.query_process",
            self._memory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},  # no secrets, and nothing that changes how libraries behave
            cwd="/",
        )
        return QueryProcess(process, memory=self._memory)
