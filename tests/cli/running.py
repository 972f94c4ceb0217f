"""Programs and servers that the tests of the command line run."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import psutil
from counterfoil_cli.env import DOORS, TRACE_DOORS
from counterfoil_cli.traces.__main__ import Sink, serve
from counterfoil_cli.traces.settings import TracesSettings

from tests.system.installation import free_offset

COMMAND = Path(sys.executable).parent / "counterfoil"


def clean_environment() -> dict[str, str]:
    """Return the environment without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}


def free_listens() -> dict[str, str]:
    """Return settings under which every door is on a port that is free, and stays so until it is bound."""
    offset = free_offset()
    return {door.variable: f"127.0.0.1:{door.port + offset}" for door in DOORS + TRACE_DOORS}


class Program:
    """A child program whose lines are read as they come; a line that does not come is found by the bound of pytest."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def line(self, start: str) -> str:
        """Read on until a line starts so, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.lines[-1]
        raise AssertionError(f"no line {start!r} among {self.lines}")

    def end(self, seconds: float = 90) -> int:
        """Read what is left and return the exit code."""
        rest, _ = self.process.communicate(timeout=seconds)
        self.lines += rest.splitlines()
        return self.process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the parent alone."""
        self.process.send_signal(number)


def outlived(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return which processes are still there half a minute later; one that nobody waits for has ended, too."""
    _, alive = psutil.wait_procs(list(processes), timeout=30)
    return [each for each in alive if not _has_ended(each)]


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.asynccontextmanager
async def sink_in(folder: Path, **settings: float) -> AsyncIterator[Sink]:
    """Serve a trace sink from a folder, on free ports, for as long as the block lasts."""
    any_port = {"listen": "127.0.0.1:0", "grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    started: asyncio.Future[Sink] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(TracesSettings(data_dir=folder, **any_port, **settings), started))
    await asyncio.wait({started, serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    try:
        yield started.result()
    finally:
        started.result().stopping.set()
        await serving
