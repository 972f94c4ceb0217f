"""One process writes; the next takes over; who was asleep meanwhile can write nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from counterfoil_chassis.database import Database
from counterfoil_chassis.lease import LeaseLostError, SharedLease, lease_of
from counterfoil_chassis.migrate import create, upgrade
from counterfoil_chassis.postgresql import connector
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import text
from sqlalchemy.engine import make_url

from tests.chassis.faults import Fault, fault_proxy
from tests.postgres import Server, direct

SECONDS = 1.0
RENEWED_SECONDS = 2.0
"""Where a renewal must not come too late, however busy the machine is."""
PROCESS_SECONDS = 3.0


@pytest.fixture
def pg_url(postgres: Server, package: str) -> str:
    """A migrated PostgreSQL database."""
    url = postgres.empty()
    create(url)
    upgrade(url, package)
    return url


async def write(database: Database, note: str) -> None:
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO note VALUES (:note)"), {"note": note})


def notes(url: str) -> set[str]:
    with direct(url.replace("+aiosqlite", "")) as connection:
        return {row[0] for row in connection.execute("SELECT text FROM note")}


@pytest.mark.both_engines
async def test_the_lease_is_had_once_and_goes_on_when_it_is_given_back(url: str) -> None:
    first, second = (lease_of("probe", url, seconds=10) for _ in range(2))
    try:
        assert await first.taken()
        assert not await second.taken()
        await first.give_back()
        assert await second.taken()
    finally:
        await second.give_back()


async def test_a_lease_that_is_not_renewed_goes_to_another_and_fences_its_former_holder(pg_url: str) -> None:
    first, second = (lease_of("probe", pg_url, seconds=SECONDS) for _ in range(2))
    database, other = Database(pg_url, lease=first), Database(pg_url, lease=second)
    try:
        assert await first.taken()
        await write(database, "before")
        async with asyncio.timeout(60):
            while not await second.taken():
                await asyncio.sleep(0.05)
        with pytest.raises(LeaseLostError):
            await write(database, "too late")
        with pytest.raises(LeaseLostError):
            await first.keep()
        await write(other, "after")
    finally:
        for each in (database, other):
            await each.close()
        for lease in (first, second):
            await lease.give_back()
    assert notes(pg_url) == {"before", "after"}


async def test_taking_over_waits_for_a_transaction_that_is_open(pg_url: str) -> None:
    first, second = (lease_of("probe", pg_url, seconds=SECONDS) for _ in range(2))
    database = Database(pg_url, lease=first)
    try:
        assert await first.taken()
        async with database.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES ('under way')"))
            taking = asyncio.create_task(second.taken())
            done, _ = await asyncio.wait([taking], timeout=2 * SECONDS)
            assert not done or not taking.result()  # its time is up, yet it is not free
        await taking
        async with asyncio.timeout(60):
            while not await second.taken():
                await asyncio.sleep(0.05)
        with pytest.raises(LeaseLostError):
            await write(database, "too late")
    finally:
        await database.close()
        for lease in (first, second):
            await lease.give_back()
    assert notes(pg_url) == {"under way"}


async def test_a_renewed_lease_is_kept_whatever_the_others_clocks_say(pg_url: str) -> None:
    first, second = (lease_of("probe", pg_url, seconds=RENEWED_SECONDS) for _ in range(2))
    try:
        assert await first.taken()
        keeping = asyncio.create_task(first.keep())
        for _ in range(25):  # longer than it is held without a renewal
            assert not await second.taken()
            await asyncio.sleep(0.1)
        assert not keeping.done()
        keeping.cancel()
    finally:
        for lease in (first, second):
            await lease.give_back()


async def test_a_renewal_that_got_no_answer_is_made_again_by_another_connection(pg_url: str) -> None:
    place = make_url(pg_url)
    async with fault_proxy(f"{place.host}:{place.port}") as proxy:
        host, _, port = proxy.address.rpartition(":")
        url = place.set(host=host, port=int(port)).render_as_string(hide_password=False)
        lease = lease_of("probe", url, seconds=SECONDS)
        assert await lease.taken()
        keeping = asyncio.create_task(lease.keep())
        await proxy.set(Fault.HALF_OPEN)
        connections = proxy.connections
        async with asyncio.timeout(60):  # it gives the silent connection up, and the next, too
            while proxy.connections < connections + 2 and not keeping.done():
                await asyncio.sleep(0.05)
        await proxy.set(Fault.NONE)
        async with asyncio.timeout(60):
            while not keeping.done() and not renewed(pg_url):
                await asyncio.sleep(0.05)
        assert not keeping.done()
        keeping.cancel()
        await lease.give_back()


def renewed(url: str) -> bool:
    with direct(url) as connection:
        now = "extract(epoch FROM clock_timestamp()) * 1000000"
        [[count]] = connection.execute(f"SELECT count(*) FROM lease WHERE expires_us > {now}")
        return bool(count)


async def test_a_connection_whose_other_end_vanishes_without_a_word_is_ended_by_the_system(pg_url: str) -> None:
    connection = await connector(pg_url, name="probe")()
    wire = connection._transport.get_extra_info("socket")
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    await connection.close()


async def test_who_shares_the_database_keeps_no_renewal_and_no_new_holder_waiting(pg_url: str) -> None:
    first, second = (lease_of("probe", pg_url, seconds=RENEWED_SECONDS) for _ in range(2))
    beside = Database(pg_url, lease=SharedLease("probe", seconds=RENEWED_SECONDS))
    try:
        await write(beside, "before anybody held it")
        assert await first.taken()
        async with beside.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES ('beside')"))
            keeping = asyncio.create_task(first.keep())
            await asyncio.wait([keeping], timeout=1.25 * RENEWED_SECONDS)
            assert not keeping.done()
            assert not await second.taken()  # it was renewed
            keeping.cancel()
            await asyncio.wait([keeping])  # it may be in the middle of a renewal
            await first.give_back()
            assert await second.taken()
    finally:
        await beside.close()
        for lease in (first, second):
            await lease.give_back()
    assert notes(pg_url) == {"before anybody held it", "beside"}


async def test_who_holds_every_writer_for_a_moment_holds_those_that_share_the_database_too(pg_url: str) -> None:
    lease = lease_of("probe", pg_url, seconds=10)
    beside = Database(pg_url, lease=SharedLease("probe", seconds=10))
    try:
        assert await lease.taken()
        holding = Database(pg_url)
        async with holding.begin() as connection:
            await connection.execute(text(lease.barrier))
            writing = asyncio.create_task(write(beside, "after"))
            done, _ = await asyncio.wait([writing], timeout=SECONDS)
            assert not done
        await writing
        await holding.close()
    finally:
        await beside.close()
        await lease.give_back()
    assert notes(pg_url) == {"after"}


class Process:
    """A probe that writes a note whenever it gets a line, and says what became of it."""

    def __init__(self, process: asyncio.subprocess.Process, listen: str) -> None:
        self.process = process
        self.listen = listen

    async def readiness(self) -> str:
        async with grpc.aio.insecure_channel(self.listen) as channel:
            request = health_pb2.HealthCheckRequest(service="readiness")
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def until(self, status: str) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    if await self.readiness() == status:
                        return
                except grpc.aio.AioRpcError:
                    pass
                await asyncio.sleep(0.05)

    async def write(self, note: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{note}\n".encode())
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()


@pytest.fixture
async def begin(data_dir: Path, package: str, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Callable]:
    """Start processes on one database; those that are left are killed at the end."""
    begun: list[Process] = []

    async def begin(url: str) -> Process:
        listen = f"127.0.0.1:{unused_tcp_port_factory()}"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(data_dir / "code"), str(Path.cwd()))),
            "COUNTERFOIL_DATA_DIR": str(data_dir),
            "COUNTERFOIL_PROBE_LISTEN": listen,
            "COUNTERFOIL_PROBE_DATABASE_URL": url,
            "COUNTERFOIL_LEASE_SECONDS": str(PROCESS_SECONDS),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chassis.lease_holder", package),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )
        begun.append(Process(process, listen))
        return begun[-1]

    yield begin
    for each in begun:
        if each.process.returncode is None:
            each.process.kill()
        await each.process.communicate()


@pytest.mark.both_engines
async def test_a_standby_takes_over_from_a_process_that_was_killed(url: str, begin: Callable) -> None:
    first = await begin(url)
    await first.until("SERVING")
    second = await begin(url)
    await second.until("NOT_SERVING")
    assert await first.write("one") == "kept"
    first.process.kill()
    await second.until("SERVING")
    assert await second.write("two") == "kept"
    assert notes(url) == {"one", "two"}


async def test_a_process_that_was_paused_beyond_its_lease_keeps_nothing_and_ends(pg_url: str, begin: Callable) -> None:
    first = await begin(pg_url)
    await first.until("SERVING")
    second = await begin(pg_url)
    await second.until("NOT_SERVING")
    first.process.send_signal(signal.SIGSTOP)
    await second.until("SERVING")
    assert await second.write("by the second") == "kept"
    assert first.process.stdin is not None
    first.process.stdin.write(b"by the first\n")  # it waits there when the process wakes
    first.process.send_signal(signal.SIGCONT)
    told, _ = await first.process.communicate()
    assert first.process.returncode == 1
    assert b"kept" not in told
    assert notes(pg_url) == {"by the second"}
