"""Judging schemas in a process of its own, which can be ended: `python -m counterfoil_contracts.apart` is that process.

Messages either way are four bytes of length and JSON. The process ends with its standard input, and by itself when one
question has cost it more processor time than there is for it, so that none outlives the service for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Final

import orjson

from counterfoil_contracts.registry import judging
from counterfoil_contracts.registry.judging import TOO_MUCH, Break
from counterfoil_contracts.schema_entities import Policy

SECONDS: Final = 5.0
"""For one question; those of usual size take a thousandth of it."""
AT_ONCE: Final = 2
_MEMORY: Final = 1 << 30
_LENGTH: Final = 4


class _EndedError(Exception):
    """The process took too long, or died of what it was asked."""


class Apart:
    """Asks a few processes that are started when first needed; the questions of all callers wait for a free one."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._free = asyncio.Semaphore(AT_ONCE)
        self._idle: list[asyncio.subprocess.Process] = []

    async def fault_of(self, document: Any) -> str:
        """Return why a document of draft 2020-12 is no schema, or holds references to nowhere; empty = it is one."""
        try:
            fault: str = await self._ask({"schema": document})
        except _EndedError:
            return "it takes more time or memory to compile than there is for it; say the same with less"
        return fault

    async def breaks(self, writer: Any, reader: Any, policy: Policy) -> Sequence[Break]:
        """Return where a reader's document breaks with a writer's; both are whole, and of draft 2020-12."""
        try:
            found = await self._ask({"writer": writer, "reader": reader, "policy": policy.value})
        except _EndedError:
            return [Break("$", "UNPROVEN", TOO_MUCH)]
        return [Break(*each) for each in found]

    async def close(self) -> None:
        """End the processes."""
        for process in self._idle:
            await _end(process)
        self._idle.clear()

    async def _ask(self, question: Any) -> Any:
        async with self._free, self._process() as process:
            message = orjson.dumps(question)
            try:
                async with asyncio.timeout(self._seconds):
                    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they are pipes
                    process.stdin.write(len(message).to_bytes(_LENGTH) + message)
                    await process.stdin.drain()
                    size = int.from_bytes(await process.stdout.readexactly(_LENGTH))
                    answer = await process.stdout.readexactly(size)
            except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                raise _EndedError from None
            self._idle.append(process)
            return orjson.loads(answer)

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Lend a process; one that did not answer, whatever the reason, is ended."""
        process = self._idle.pop() if self._idle else await self._started()
        try:
            yield process
        finally:
            if process not in self._idle:
                await _end(process)

    async def _started(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "counterfoil_contracts.apart",
            str(self._seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


def main() -> None:
    """Answer questions until there are no more."""
    seconds = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while (question := _read(incoming)) is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        most = int(usage.ru_utime + usage.ru_stime + seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
        answer = orjson.dumps(_answer(question))
        outgoing.write(len(answer).to_bytes(_LENGTH) + answer)
        outgoing.flush()


def _read(incoming: BinaryIO) -> Any:
    head = incoming.read(_LENGTH)
    if len(head) < _LENGTH:
        return None
    body = incoming.read(int.from_bytes(head))
    return orjson.loads(body)


def _answer(question: dict[str, Any]) -> Any:
    if "schema" in question:
        return judging.fault_of(question["schema"])
    found = judging.breaks(question["writer"], question["reader"], Policy(question["policy"]))
    return [[each.path, each.rule, each.detail, each.witness] for each in found]


if __name__ == "__main__":
    main()
