"""Forks processes, starts dead ones again, and stops all of them: plain synchronous code around one `select`.

The parent holds no event loop, thread or gRPC object, so a fork is safe at any time, also an hour after the start.
"""

import os
import select
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from counterfoil_cli.child import LOG_ROTATES_AT, become

STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
WATCHED = STOPPING | {signal.SIGCHLD}
LAST_LINES = 8
CANNOT_START = 2  # the exit code of a process whose settings, keys or data keep it from starting


@dataclass(frozen=True)
class ProcessSpec:
    """One process: what runs in it, where its output goes, and what its end means."""

    name: str
    run: Callable[[], object]
    log: Path | None = None  # None = the terminal
    on_end: Callable[[int], None] | None = None  # runs once and this hears its exit code; None = kept running
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 8.0  # a drain of five seconds, and some; then SIGKILL


@dataclass(frozen=True)
class Restarts:
    """When a dead process is started again, and when that is given up."""

    first_seconds: float = 0.2
    longest_seconds: float = 5.0
    deaths: int = 5
    within_seconds: float = 60.0

    def delay(self, deaths: int) -> float:
        """Return the seconds to wait after the `deaths`-th death (from 1) of late."""
        return min(self.first_seconds * 2.0 ** (deaths - 1), self.longest_seconds)


@dataclass(frozen=True)
class Logs:
    """How long a log may become, and how often that is looked at."""

    longest_bytes: int = LOG_ROTATES_AT
    look_seconds: float = 60.0


