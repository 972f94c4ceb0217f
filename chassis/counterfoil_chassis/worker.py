"""A thread for work that keeps the processor busy, so that the event loop goes on answering."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from counterfoil_chassis.telemetry import tracer

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Worker:
    """Runs one piece of work at a time, in the order it was given."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """Return what the work returns or raise what it raises; a cancelled caller leaves begun work to its end.

        The work, with its wait for the thread, is a span named after the function.
        """
        loop = asyncio.get_running_loop()
        call: Callable[[], Any] = partial(work, *args, **options)
        with tracer().start_as_current_span(work.__qualname__):
            result: Result = await loop.run_in_executor(self._threads, call)
        return result

    def close(self) -> None:
        """Drop waiting work; what runs is waited for."""
        self._threads.shutdown(wait=True, cancel_futures=True)
