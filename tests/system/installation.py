"""A whole Counterfoil in a folder of its own: started by its command, met by its doors, stopped by a signal."""

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

import grpc
import httpx
import psutil

from tests.ports import STEP, WORKER
from tests.postgres import WITH_PARENT, Server

COMMAND = Path(sys.executable).parent / "counterfoil"
PORTS = (8080, 8081, *range(7101, 7106), *range(9100, 9106), 4317, 4318, 16686)
START_SECONDS = 90
STOP_SECONDS = 30
T = TypeVar("T")


def until(ask: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """Ask again and again for something that nothing announces; fail when it has not come by then."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s: {what}")
        time.sleep(0.05)


def own_memory(process: psutil.Process) -> int:
    """Return the bytes that a process holds for itself, with those that it started; raise psutil.NoSuchProcess.

    Files that they map, such as the table of known ids, are not their own: the system takes those pages back.
    """
    memory = process.memory_info()
    total = memory.rss - memory.shared
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            memory = child.memory_info()
            total += memory.rss - memory.shared
    return int(total)


def free_offset() -> int:
    """Return an offset under which every port is free, all of them below the kernel's ephemeral range."""
    for offset in random.sample(range(2 * STEP + 10 * WORKER, 15000, STEP), 200):
        with contextlib.ExitStack() as held:
            try:
                for port in PORTS:
                    held.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            except OSError:
                continue
            return offset
    raise AssertionError("no offset leaves every port free")


@dataclass
class Installation:
    """One running `counterfoil up`."""

    data: Path
    offset: int
    process: subprocess.Popen[bytes]
    output: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    """Every process it was seen to have, by id."""
    server: ClassVar[Server | None] = None
    """The PostgreSQL server of those that are started; None = SQLite."""
    servers: ClassVar[dict[Path, str]] = {}
    """The databases of each data folder, as `COUNTERFOIL_DATABASE_URL` names them."""

    @classmethod
    def database(cls, data: Path) -> Mapping[str, str]:
        """Return the setting that says where a data folder's databases are; they stay the same for a folder."""
        if cls.server is None:
            return {}
        if data not in cls.servers:
            cls.servers[data] = cls.server.installation()
        return {"COUNTERFOIL_DATABASE_URL": cls.servers[data]}

    @classmethod
    def start(
        cls,
        data: Path,
        *,
        arguments: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        times: int = 3,
    ) -> "Installation":
        """Start the command with these settings alone, and wait until the gateway says that everything is ready.

        A port may be taken between the look whether it is free and the start: that is tried again elsewhere.
        """
        offset = free_offset()
        output = data.with_suffix(".out")
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [*WITH_PARENT, COMMAND, "up", "--data", data, "--port-offset", str(offset), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={
                    name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))
                }
                | {**cls.database(data), **(settings or {})},
                start_new_session=True,
            )
        made = cls(data, offset, process, output)
        try:
            until(made._ready, seconds=START_SECONDS, what="not ready")
        except AssertionError:
            process.kill()
            process.wait()
            told = output.read_text(errors="replace")
            if "is in use" in told and times > 1:
                return cls.start(data, arguments=arguments, settings=settings, times=times - 1)
            raise AssertionError(f"did not start:\n{told}\n{made.logs()}") from None
        made.children()
        return made

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, data: Path, *, arguments: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> Iterator["Installation"]:
        """Start one, and make sure that it is gone afterwards, whatever the test found."""
        started = cls.start(data, arguments=arguments, settings=settings)
        try:
            yield started
        finally:
            if started.process.poll() is None:
                started.stop()

    def _ready(self) -> bool | None:
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}")
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False)
        except httpx.TransportError:
            return None
        return True if answer.status_code == 200 else None

    def logs(self) -> str:
        """Return the end of every process's log."""
        found = sorted(self.data.rglob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in found)

    @property
    def url(self) -> str:
        """The REST door."""
        return f"http://127.0.0.1:{8080 + self.offset}"

    @property
    def grpc_target(self) -> str:
        """The gRPC door."""
        return f"127.0.0.1:{8081 + self.offset}"

    @property
    def traces_url(self) -> str:
        """The trace sink's pages and query API."""
        return f"http://127.0.0.1:{16686 + self.offset}"

    @property
    def admin_key(self) -> str:
        """The key that `up` wrote."""
        return (self.data / "admin.key").read_text().strip()

    def http(self, key: str | None = None, **options: object) -> httpx.Client:
        """Return a client of the REST door; without a key it shows none."""
        headers = {"X-Api-Key": key} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Open a channel to the gRPC door."""
        with grpc.insecure_channel(self.grpc_target) as channel:
            yield channel

    def children(self) -> list[psutil.Process]:
        """Return the processes it has now, at every depth, and remember them."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen |= {child.pid: child for child in found}
        return found

    def child(self, service: str) -> psutil.Process:
        """Return the process of one service, known by the name the launcher gives it."""
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == f"cf-{service}":
                    return child
        raise AssertionError(f"{service} has no process among {self.children()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the command a signal and return its exit code."""
        self.children()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not stop within {STOP_SECONDS} s of {number.name}") from None

    def leftovers(self) -> list[psutil.Process]:
        """Return the processes that outlived it."""
        return [child for child in self.seen.values() if _lives(child)]

    def trace(self, trace_id: str, *, services: set[str], seconds: float = 60) -> list[dict[str, object]]:
        """Return a trace's spans as soon as these services have theirs in the sink, each with its parent.

        Processes send their spans at their own pace, so a child can be there before its parent. Only the first span of
        the gateway has a parent elsewhere: the caller.
        """
        last: set[str] = set()

        def ask() -> list[dict[str, object]] | None:
            nonlocal last
            answer = httpx.get(f"{self.traces_url}/api/traces/{trace_id}", timeout=30, trust_env=False)
            if answer.status_code != 200 or not answer.json().get("data"):
                return None
            [found] = answer.json()["data"]
            names = {process_id: process["serviceName"] for process_id, process in found["processes"].items()}
            spans = [span | {"service": names[span["processID"]]} for span in found["spans"]]
            last = {span["service"] for span in spans}
            known = {span["spanID"] for span in spans}
            orphans = {s["service"] for s in spans if s["references"] and s["references"][0]["spanID"] not in known}
            return spans if services <= last and orphans <= {"gateway"} else None

        try:
            return until(ask, seconds=seconds, what=f"trace {trace_id} lacks services or parents")
        except AssertionError as error:
            raise AssertionError(f"{error}: {services - last}, it has {last}") from None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two
        return False


def traceparent() -> tuple[str, str]:
    """Return a new sampled W3C trace context and its trace id."""
    trace_id = secrets.token_hex(16)
    return f"00-{trace_id}-{secrets.token_hex(8)}-01", trace_id
