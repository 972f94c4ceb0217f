"""Judging schemas in a process of its own, which can be ended: `python -m counterfoil_contracts.apart` is that process.

Messages are those of `counterfoil_chassis.apart`. The process ends by itself when one question has cost it more
processor time than there is for it, so that none outlives the service for long.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from counterfoil_chassis.apart import EndedError, Processes, allow, be_silent, read, ready, write

from counterfoil_contracts.registry import judging
from counterfoil_contracts.registry.judging import TOO_MUCH, Break
from counterfoil_contracts.schema_entities import Policy
from counterfoil_contracts.schema_errors import SchemasBusyError

SECONDS: Final = 5.0
"""For one question; those of usual size take a thousandth of it."""
AT_ONCE: Final = 2
MOST_WAITING: Final = 64
"""Questions that wait for a process: of more, those who ask something else of this service would get no turn."""
_MEMORY: Final = 1 << 30


class Apart:
    """Asks a few processes that are started when first needed; the questions of all callers wait for a free one."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._free = asyncio.Semaphore(AT_ONCE)
        self._asked = 0
        self._processes = Processes("counterfoil_contracts.apart", str(seconds), idle=AT_ONCE)

    async def fault_of(self, document: Any) -> str:
        """Return why a document of draft 2020-12 is no schema, or holds references to nowhere; empty = it is one.

        Raises SchemasBusyError and NotStartedError, as `breaks` does.
        """
        try:
            fault: str = await self._ask({"schema": document})
        except EndedError:
            return "it takes more time or memory to compile than there is for it; say the same with less"
        return fault

    async def breaks(self, writer: Any, reader: Any, policy: Policy) -> Sequence[Break]:
        """Return where a reader's document breaks with a writer's; both are whole, and of draft 2020-12."""
        try:
            found = await self._ask({"writer": writer, "reader": reader, "policy": policy.value})
        except EndedError:
            return [Break("$", "UNPROVEN", TOO_MUCH)]
        return [Break(*each) for each in found]

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()

    async def _ask(self, question: Any) -> Any:
        if self._asked >= AT_ONCE + MOST_WAITING:
            raise SchemasBusyError(
                "Too many schemas wait to be compiled or compared. Send it again after a few seconds.",
                retry_after=timedelta(seconds=self._seconds),
            )
        self._asked += 1
        try:
            async with self._free, self._processes.lent() as process:
                try:
                    async with asyncio.timeout(self._seconds):
                        await process.send(question)
                        answer = await process.receive()
                except TimeoutError:
                    raise EndedError from None
                process.reusable = True
                return answer
        finally:
            self._asked -= 1


def main() -> None:
    """Answer questions until there are no more."""
    seconds = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    be_silent()
    ready(outgoing)
    while (question := read(incoming)) is not None:
        allow(seconds)
        write(outgoing, _answer(question))


def _answer(question: dict[str, Any]) -> Any:
    if "schema" in question:
        return judging.fault_of(question["schema"])
    found = judging.breaks(question["writer"], question["reader"], Policy(question["policy"]))
    return [[each.path, each.rule, each.detail, each.witness] for each in found]


if __name__ == "__main__":
    main()
