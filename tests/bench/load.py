"""The load: wrk, since a client in Python would be slower than what it measures."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.measuring import cpu_seconds, wait_until_quiet

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Cell:
    """What one variant did in one round."""

    requests: int
    cpu: float
    """Seconds of the variant's processes while they answered, without what follows in processes that they started."""
    settled: float
    """The same with those, until all were quiet again."""
    per_second: float
    p50_ms: float
    p99_ms: float

    @property
    def us(self) -> float:
        """Return microseconds of processor time per completed request."""
        return self.cpu / self.requests * 1e6


@dataclass
class Variant:
    """Something that answers requests, with the processes whose time it costs."""

    url: str
    verb: str
    """`post`: `content` is a template of bodies. `get`: it is one path per line."""
    content: Path
    connections: int
    processes: Sequence[psutil.Process]
    headers: Mapping[str, str]
    busy: Sequence[psutil.Process] = ()
    """More processes that must be quiet before it is measured."""
    completed: int = 0
    unanswered: int = 0
    """At most so many requests were on their way when a load ended: done perhaps, and counted by nobody."""

    def warm_up(self) -> None:
        """Let lazy imports, connections and caches happen."""
        self.load(1)

    def measure(self, seconds: int) -> Cell:
        """Load it and return what it cost; end everything when an answer was not a success."""
        everybody = [*self.processes, *self.busy]
        wait_until_quiet(everybody)
        before, alone = cpu_seconds(self.processes), cpu_seconds(self.processes, alone=True)
        seen = self.load(seconds)
        cpu = cpu_seconds(self.processes, alone=True) - alone
        wait_until_quiet(everybody)
        settled = cpu_seconds(self.processes) - before
        rate = seen["requests"] / seen["seconds"]
        return Cell(int(seen["requests"]), cpu, settled, rate, seen["p50_ms"], seen["p99_ms"])

    def load(self, seconds: int) -> dict[str, float]:
        """Send for so long; return what wrk has counted."""
        fields = [part for name, value in self.headers.items() for part in ("-H", f"{name}: {value}")]
        how = ["-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), *fields]
        arguments = ["--", self.verb, str(self.content), secrets.token_hex(12)]
        done = subprocess.run([_wrk(), *how, self.url, *arguments], capture_output=True, text=True, check=True)
        seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        if seen["refused"] or seen["broken"] or not seen["requests"]:
            raise SystemExit(f"{self.url}: {seen}; an answer was not a success, so nothing was measured")
        self.completed += int(seen["requests"])
        self.unanswered += self.connections
        return seen


def require_wrk() -> None:
    """Say what to do where wrk is not installed."""
    _wrk()


def _wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("wrk makes the load and is not installed; Debian and Ubuntu have it: apt install wrk")
    return found
