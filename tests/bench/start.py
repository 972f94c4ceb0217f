"""The start: `counterfoil up` until its banner says ready, in the time that importing its common libraries takes.

A first start makes keys, databases and what is shipped; a later one finds them. Both sides count from the start of
the process. Memory counts what processes share once (PSS); it is compared with one process that has loaded the code of
all six services.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from counterfoil_cli.launcher import SERVICES, SHARED_LIBRARIES

from tests.bench.measuring import Options, Report, Row, Target, in_rounds, pss_mib
from tests.system.installation import COMMAND, free_offset

LIBRARIES = "import fastapi, grpc, sqlalchemy, opentelemetry.sdk.trace"
ALL_CODE = f"import {', '.join([*SHARED_LIBRARIES, *(f'counterfoil_{name}.__main__' for name in SERVICES)])}"
READY = "Counterfoil is ready"
STOP_SECONDS = 30


@dataclass(frozen=True)
class Started:
    """One start: seconds until ready, and MiB right after."""

    seconds: float
    services: float
    """The six services."""
    all: float
    """With the launcher, and the trace sink where there is one."""


@dataclass(frozen=True)
class Imported:
    """One process that imports something and does nothing else."""

    seconds: float
    memory: float


def measure(options: Options) -> Report:
    """Start again and again, in new folders and in one that exists."""
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        folder = Path(scratch)
        _start(folder / "kept", "--no-traces")
        count = 0

        def first() -> Started:
            nonlocal count
            count += 1
            return _start(folder / f"new-{count}", "--no-traces")

        rounds = in_rounds(
            {
                "libraries": lambda: _import(LIBRARIES),
                "code": lambda: _import(ALL_CODE),
                "first": first,
                "later": lambda: _start(folder / "kept", "--no-traces"),
                "sink": lambda: _start(folder / "kept"),
            },
            options,
        )
    libraries, code = ([found[name] for found in rounds] for name in ("libraries", "code"))
    later, first_starts, sink = ([found[name] for found in rounds] for name in ("later", "first", "sink"))

    def in_imports(starts: list[Started]) -> list[float]:
        return [start.seconds / imported.seconds for start, imported in zip(starts, libraries, strict=True)]

    memory = [start.services / imported.memory for start, imported in zip(later, code, strict=True)]
    rows = [
        Row(
            "six processes ready, folder exists, in imports of the libraries",
            in_imports(later),
            "x",
            Target("T12", 1.5),
        ),
        Row(
            "memory of the six (PSS), in that of one process that imports all six services' modules",
            memory,
            "x",
            Target("T12", 2.2),
        ),
        Row("six processes ready, new folder, in imports of the libraries", in_imports(first_starts), "x"),
        Row("with the trace sink, folder exists, in imports of the libraries", in_imports(sink), "x"),
        Row("importing the libraries", [one.seconds for one in libraries], " s"),
        Row("ready, folder exists", [one.seconds for one in later], " s"),
        Row("ready, new folder", [one.seconds for one in first_starts], " s"),
        Row("ready with the trace sink, folder exists", [one.seconds for one in sink], " s"),
        Row("memory of a process that imports the libraries", [one.memory for one in libraries], " MiB"),
        Row("memory of one that imports all six services' modules", [one.memory for one in code], " MiB"),
        Row("memory of the six", [one.services for one in later], " MiB"),
        Row("memory of all with launcher and trace sink", [one.all for one in sink], " MiB"),
    ]
    return Report("Start", f"{options.rounds} rounds; the libraries: `{LIBRARIES}`.", rows)


def _import(what: str) -> Imported:
    began = time.perf_counter()
    command = [sys.executable, "-c", f"{what}; print('{READY}', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        _hear(process)
        seconds = time.perf_counter() - began
        memory = pss_mib([psutil.Process(process.pid)])
        process.communicate("\n")
    return Imported(seconds, memory)


def _start(folder: Path, *arguments: str) -> Started:
    began = time.perf_counter()
    command = [str(COMMAND), "up", "--data", str(folder), "--port-offset", str(free_offset()), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        _hear(process)
        seconds = time.perf_counter() - began
        launcher = psutil.Process(process.pid)
        children = {child.name(): child for child in launcher.children()}
        services = pss_mib([children[f"cf-{name}"] for name in SERVICES])
        sink = [children["cf-traces"]] if "cf-traces" in children else []
        everything = services + pss_mib([launcher, *sink])
        process.terminate()
        process.communicate(timeout=STOP_SECONDS)
    return Started(seconds, services, everything)


def _hear(process: "subprocess.Popen[str]") -> None:
    """Wait for the line that says ready."""
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        if READY in line:
            return
    raise SystemExit(f"{process.args} did not start:\n{''.join(heard)}")
