"""Carry out erasures before anything is served: the services run without the gateway until all is reported."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from counterfoil_chassis.errors import StartError

from counterfoil_cli.env import DOORS, environment

SERVICES = ("governance", "contracts", "ingest", "graph")
_LOOK_SECONDS = 0.2
_STOP_SECONDS = 20
_STILL_SECONDS = 1800.0
_LAST = 2_000


@contextmanager
def running(data: Path, user: Mapping[str, str], *, admin_key_sha256: str) -> Iterator[Running]:
    """Run the services on free ports of this machine; stop them at the end."""
    doors = {door.variable: f"127.0.0.1:{port}" for door, port in zip(DOORS, _free_ports(len(DOORS)), strict=True)}
    # What the environment says of another data folder is not meant here.
    variables = dict(user) | doors | {"COUNTERFOIL_DATA_DIR": str(data)}
    variables |= environment(variables, data=data, port_offset=0, traces=False, admin_key_sha256=admin_key_sha256)
    started = Running(data / "logs")
    started.logs.mkdir(mode=0o700, exist_ok=True)
    try:
        for name in SERVICES:
            started.start(name, variables)
        yield started
    finally:
        started.stop()


class Running:
    """The services that run, each with its log."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, variables: Mapping[str, str]) -> None:
        """Start one service."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603  (this interpreter, a fixed module)
                [sys.executable, "-m", f"counterfoil_{name}"],
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def check(self) -> None:
        """Raise StartError, with the end of its log, when one has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.logs / f"{name}.log"
                with log.open("rb") as file:
                    file.seek(max(0, log.stat().st_size - _LAST))
                    last = file.read().decode(errors="replace")
                raise StartError(f"{name} ended with {process.returncode} while erasures were carried out:\n{last}")

    def stop(self) -> None:
        """Stop every service, callers first, and wait for their ends."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_until_none(outstanding: Iterator[int], started: Running) -> None:
    """Look again and again how many erasures nobody has reported, until there are none; raise StartError."""
    last, since = -1, time.monotonic()
    for left in outstanding:
        if left == 0:
            return
        if left != last:
            last, since = left, time.monotonic()
        if time.monotonic() - since > _STILL_SECONDS:
            raise StartError(f"{left} erasures are not carried out after half an hour; see {started.logs}.")
        started.check()
        time.sleep(_LOOK_SECONDS)  # nothing tells a process that is no service


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
