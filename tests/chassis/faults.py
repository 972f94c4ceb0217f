"""A TCP proxy between a caller and a service that does to their connection what networks and sick processes do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc

from tests.ports import free_port

_RESETS = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Fault(Enum):
    """What the proxy does from now on, to connections that are open and to new ones."""

    NONE = "pass"
    REFUSE = "refuse"
    """Nobody listens."""
    UNAVAILABLE = "unavailable"
    """A gRPC server answers every call with UNAVAILABLE, and no word of its own."""
    HANG = "hang"
    """Connections are accepted, and nothing is read or answered."""
    SLOW = "slow"
    """Every piece is late."""
    RESET = "reset"
    """The request arrives; instead of the answer comes an RST."""
    HALF_OPEN = "half-open"
    """What is sent is swallowed, by connections that lost something for ever."""


class FaultProxy:
    """Listens at one address for all its life; `set` changes what becomes of the bytes."""

    def __init__(self, target: str, *, late: float = 0.05) -> None:
        self.address = ""
        self.connections = 0
        self.refused_calls = 0
        """Calls that the UNAVAILABLE server answered."""
        self._target = target
        self._late = late
        self._fault = Fault.NONE
        self._changed = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._unwell = grpc.aio.server()
        self._unwell_target = ""

    async def start(self, port: int = 0) -> None:
        """Listen; by default at a port that nobody else gets while `REFUSE` leaves it."""
        self._unwell.add_generic_rpc_handlers((_Unwell(self._count),))
        self._unwell_target = f"127.0.0.1:{self._unwell.add_insecure_port('127.0.0.1:0')}"
        await self._unwell.start()
        await self._listen(port or free_port())

    async def stop(self) -> None:
        """Close everything."""
        await self._close_listener()
        await self._drop()
        await self._unwell.stop(None)

    async def set(self, fault: Fault) -> None:
        """Do this from now on."""
        was, self._fault = self._fault, fault
        self._changed.set()
        self._changed = asyncio.Event()
        if fault is Fault.REFUSE:
            await self._close_listener()
        if fault in (Fault.REFUSE, Fault.UNAVAILABLE) or was is Fault.UNAVAILABLE:
            await self._drop()
        if was is Fault.REFUSE and fault is not Fault.REFUSE:
            await self._listen(int(self.address.rpartition(":")[2]))

    def _count(self) -> None:
        self.refused_calls += 1

    async def _listen(self, port: int) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _drop(self) -> None:
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection; one that is cancelled before its first step is closed, too."""
        self.connections += 1
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):  # either side left, or the fault that begins ends what was open
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._fault is Fault.HANG:
            await self._changed.wait()
        target = self._unwell_target if self._fault is Fault.UNAVAILABLE else self._target
        host, _, port = target.rpartition(":")
        behind, before = await asyncio.open_connection(host, int(port))
        way = _Way()
        tasks = [
            asyncio.ensure_future(self._forward(reader, before, way)),
            asyncio.ensure_future(self._back(behind, writer, way)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            before.transport.abort()  # first: who is cancelled once more while it ends would leave it open
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        while data := await reader.read(65536):
            await self._delay()
            if self._swallows(way):
                continue
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        while data := await reader.read(65536):
            await self._delay()
            if self._swallows(way):
                continue
            if self._fault is Fault.RESET and _holds_an_answer(data):
                with suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
                return
            writer.write(data)
            await writer.drain()

    def _swallows(self, way: _Way) -> bool:
        way.is_lost = way.is_lost or self._fault is Fault.HALF_OPEN
        return way.is_lost

    async def _delay(self) -> None:
        while self._fault is Fault.HANG:
            await self._changed.wait()
        if self._fault is Fault.SLOW:
            await asyncio.sleep(self._late)


@dataclass
class _Way:
    """One connection through the proxy."""

    is_lost: bool = False


def _holds_an_answer(data: bytes) -> bool:
    """Say whether the bytes hold an HTTP/2 frame of type HEADERS (1) or DATA (0), rather than settings or pings."""
    place = 0
    while place + 9 <= len(data):
        if data[place + 3] in (0, 1):
            return True
        place += 9 + int.from_bytes(data[place : place + 3])
    return False


class _Unwell(grpc.GenericRpcHandler):
    def __init__(self, count: Callable[[], None]) -> None:
        self._counted = count

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Refuse whatever it is."""
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    async def _refuse(self, _request: bytes, context: Any) -> bytes:
        self._counted()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return b""


@asynccontextmanager
async def fault_proxy(target: str, *, late: float = 0.05) -> AsyncIterator[FaultProxy]:
    """Run a proxy to a target while the block runs."""
    proxy = FaultProxy(target, late=late)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
