"""A service's `__main__`, started as a process by the tests; `PROBE_BREAKS` makes its background work fail."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

from counterfoil_chassis.serve import Host, Service, run

from tests.chassis.probe import Probe, ProbeSettings, answer


async def background() -> None:
    """Work for ever; fail, or hang with the whole event loop at SIGUSR1, when the test asks for it."""
    if os.environ.get("PROBE_BREAKS"):
        raise RuntimeError("the printer is on fire")
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, time.sleep, 600)
    await asyncio.Event().wait()


async def build(settings: ProbeSettings, host: Host, stack: AsyncExitStack) -> Service:
    """Serve receipts that name themselves."""
    return await Probe(get=answer, background=(background,)).build(settings, host, stack)


if __name__ == "__main__":
    run("probe", ProbeSettings, build, migrations=os.environ.get("PROBE_PACKAGE"))
