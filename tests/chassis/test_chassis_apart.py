"""Processes apart: kept while they answer, replaced when they die, told when they are lost, started without a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from counterfoil_chassis.apart import EndedError, Process, Processes

MODULE, QUESTION = ("counterfoil_contracts.apart", "30"), {"schema": {"type": "string"}}


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    made = Processes(*MODULE, idle=1)
    yield made
    await made.close()
    assert not [each for each in psutil.Process().children() if MODULE[0] in each.cmdline()]


async def answer_of(process: Process) -> object:
    await process.send(QUESTION)
    found = await process.receive()
    process.reusable = True
    return found


async def test_a_process_is_lent_again_while_it_answers_and_has_no_secrets(processes: Processes) -> None:
    async with processes.lent() as first:
        assert await answer_of(first) == ""
        assert psutil.Process(first.pid).environ().keys() <= {"PYTHONPATH"}
    async with processes.lent() as second:
        assert second.pid == first.pid
        assert await answer_of(second) == ""
    async with processes.lent() as asked:
        await asked.send(QUESTION)  # and leave before it has answered
    async with processes.lent() as another:
        assert another.pid != first.pid


async def test_code_is_found_where_images_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_there.py").write_text("from counterfoil_contracts.apart import main\nmain()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COUNTERFOIL_SECRET", "none of its business")
    process = await Process.start("only_there", MODULE[1])
    try:
        assert await answer_of(process) == ""
        assert psutil.Process(process.pid).environ() == {"PYTHONPATH": str(tmp_path)}
    finally:
        await process.end()


async def test_a_process_that_died_while_idle_is_not_lent_again(processes: Processes) -> None:
    async with processes.lent() as first:
        await answer_of(first)
    os.kill(first.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    async with processes.lent() as second:
        assert second.pid != first.pid
        assert await answer_of(second) == ""


async def test_one_that_dies_of_a_question_is_told(processes: Processes) -> None:
    async with processes.lent() as process:
        await answer_of(process)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EndedError):
            await answer_of(process)


def test_it_ends_with_a_parent_that_is_killed() -> None:
    program = (
        "import asyncio\nfrom counterfoil_chassis.apart import Process\n"
        f"async def main():\n    process = await Process.start{MODULE!r}\n    print(process.pid, flush=True)\n"
        "    await asyncio.Event().wait()\nasyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(30)


def test_no_handler_of_a_library_for_forks_runs_in_the_child() -> None:
    """gRPC registers some, which crash now and then when threads of its own run: here one always aborts."""
    program = (
        "import asyncio, ctypes, uvloop\nfrom counterfoil_chassis.apart import Process\nlibc = ctypes.CDLL(None)\n"
        "libc.__register_atfork(None, None, ctypes.cast(libc.abort, ctypes.c_void_p), None)\n"
        f"async def main():\n    process = await Process.start{MODULE!r}\n    await process.send({QUESTION!r})\n"
        "    print(repr(await process.receive()))\n    await process.end()\nuvloop.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "''\n"), done.stderr
