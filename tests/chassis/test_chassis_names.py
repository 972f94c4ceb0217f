"""A dependency behind a name: it appears, moves, or leaves without a word, and is found again in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from counterfoil_chassis import guarded
from counterfoil_chassis.call import connect
from counterfoil_chassis.guarded import GuardedChannel

from tests.chassis.faults import Fault, FaultProxy
from tests.chassis.names import ELSEWHERE, HERE, Names

AWAY_SECONDS = 10.0
"""After so long without an answer gRPC's own next look at a name is some six seconds away."""


class World:
    """The name, the channel to it, and servers that come and go at its port."""

    def __init__(self, names: Names, channel: GuardedChannel, port: int) -> None:
        self.names = names
        self.port = port
        self._ask = channel.unary_unary("/probe.v1.Probe/Ask")
        self._server: grpc.aio.Server | None = None

    async def serve(self, address: str) -> None:
        """Have a server there, and none anywhere else."""
        await self.stop()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_insecure_port(f"{address}:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)

    async def is_found(self) -> bool:
        """Say whether a server answers: that it has no such method."""
        try:
            await self._ask(b"", timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        raise AssertionError("there is no such method")

    async def found_after(self) -> float:
        """Return the seconds until a server answers."""
        begun = time.monotonic()
        while not await self.is_found():
            assert time.monotonic() < begun + 60
            await asyncio.sleep(0.1)
        return time.monotonic() - begun


@pytest.fixture
async def world(unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(Names, local_addr=(HERE, 0))
    dns, port = transport.get_extra_info("sockname")[1], unused_tcp_port_factory()
    async with connect(f"dns://{HERE}:{dns}/ingest.test:{port}") as channel:
        world = World(names, channel, port)
        yield world
        await world.stop()
    transport.close()


async def test_one_that_comes_long_after_its_callers_is_found_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "_UNCONNECTED_SECONDS", 1.0)
    until = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < until:
        assert not await world.is_found()
        await asyncio.sleep(0.1)
    world.names.address = HERE
    await world.serve(HERE)
    assert await world.found_after() < 4


async def test_one_that_comes_back_at_another_address_is_found_soon(world: World) -> None:
    world.names.address = HERE
    await world.serve(HERE)
    await world.found_after()
    world.names.address = ELSEWHERE
    await world.serve(ELSEWHERE)
    assert await world.found_after() < 4


async def test_one_that_left_without_a_word_is_found_at_its_new_address(world: World) -> None:
    await world.serve(ELSEWHERE)
    proxy = FaultProxy(f"{ELSEWHERE}:{world.port}")
    await proxy.start(world.port)
    try:
        world.names.address = HERE
        await world.found_after()
        await proxy.set(Fault.HALF_OPEN)
        world.names.address = ELSEWHERE
        assert await world.found_after() < 20  # fifteen of them until the connection is given up
    finally:
        await proxy.stop()
