"""Processes apart: a module of our own, in a process that may die of what it is asked, and can be ended.

Messages either way are four bytes of length and JSON. The process says first that it is `ready`, once it has loaded
all that it needs, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import orjson

from counterfoil_chassis.errors import UnavailableError

_LENGTH: Final = 4
_LOADING_SECONDS: Final = 60.0  # it takes one or two, on a machine that is not starved
_MOST_USES: Final = 200  # a process is replaced after so many: what libraries keep does not add up for ever
_WHERE: Final = ("PYTHONPATH",)  # images have our code there
_logger = logging.getLogger(__name__)


class EndedError(Exception):
    """The process died before it had answered."""


class NotStartedError(UnavailableError):
    """A process that a service runs work in could not start; the service's log says why."""

    reason = "PROCESS_NOT_STARTED"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"A process that this service runs such work in could not start ({why}). Look at the service's log for "
            "what it said, and send this again when that is mended.",
            retry_after=timedelta(seconds=5),
        )


class Process:
    """One process, asked one thing at a time."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self.uses = 0
        self.reusable = False
        """Whether it has answered all that it was asked, so that it can be asked again; the caller says so."""

    @classmethod
    async def start(
        cls,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stderr: int | BinaryIO | None = None,
        folder: str | Path = "/",
    ) -> Self:
        """Start `python -m module` and wait until it is ready; raise NotStartedError when it ends before, or hangs.

        It has nothing in its environment but where our code lies, and `environment`: no secrets that nobody meant for
        it. `stderr` is what `subprocess` takes, by default this process's own, which is its log; `folder` is where it
        works.

        Not by uvloop: its fork runs gRPC's handlers in the child, which crash there now and then. `subprocess` calls
        vfork, which runs none.
        """
        where = {name: os.environ[name] for name in _WHERE if name in os.environ}  # noqa: TID251 - no setting of ours
        ours, its = socket.socketpair()
        with its:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - until it has begun, some milliseconds; our module
                    [sys.executable, "-m", module, *arguments],
                    stdin=its.fileno(),
                    stdout=its.fileno(),
                    stderr=stderr,
                    env=where | dict(environment or {}),
                    cwd=folder,
                )
            except OSError as error:
                ours.close()
                _logger.exception("process apart could not start", extra={"command": module})
                raise NotStartedError(error.strerror or type(error).__name__) from error
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # which ends it
            raise
        started = cls(process, reader, writer)
        await started._load(module)
        return started

    async def _load(self, module: str) -> None:
        """Wait until it is ready; end it when it will not be, whatever the reason."""
        loaded = False
        try:
            async with asyncio.timeout(_LOADING_SECONDS):
                await self.receive()
            loaded = True
        except EndedError:
            why = ""
        except TimeoutError:
            why = f"it had not loaded after {_LOADING_SECONDS:g} s"
        finally:
            if not loaded:
                await asyncio.shield(self._stop())
        if not loaded:
            code = self._process.returncode
            why = why or (f"signal {-code} ended it" if code < 0 else f"it ended with code {code}")
            _logger.error("process apart could not start", extra={"command": module, "why": why})
            raise NotStartedError(why)

    @property
    def pid(self) -> int:
        """Its number in the operating system."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    async def send(self, message: Any) -> None:
        """Send a message; raise EndedError."""
        self.reusable = False
        text = orjson.dumps(message)
        try:
            self._writer.write(len(text).to_bytes(_LENGTH) + text)
            await self._writer.drain()
        except (ConnectionError, RuntimeError):  # uvloop's, of a connection that it has closed
            raise EndedError from None

    async def receive(self) -> Any:
        """Return the next message; raise EndedError."""
        return orjson.loads(await self.read(int.from_bytes(await self.read(_LENGTH))))

    async def read(self, size: int) -> bytes:
        """Return the bytes that follow a message; raise EndedError."""
        try:
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EndedError from None

    async def end(self) -> None:
        """End it, whatever it does; tell when it has ended by itself."""
        if (code := self._process.poll()) is not None:
            _logger.warning("process apart ended by itself", extra={"exit_code": code})
        await self._stop()

    async def _stop(self) -> None:
        self._process.kill()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await asyncio.to_thread(self._process.wait)


class Processes:
    """Starts processes of one module when they are needed, and keeps a few that are idle: starting one takes long."""

    def __init__(self, module: str, *arguments: str, idle: int, environment: Mapping[str, str] | None = None) -> None:
        self._command = (module, *arguments)
        self._environment = environment
        self._most_idle = idle
        self._idle: list[Process] = []

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Process]:
        """Lend a process; one that is not reusable afterwards, whatever the reason, is ended."""
        process = await self._free()
        process.uses += 1
        try:
            yield process
        finally:
            if process.reusable and process.uses < _MOST_USES and len(self._idle) < self._most_idle:
                self._idle.append(process)
            else:
                await asyncio.shield(process.end())

    async def close(self) -> None:
        """End the processes that are idle."""
        while self._idle:
            await self._idle.pop().end()

    async def _free(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            await process.end()
        return await Process.start(*self._command, environment=self._environment)


def ready(outgoing: BinaryIO) -> None:
    """Tell, in the process apart, that it has loaded: what ends it from now on is what it is asked."""
    write(outgoing, {"ready": True})


def be_silent() -> None:
    """Let this process, apart, write nothing to its stderr any more: what others send makes no lines in our log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def allow(seconds: float) -> None:
    """Let this process, apart, have so much processor time from now on: after that, and two more, it is ended."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def read(incoming: BinaryIO) -> Any:
    """Return the next message, in the process apart; None at the end, also of a parent that was killed meanwhile."""
    try:
        head = incoming.read(_LENGTH)
        size = int.from_bytes(head)
        text = incoming.read(size) if len(head) == _LENGTH else b""
    except ConnectionResetError:  # it had not read all of the answers
        return None
    return orjson.loads(text) if text and len(text) == size else None


def write(outgoing: BinaryIO, message: Any, data: bytes = b"") -> None:
    """Send a message, in the process apart, and bytes after it."""
    text = orjson.dumps(message)
    outgoing.write(len(text).to_bytes(_LENGTH) + text + data)
    outgoing.flush()
