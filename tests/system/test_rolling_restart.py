"""Gateways that are replaced one by one behind a balancer, under load by the clients that people use."""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.rolling import load
from tests.system.installation import START_SECONDS, Installation, until
from tests.system.tenant import Tenant

SOAK_ROUNDS = 10
POLL_SECONDS = 0.05
PATIENCE = 3.0
"""Seconds that a backend may take to say that it is ready; as in the readiness probe of k8s/."""


@dataclass
class Gateway:
    """One gateway more of an installation, a process of its own."""

    process: subprocess.Popen[bytes]
    address: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, installation: Installation, folder: Path) -> Iterator["Gateway"]:
        """Start it beside the installation's own and wait until it is ready; it is gone afterwards."""
        listen, grpc_listen = (f"127.0.0.1:{free_port()}" for _ in range(2))
        ports = {"INGEST": 7101, "CONTRACTS": 7102, "GRAPH": 7103, "MODELS": 7104, "GOVERNANCE": 7105}
        settings = {
            f"COUNTERFOIL_GATEWAY_{name}_TARGET": f"127.0.0.1:{port + installation.offset}"
            for name, port in ports.items()
        } | {
            "COUNTERFOIL_DATA_DIR": str(installation.data),
            "COUNTERFOIL_GATEWAY_LISTEN": listen,
            "COUNTERFOIL_GATEWAY_GRPC_LISTEN": grpc_listen,
            "COUNTERFOIL_GATEWAY_METRICS_LISTEN": "",
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}
        log = folder / f"gateway-{listen.rpartition(':')[2]}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen([sys.executable, "-m", "counterfoil_gateway"], env=clean | settings, stderr=sink)
        try:
            started = cls(process, listen)
            until(lambda: started._ready(log), seconds=START_SECONDS, what="the gateway is not ready")
            yield started
        finally:
            process.kill()
            process.wait()

    def _ready(self, log: Path) -> bool | None:
        assert self.process.poll() is None, log.read_text()
        try:
            answer = httpx.get(f"http://{self.address}/readyz", timeout=2, trust_env=False)
        except httpx.TransportError:
            return None
        return True if answer.status_code == 200 else None

    def stop(self) -> int:
        """Tell it to stop as Kubernetes does, and return its exit code."""
        self.process.terminate()
        return self.process.wait(30)


@dataclass
class Balancer:
    """Hands each connection to the next backend that says it is ready, as a Service of Kubernetes does."""

    backends: dict[str, bool] = field(default_factory=dict)
    """By address, whether it was ready when it was last asked."""
    address: str = ""
    _turns: Iterator[int] = field(default_factory=itertools.count)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve on a free port, in a thread of its own, while the block runs."""
        started, ended = threading.Event(), Future[None]()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(started, ended)))
        thread.start()
        try:
            assert started.wait(10)
            yield
        finally:
            ended.set_result(None)
            thread.join()

    async def _serve(self, started: threading.Event, ended: Future[None]) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        self._connections.add(asyncio.create_task(self._watch()))
        started.set()
        await asyncio.wrap_future(ended)
        server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._hand_on(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _watch(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            while True:
                for address in list(self.backends):
                    try:
                        ready = (await client.get(f"http://{address}/readyz")).status_code == 200
                    except httpx.TransportError:
                        ready = False
                    if address in self.backends:
                        self.backends[address] = ready
                await asyncio.sleep(POLL_SECONDS)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            if not (ready := [address for address, is_ready in self.backends.items() if is_ready]):
                return
            host, _, port = ready[next(self._turns) % len(ready)].rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            with contextlib.closing(back):
                await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while read := await reader.read(1 << 16):
        writer.write(read)
        await writer.drain()
    writer.write_eof()


def test_gateways_are_replaced_one_by_one_under_load_and_no_request_is_lost(
    request: pytest.FixtureRequest, installation: Installation, tenant: Tenant, tmp_path: Path
):
    rounds = SOAK_ROUNDS if request.config.getoption("--soak") else 1
    _, write_key = tenant.source("Rolled")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Gateway.running(installation, tmp_path)) for _ in range(2)]
        balancer = Balancer({gateway.address: True for gateway in running})
        stack.enter_context(balancer.running())
        url = f"http://{balancer.address}"
        with load(url, key=tenant.key, write_key=write_key) as working:
            working.wait_for_progress()
            for _ in range(rounds):
                fresh = stack.enter_context(Gateway.running(installation, tmp_path))
                running.append(fresh)
                balancer.backends[fresh.address] = True
                working.wait_for_progress()
                old = running.pop(0)
                assert old.stop() == 0
                del balancer.backends[old.address]
                working.wait_for_progress()
        print(f"\n{working.report()}")
        working.check(tenant.key, url)
