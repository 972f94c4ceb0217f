"""What the tests of the command line share."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from counterfoil_cli.traces.__main__ import Sink

from tests.cli import running
from tests.cli.running import COMMAND, Program, sink_in

PROGRAMS = Path(__file__).parent / "programs"


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
def counterfoil(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command to its end, in a folder of its own."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env=running.clean_environment() | variables,
        )

    return run


@pytest.fixture
def free_listens() -> dict[str, str]:
    """Settings under which nothing binds a port of its own choice."""
    return running.free_listens()


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[Sink]:
    """A trace sink on free ports that serves in this loop."""
    async with sink_in(tmp_path) as serving:
        yield serving
