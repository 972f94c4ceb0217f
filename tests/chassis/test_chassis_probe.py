"""What probes are told of a real process that serves, waits or hangs, and waiting for a migration."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.health import LIVENESS, READINESS, STARTUP
from counterfoil_chassis.lease import lease_of
from counterfoil_chassis.migrate import create, upgrade, wait_until_newest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.chassis.faults import Fault, FaultProxy
from tests.postgres import Server, direct

ROOT = Path(__file__).parents[2]
NAMES = (STARTUP, READINESS, LIVENESS)


class Process:
    """The probe service as a process, and what it tells."""

    def __init__(self, data_dir: Path, port: Callable[[], int], **more: str) -> None:
        self.listen, self.metrics = (f"127.0.0.1:{port()}" for _ in range(2))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}
        self.environment = clean | {
            "PYTHONPATH": os.pathsep.join((str(data_dir / "code"), str(ROOT))),
            "COUNTERFOIL_DATA_DIR": str(data_dir),
            "COUNTERFOIL_PROBE_LISTEN": self.listen,
            "COUNTERFOIL_PROBE_METRICS_LISTEN": self.metrics,
            "COUNTERFOIL_LEASE_SECONDS": "3",
            **more,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await self.python("tests.chassis.probe_main")
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def probe(self, *arguments: str) -> tuple[int | None, str]:
        """Run the command that containers run; return its exit code and line."""
        process = await self.python("counterfoil_chassis.probe", *arguments)
        async with asyncio.timeout(60):
            stdout, _ = await process.communicate()
        return process.returncode, stdout.decode()

    async def says(self, name: str) -> str:
        """Return the status by gRPC."""
        async with grpc.aio.insecure_channel(self.listen) as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=name), timeout=30)
        return HealthCheckResponse.ServingStatus.Name(answer.status)

    async def until(self, name: str) -> None:
        """Wait until the probe succeeds."""
        async with asyncio.timeout(60):
            while (await self.probe(name))[0] != 0:
                pass

    async def python(self, module: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=self.environment,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )


async def test_a_process_that_serves_says_yes_and_one_that_hangs_nothing(
    data_dir: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    process = Process(data_dir, unused_tcp_port_factory)
    assert "does not answer" in (await process.probe(LIVENESS))[1]
    async with process.running() as running:
        await process.until(READINESS)
        assert [(await process.probe(name)) for name in NAMES] == [(0, f"{name}: yes\n") for name in NAMES]
        assert [(await process.says(name)) for name in NAMES] == ["SERVING"] * 3
        port = process.metrics.rpartition(":")[2]
        del process.environment["COUNTERFOIL_PROBE_METRICS_LISTEN"]
        assert (await process.probe(READINESS, "--port", port))[0] == 0
        assert (await process.probe(READINESS))[0] == (await process.probe("health"))[0] == 2
        running.send_signal(signal.SIGUSR1)
        assert (await process.probe(LIVENESS, "--port", port))[0] == 1


async def test_a_standby_lives_is_not_ready_and_names_who_keeps_it(
    data_dir: Path, package: str, postgres: Server, unused_tcp_port_factory: Callable[[], int]
) -> None:
    url = postgres.empty()
    create(url)
    upgrade(url, package)
    holder = lease_of("probe", url, seconds=60)
    assert await holder.taken()
    process = Process(data_dir, unused_tcp_port_factory, PROBE_PACKAGE=package, COUNTERFOIL_PROBE_DATABASE_URL=url)
    async with process.running():
        await process.until(STARTUP)
        assert [(await process.says(name)) for name in NAMES] == ["SERVING", "NOT_SERVING", "SERVING"]
        code, line = await process.probe(READINESS)
        assert (code, "lease: another process holds it" in line) == (1, True), line
        await holder.give_back()
        await process.until(READINESS)


async def test_a_process_whose_database_comes_later_waits_says_so_and_becomes_ready_alone(
    data_dir: Path, package: str, postgres: Server, unused_tcp_port_factory: Callable[[], int]
) -> None:
    url = postgres.empty()
    create(url)
    upgrade(url, package)
    proxy = FaultProxy(f"127.0.0.1:{postgres.port}")
    await proxy.start()
    await proxy.set(Fault.REFUSE)
    behind = url.replace(f":{postgres.port}/", f":{proxy.address.rpartition(':')[2]}/")
    process = Process(data_dir, unused_tcp_port_factory, PROBE_PACKAGE=package, COUNTERFOIL_PROBE_DATABASE_URL=behind)
    try:
        async with process.running():
            await process.until(STARTUP)
            assert [(await process.says(name)) for name in NAMES] == ["SERVING", "NOT_SERVING", "SERVING"]
            assert "lease: the database cannot be asked" in (await process.probe(READINESS))[1]
            await proxy.set(Fault.NONE)
            await process.until(READINESS)
    finally:
        await proxy.stop()


async def test_a_wait_for_a_migration_ends_with_it_and_a_migration_makes_the_database(
    data_dir: Path, package: str, postgres: Server, unused_tcp_port_factory: Callable[[], int]
) -> None:
    url = postgres.empty()
    waiting = asyncio.create_task(asyncio.to_thread(wait_until_newest, url, package, seconds=60))
    done, _ = await asyncio.wait([waiting], timeout=1.5)
    assert not done
    process = Process(
        data_dir,
        unused_tcp_port_factory,
        PROBE_PACKAGE=package,
        COUNTERFOIL_PROBE_DATABASE_URL=url,
        COUNTERFOIL_PROBE_PRIVATE_KEY_FILE="/needed/by/no/migration.pem",
    )
    migration = await process.python("tests.chassis.probe_main", "migrate")
    told, _ = await migration.communicate()
    assert (migration.returncode, told) == (0, b"")
    await waiting
    postgres.drop(url)


def test_a_wait_for_a_migration_is_bounded_and_not_begun_where_it_cannot_help(postgres: Server, package: str) -> None:
    url = postgres.empty()
    with pytest.raises(StartError, match="after 0 s, there is no database"):
        wait_until_newest(url, package, seconds=0)
    create(url)
    upgrade(url, package)
    with direct(url) as connection:
        connection.script("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(StartError, match="newer release"):
        wait_until_newest(url, package, seconds=600)
    postgres.drop(url)
