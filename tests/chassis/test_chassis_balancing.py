"""Calls go round the addresses of a name: those that join are found as connections end, those that leave are left."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from counterfoil_chassis import serve
from counterfoil_chassis.call import connect

METHOD = "/counterfoil.governance.v1.KeyService/GetKey"
NAME = "serving.example"
AGE = "grpc.max_connection_age_ms"
_A, _IN = 1, 1


class Names(asyncio.DatagramProtocol):
    """A name server (RFC 1035) that knows IPv4 addresses of one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        end = data.index(b"\0", 12) + 5  # of the question
        [kind] = struct.unpack_from("!H", data, end - 4)
        found = self.addresses if kind == _A else []
        self.asked += kind == _A
        header = data[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
        answers = [
            struct.pack("!HHHIH", 0xC00C, _A, _IN, 1, 4) + bytes(int(part) for part in address.split("."))
            for address in found
        ]
        self._transport.sendto(header + data[12:end] + b"".join(answers), addr)


@dataclass
class Fleet:
    """Servers at addresses of their own and one port, behind one name."""

    names: Names
    call: Callable[[], Awaitable[str]]
    start: Callable[[str], Awaitable[grpc.aio.Server]]
    answered: Counter[str] = field(default_factory=Counter)

    async def until_answered_by(self, *addresses: str) -> None:
        """Call until the last calls were answered by these alone, each of them; no call may fail."""
        async with asyncio.timeout(60):
            while {await self.call() for _ in range(4 * len(addresses))} != set(addresses):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def named(*addresses: str, age_ms: int) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        names = Names(*addresses)
        endpoint = await asyncio.get_running_loop().create_datagram_endpoint(lambda: names, local_addr=("127.0.0.1", 0))
        stack.callback(endpoint[0].close)
        name_port = endpoint[0].get_extra_info("sockname")[1]
        port = 0

        async def start(address: str) -> grpc.aio.Server:
            nonlocal port
            options = [*dict(serve._ONE_OF_SEVERAL, **{AGE: age_ms}).items()]
            server = grpc.aio.server(options=options)

            async def answer(_request: bytes, _context: Any) -> bytes:
                return address.encode()

            service, _, method = METHOD.removeprefix("/").rpartition("/")
            handler = grpc.method_handlers_generic_handler(
                service, {method: grpc.unary_unary_rpc_method_handler(answer)}
            )
            server.add_generic_rpc_handlers((handler,))
            port = server.add_insecure_port(f"{address}:{port}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            return server

        for address in addresses:
            await start(address)
        channel = await stack.enter_async_context(connect(f"dns://127.0.0.1:{name_port}/{NAME}:{port}"))
        method = channel.unary_unary(METHOD)

        async def call() -> str:
            answer: bytes = await method(b"", timeout=10)
            return answer.decode()

        yield Fleet(names, call, start)


@pytest.fixture(autouse=True)
def plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine is for nobody here."""
    monkeypatch.setenv("no_grpc_proxy", "*")


async def test_one_that_joins_is_found_as_connections_grow_old_and_one_that_leaves_is_left_without_a_failed_call() -> (
    None
):
    async with named("127.0.0.2", age_ms=500) as fleet:
        await fleet.until_answered_by("127.0.0.2")
        leaving = await fleet.start("127.0.0.3")
        fleet.names.addresses.append("127.0.0.3")
        await fleet.until_answered_by("127.0.0.2", "127.0.0.3")
        fleet.names.addresses.remove("127.0.0.3")
        await leaving.stop(0)
        await fleet.until_answered_by("127.0.0.2")
        await fleet.start("127.0.0.3")
        fleet.names.addresses.append("127.0.0.3")
        await fleet.until_answered_by("127.0.0.2", "127.0.0.3")


async def test_all_of_them_may_be_replaced_by_others() -> None:
    async with named("127.0.0.2", age_ms=500) as fleet:
        await fleet.until_answered_by("127.0.0.2")
        await fleet.start("127.0.0.4")
        fleet.names.addresses[:] = ["127.0.0.4"]
        await fleet.until_answered_by("127.0.0.4")
