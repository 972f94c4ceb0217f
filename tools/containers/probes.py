"""What the kubelet does with probes: podman 4.3.1 ignores most kinds, and runs the others inside the container."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

STARTUP, READINESS, LIVENESS = KINDS = ("startupProbe", "readinessProbe", "livenessProbe")
_TIMES = {"initialDelaySeconds": 0, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}
_START_SECONDS = 0.2
EXEC_SECONDS = 60.0
"""What `podman exec` may take of its own on a busy machine, besides the command."""


@dataclass(frozen=True)
class Probe:
    """One probe, with Kubernetes' defaults filled in. `action` is grpc, httpGet, tcpSocket or exec."""

    action: str
    of: Mapping[str, Any]
    delay: float
    period: float
    timeout: float
    failures: int
    """Of so many in a row it is found to fail."""
    grace_seconds: int | None
    """How long a container that fails it may take to end; None = as long as its pod's."""

    @classmethod
    def read(cls, spec: Mapping[str, Any], ports: Mapping[str, int]) -> Probe:
        """Read a probe; `ports` are those that the container names."""
        [action] = spec.keys() & {"grpc", "httpGet", "tcpSocket", "exec"}
        of = dict(spec[action])
        if "port" in of:
            of["port"] = ports.get(of["port"], of["port"])
        delay, period, timeout, failures = (spec.get(name, default) for name, default in _TIMES.items())
        return cls(action, of, delay, period, timeout, failures, spec.get("terminationGracePeriodSeconds"))

    def passes(self, container: str, address: str) -> bool:
        """Ask once."""
        try:
            return bool(_ACTIONS[self.action](self, container, address))
        except (OSError, http.client.HTTPException, grpc.RpcError, subprocess.TimeoutExpired):
            return False


def _ask_grpc(probe: Probe, _: str, address: str) -> bool:
    request = health_pb2.HealthCheckRequest(service=probe.of.get("service", ""))
    with grpc.insecure_channel(f"{address}:{probe.of['port']}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # the types know no methods of it
        answer = stub.Check(request, timeout=probe.timeout)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _ask_http(probe: Probe, _: str, address: str) -> bool:
    connection = http.client.HTTPConnection(address, probe.of["port"], timeout=probe.timeout)
    try:
        connection.request("GET", probe.of.get("path", "/"))
        return connection.getresponse().status < 400
    finally:
        connection.close()


def _connect(probe: Probe, _: str, address: str) -> bool:
    socket.create_connection((address, probe.of["port"]), probe.timeout).close()
    return True


def _execute(probe: Probe, container: str, _: str) -> bool:
    command = ["podman", "exec", container, *probe.of["command"]]
    return (
        subprocess.run(command, capture_output=True, check=False, timeout=probe.timeout + EXEC_SECONDS).returncode == 0
    )


_ACTIONS: Mapping[str, Callable[[Probe, str, str], bool]] = {
    "grpc": _ask_grpc,
    "httpGet": _ask_http,
    "tcpSocket": _connect,
    "exec": _execute,
}


class Watch(threading.Thread):
    """Asks one container's probes until told to end: it is started, then ready or not, and restarted when not alive."""

    def __init__(
        self,
        container: str,
        address: str,
        probes: Mapping[str, Probe],
        *,
        process: Callable[[], int],
        restart: Callable[[int | None], None],
    ) -> None:
        """Take the probes by kind, what tells the container's process (0 = none), and what restarts it."""
        super().__init__(name=f"watch-{container}", daemon=True)
        self.container = container
        self.restarts = 0
        self._address = address
        self._probes = probes
        self._process = process
        self._restart = restart
        self._is_ready = threading.Event()
        self._is_over = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether a Service would send it requests."""
        return self._is_ready.is_set()

    def wait_ready(self, seconds: float) -> bool:
        """Wait until it is ready, and tell whether it is."""
        return self._is_ready.wait(seconds)

    def end(self) -> None:
        """Ask no more: the pod ends, and gets no requests from now on."""
        self._is_over.set()
        self._is_ready.clear()

    def run(self) -> None:
        """Begin again with each new process, whether the old one ended by itself or was not alive."""
        while not self._is_over.is_set():
            process = self._process()
            if process == 0:  # podman starts it again
                self._is_over.wait(_START_SECONDS)
                continue
            failed = self._follow(process)
            self._is_ready.clear()
            if self._is_over.is_set():
                return
            if failed is not None:
                self.restarts += 1
                print(f"{self.container} fails its probe ({failed.action} {failed.of}): restarted", flush=True)
                self._restart(failed.grace_seconds)

    def _follow(self, process: int) -> Probe | None:
        """Return the probe that finds the process dead; None when it ends by itself, or the pod does."""
        startup = self._probes.get(STARTUP)
        if startup is not None and not self._starts(startup, process):
            return startup if _runs(process) else None
        if READINESS not in self._probes:
            self._is_ready.set()
        asked = {kind: probe for kind, probe in self._probes.items() if kind != STARTUP}
        due = {kind: time.monotonic() + probe.delay for kind, probe in asked.items()}
        failures = dict.fromkeys(asked, 0)
        while due and _runs(process):
            kind = min(due, key=due.__getitem__)
            if self._is_over.wait(max(0.0, due[kind] - time.monotonic())):
                return None
            probe = asked[kind]
            failures[kind] = 0 if probe.passes(self.container, self._address) else failures[kind] + 1
            due[kind] = time.monotonic() + probe.period
            if kind == READINESS:
                self._note_readiness(failures[kind], probe)
            elif failures[kind] >= probe.failures and _runs(process):
                return probe
        if not due:  # nothing asks
            self._is_over.wait()
        return None

    def _starts(self, probe: Probe, process: int) -> bool:
        """Wait until the probe passes; tell whether it did before it had failed too often."""
        self._is_over.wait(probe.delay)
        for _ in range(probe.failures):
            if self._is_over.is_set() or probe.passes(self.container, self._address):
                return True
            if not _runs(process):
                return False
            self._is_over.wait(probe.period)
        return False

    def _note_readiness(self, failures: int, probe: Probe) -> None:
        if failures == 0 and not self._is_over.is_set():
            self._is_ready.set()
        elif failures >= probe.failures:
            self._is_ready.clear()


def _runs(process: int) -> bool:
    return Path(f"/proc/{process}").exists()
