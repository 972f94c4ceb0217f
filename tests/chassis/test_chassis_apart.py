"""Processes apart: kept while they answer, replaced when they die, told when they are lost or cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from counterfoil_chassis import apart
from counterfoil_chassis.apart import EndedError, NotStartedError, Process, Processes

READY = "import sys\nfrom counterfoil_chassis.apart import be_silent, read, ready, write\nout = sys.stdout.buffer\n"
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


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09[1,"])
@pytest.mark.parametrize("unread", [b"", b"an answer"])
def test_a_parent_that_is_gone_is_the_end_whatever_was_under_way(sent: bytes, unread: bytes) -> None:
    parent, child = socket.socketpair()
    with child, child.makefile("rb") as incoming:
        child.sendall(unread)
        parent.sendall(b"\0\0\0\x03[1]" + sent)
        assert apart.read(incoming) == [1]
        parent.close()
        assert apart.read(incoming) is None


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


def started_as(module: str) -> list[psutil.Process]:
    """Return the processes of a module; others belong to what this test runs beside, such as a database."""
    return [each for each in psutil.Process().children() if module in each.cmdline()]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which a process apart finds its modules."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import a_library_that_nobody_has", "it ended with code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9 ended it"),
        ("print('no message')", "it ended with code 0"),
        (None, "it ended with code 1"),
    ],
    ids=["import", "killed", "no message", "no file"],
)
async def test_one_that_cannot_start_is_told_as_such(
    written: Path, caplog: pytest.LogCaptureFixture, text: str | None, why: str
) -> None:
    if text is not None:
        (written / "unable.py").write_text(text)
    with (written / "log").open("wb") as log:
        with pytest.raises(NotStartedError) as told:
            await Process.start("unable", stderr=log)
        with pytest.raises(NotStartedError):
            await Process.start("unable", stderr=log, folder=written / "nowhere")
    assert (told.value.code.name, told.value.reason) == ("UNAVAILABLE", "PROCESS_NOT_STARTED")
    assert why in told.value.message
    assert ("No module named" in (written / "log").read_text()) == (text is None or "nobody" in text)
    assert [each.message for each in caplog.records] == ["process apart could not start"] * 2
    assert not started_as("unable")


async def test_one_that_never_loads_is_ended(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written / "slow.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.setattr(apart, "_LOADING_SECONDS", 0.2)
    with pytest.raises(NotStartedError, match=r"after 0\.2 s"):
        await Process.start("slow")
    monkeypatch.setattr(apart, "_LOADING_SECONDS", 60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await Process.start("slow")
    assert not started_as("slow")


async def test_it_gets_the_environment_stderr_and_folder_that_are_meant_for_it(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERFOIL_SECRET", "none of its business")
    (written / "telling.py").write_text(
        f"{READY}import os\nprint('loading', file=sys.stderr, flush=True)\nready(out)\n"
        "write(out, [dict(os.environ), os.getcwd(), sys.argv[1:]])\n"
        "be_silent()\nprint('quiet', file=sys.stderr, flush=True)\nread(sys.stdin.buffer)\n"
    )
    with (written / "log").open("wb") as log:
        process = await Process.start("telling", "a", "b", environment={"KEY": "1"}, stderr=log, folder=written)
    found, folder, arguments = await process.receive()
    await process.end()
    assert {name: value for name, value in found.items() if name != "LC_CTYPE"} == {  # which Python adds
        "PYTHONPATH": str(written),
        "KEY": "1",
    }
    assert (folder, arguments) == (str(written), ["a", "b"])
    assert (written / "log").read_text() == "loading\n"
