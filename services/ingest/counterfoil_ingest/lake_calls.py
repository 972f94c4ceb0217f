"""Calls to the process that writes the lake, one after the other: it starts at the first, and again when it died."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from counterfoil_chassis.apart import EndedError, NotStartedError, Process

from counterfoil_ingest.lake_places import Address

_MODULE: Final = "counterfoil_ingest.lake_process"
_logger = logging.getLogger(__name__)

InForce = Callable[[str], Any]
"""Tells the columns of a dataset whose contract is known, as `told_columns` does; None = it is not."""


class LakeFailedError(Exception):
    """The lake's disk or storage failed, the log could not be read for it, or its process died.

    `kind` names the failure; the text, which may hold what a record holds or where the lake lies, is for the log only.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class LakeCalls(Protocol):
    """Who does the lake's work; `lake_process` says what can be called."""

    async def call(self, request: Mapping[str, Any], in_force: InForce) -> tuple[dict[str, Any], bytes]:
        """Return the answer to a call, and the bytes with it, once those before have ended; raise LakeFailedError.

        Whoever no longer waits for it does not stop it.
        """
        ...


class LakeProcess:
    """The process of one ingest; `close` it."""

    def __init__(self, place: Address, *, log: tuple[str, str], epoch: str) -> None:
        """Take where the tables are, where the log is, as `found_at` says, and its epoch."""
        self._settings = {"place": place, "log": log, "epoch": epoch, "lock": f"{place[2]}.lock"}
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def call(self, request: Mapping[str, Any], in_force: InForce) -> tuple[dict[str, Any], bytes]:
        """Return the answer to a call; see `LakeCalls`."""
        task = asyncio.create_task(self._in_turn(request, in_force))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the process, whatever it does, and every call."""
        self._closed = True
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._end()

    @property
    def pid(self) -> int | None:
        """The number of the process in the operating system; None when there is none."""
        return self._process.pid if self._process else None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # is told to who waits; nobody may

    async def _in_turn(self, request: Mapping[str, Any], in_force: InForce) -> tuple[dict[str, Any], bytes]:
        async with self._turn:
            if self._closed:
                raise LakeFailedError("Closed", "ingest is ending")
            answered = False
            try:
                answer, data = await self._exchange(request, in_force)
                answered = True
            except EndedError as error:
                raise LakeFailedError("ProcessEnded", "the process that writes the lake has died") from error
            except NotStartedError as error:
                raise LakeFailedError("ProcessNotStarted", str(error)) from error
            finally:
                if not answered:  # what it says next would not be the answer to the next call
                    await self._end()
        if "failed" in answer:
            raise failure(answer)
        return answer, data

    async def _exchange(self, request: Mapping[str, Any], in_force: InForce) -> tuple[dict[str, Any], bytes]:
        process = self._process
        if process is None or not process.alive:
            process = await self._started()
        await process.send(request)
        while "in_force" in (message := await process.receive()):
            await process.send({"columns": in_force(message["in_force"])})
        return message, await process.read(message.get("size", 0))

    async def _started(self) -> Process:
        """Start a process once the one before has ended; raise LakeFailedError when it cannot open the lake."""
        await self._end()
        # It needs what says how to reach the storage, as ingest does: proxies, certificates, roles; and its paths.
        self._process = await Process.start(_MODULE, environment=os.environ, folder=".")  # noqa: TID251 - see above
        await self._process.send(self._settings)
        if "failed" in (opened := await self._process.receive()):
            raise failure(opened)
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await asyncio.shield(process.end())


def failure(answer: Mapping[str, Any]) -> LakeFailedError:
    """Return what an answer says that has failed."""
    if answer["trace"]:
        _logger.error("the lake's process made a mistake", extra={"trace": answer["trace"]})
    return LakeFailedError(answer["failed"], answer["text"])
