"""A DNS server that the tests hold in their hands."""

from __future__ import annotations

import asyncio
import socket
import struct

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


class Names(asyncio.DatagramProtocol):
    """A DNS server that has every name at one address, or knows none."""

    def __init__(self) -> None:
        self.address: str | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        kind = struct.unpack("!H", data[end - 4 : end - 2])[0]
        found = self.address is not None and kind == 1
        answer = b""
        if found:
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(self.address)
        flags = 0x8180 if self.address is not None else 0x8183  # no such domain
        self._transport.sendto(data[:2] + struct.pack("!5H", flags, 1, found, 0, 0) + data[12:end] + answer, peer)