@dataclass
class _Process:
    spec: ProcessSpec
    pid: int = 0  # 0 = not running
    due: float | None = None  # when to start it again
    log_from: int = 0  # where in its log this life of it begins
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """Keeps a list of processes running until it is told to stop; `show` prints one line for people."""

    def __init__(
        self,
        show: Callable[[str], None],
        *,
        restarts: Restarts | None = None,
        on_restart: Callable[[str], None] | None = None,
        logs: Logs | None = None,
    ) -> None:
        self._show = show
        self._restarts = restarts or Restarts()
        self._logs = logs or Logs()
        self._on_restart = on_restart
        self._processes: list[_Process] = []
        self._code: int | None = None
        self.settled = False  # until it is, a process that says that it cannot start ends everything

    def start(self, spec: ProcessSpec) -> None:
        """Fork one more process; it is stopped before those started earlier."""
        process = next((known for known in self._processes if known.spec.name == spec.name), None)
        if process is None:
            process = _Process(spec)
            self._processes.append(process)
        elif process.pid:
            return
        process.spec = spec
        self._fork(process)

    def stop(self, code: int) -> None:
        """Have `run` stop everything and return `code`; the first call decides."""
        if self._code is None:
            self._code = code

    def run(self, specs: Sequence[ProcessSpec]) -> int:
        """Fork the processes in their order, keep them, and return the exit code once all have stopped."""
        with _signals() as pipe:
            try:
                for spec in specs:
                    self.start(spec)
                while self._code is None:
                    if _wait(pipe, self._next_due()) & STOPPING:
                        self.stop(0)
                    self._reap()
                    self._start_due()
                    self._shorten_logs()
            finally:
                self._stop_all(pipe)
        return self._code or 0

    def _fork(self, process: _Process) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        log = process.spec.log
        process.log_from = log.stat().st_size if log is not None and log.exists() else 0
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # none may reach the child under our handlers
        pid = os.fork()
        if pid == 0:
            spec = process.spec
            become(spec.run, name=spec.name, parent=parent, log=spec.log, signals=WATCHED, mask=_signals_of(mask))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        process.pid, process.due = pid, None

    def _next_due(self) -> float:
        due = [process.due for process in self._processes if process.due is not None]
        return min(max(0.0, min(due) - time.monotonic()), self._logs.look_seconds) if due else self._logs.look_seconds

    def _shorten_logs(self) -> None:
        """Begin a log that is too long anew, and keep what it held as `<name>.log.1`.

        The process holds it open, so it is copied and emptied; a line that is written in between is lost.
        """
        for process in self._processes:
            log = process.spec.log
            if log is None or not log.exists() or log.stat().st_size <= self._logs.longest_bytes:
                continue
            try:
                shutil.copy(log, log.with_name(f"{log.name}.1"))
            except OSError as error:
                self._show(f"{log} is too long and cannot be kept: {error.strerror or error}.")
            os.truncate(log, 0)

    def _start_due(self) -> None:
        for process in self._processes:
            if self._code is None and process.due is not None and process.due <= time.monotonic():
                self._fork(process)
                if self._on_restart is not None:
                    self._on_restart(process.spec.name)

    def _reap(self) -> None:
        for process in list(self._processes):
            if process.pid and (code := _ended(process.pid)) is not None:
                process.pid = 0
                if self._code is not None:
                    continue  # it was told to end
                if process.spec.on_end is not None:
                    process.spec.on_end(code)
                else:
                    self._mourn(process, code)

    def _mourn(self, process: _Process, code: int) -> None:
        now = time.monotonic()
        process.deaths.append(now)
        while process.deaths[0] < now - self._restarts.within_seconds:
            process.deaths.popleft()
        name, deaths = process.spec.name, len(process.deaths)
        if code == CANNOT_START and not self.settled:
            self._show(f"{name} cannot start:")
            self.stop(CANNOT_START)
        elif deaths >= self._restarts.deaths:
            within = f"{self._restarts.within_seconds:g} s"
            self._show(f"{name} {_describe(code)}, {deaths} times within {within}: stopping everything.")
            self.stop(1)
        else:
            delay = self._restarts.delay(deaths)
            process.due = now + delay
            self._show(f"{name} {_describe(code)}; starting it again in {delay:g} s.")
        if process.spec.log is not None:
            self._show_end_of(process.spec.log, after=process.log_from)

    def _show_end_of(self, log: Path, *, after: int) -> None:
        lines = last_lines(log, LAST_LINES, after=after)
        if lines:
            self._show(f"The last lines of {log}:")
            for line in lines:
                self._show(f"  {line}")

    def _stop_all(self, pipe: int) -> None:
        """Stop the processes, newest first, each within its bound; a second signal ends the patience."""
        patient = True
        for process in reversed(self._processes):
            if not process.pid:
                continue
            deadline = time.monotonic() + process.spec.stop_seconds
            os.kill(process.pid, process.spec.stop_signal)
            while process.pid and patient and (left := deadline - time.monotonic()) > 0:
                if _wait(pipe, left) & STOPPING:
                    patient = False
                self._reap()
            if process.pid:
                if patient:
                    self._show(f"{process.spec.name} did not stop within {process.spec.stop_seconds:g} s: killed.")
                _kill_group(process.pid)
                os.waitpid(process.pid, 0)
                process.pid = 0


def last_lines(path: Path, count: int, *, after: int = 0, longest: int | None = 400) -> list[str]:
    """Return the last lines of a text file that are not blank, at most `count`, each at most `longest` characters.

    Nothing before byte `after` counts, unless the file has become shorter than that: then it is a new one.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - 64 * 1024, after if after <= size else 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line[:longest] for line in text.splitlines() if line.strip()][-count:]


@contextmanager
def _signals() -> Iterator[int]:
    """Turn the signals we watch into bytes on a pipe, so that `select` can wait for them and for a time at once."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, _noted) for number in WATCHED}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the number is on the pipe already."""


def _wait(pipe: int, seconds: float | None) -> frozenset[int]:
    """Return the signals that came, waiting at most `seconds` for one."""
    return frozenset(os.read(pipe, 4096)) if select.select([pipe], [], [], seconds)[0] else frozenset()


def _signals_of(mask: set[int] | set[signal.Signals]) -> set[signal.Signals]:
    return {signal.Signals(number) for number in mask}


def _ended(pid: int) -> int | None:
    """Return the exit code of a child (minus the signal that killed it), or None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _describe(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _kill_group(pid: int) -> None:
    """Kill a child with what it started; its group is its own from its first step on."""
    os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):  # no such group: it died before that step
        os.killpg(pid, signal.SIGKILL)
