"""What the tests of the command line share."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from counterfoil_cli.env import DOORS, TRACE_DOORS
from counterfoil_cli.traces.__main__ import Sink

from tests.cli.running import Program, sink_in

PROGRAMS = Path(__file__).parent / "programs"
COMMAND = Path(sys.executable).parent / "counterfoil"


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Start the supervisor over one scenario of programs/supervised.py."""
    started: list[Program] = []

    def start(scenario: str) -> Program:
        command = [sys.executable, str(PROGRAMS / "supervised.py"), scenario, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(Program(process))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.communicate()


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}


@pytest.fixture
def counterfoil(clean_environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command to its end, in a folder of its own."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env=clean_environment | variables,
        )

    return run


@pytest.fixture
def free_listens() -> dict[str, str]:
    """Settings under which nothing binds a port of its own choice."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in DOORS + TRACE_DOORS]
        doors = zip(DOORS + TRACE_DOORS, sockets, strict=True)
        return {door.variable: f"127.0.0.1:{holder.getsockname()[1]}" for door, holder in doors}


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[Sink]:
    """A trace sink on free ports that serves in this loop."""
    async with sink_in(tmp_path) as running:
        yield running
