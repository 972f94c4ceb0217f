"""The door for whoever watches a process: metrics, health and probes, on an address of its own that is never public.

A web framework would cost each process some megabytes for a few GETs; this answers them, refuses the rest, and is
bounded in connections, bytes and time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib import metadata
from typing import TypeAlias

import orjson
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from counterfoil_chassis import health
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import StartError

MOST_CONNECTIONS = 16
_HEAD_BYTES = 8 * 1024
_SECONDS = 5.0
Answer: TypeAlias = tuple[int, str, bytes]
"""Status, media type, body."""
_logger = logging.getLogger(__name__)


@asynccontextmanager
async def serving(
    service: str, listen: str, clock: Clock, *, checks: health.Health = health.HEALTH
) -> AsyncIterator[str]:
    """Answer while the block runs; yield the address, "" when there is none to listen on. Raise StartError."""
    if not listen:
        yield ""
        return
    host, _, port = listen.rpartition(":")
    door = _Door(service, clock, checks)
    try:
        server = await asyncio.start_server(door.serve, host.strip("[]"), int(port), limit=_HEAD_BYTES)
    except (OSError, OverflowError, ValueError) as error:
        raise StartError(
            f"cannot listen on {listen} for metrics: {error}; stop what uses it, set another address, or none"
        ) from None
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await door.end()


class _Door:
    """A few paths, GET and HEAD only, one answer per connection."""

    def __init__(self, service: str, clock: Clock, checks: health.Health) -> None:
        self._service = service
        self._clock = clock
        self._checks = checks
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._paths: Mapping[str, Callable[[str], Awaitable[Answer]]] = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            # As the gRPC health service answers by these names, for probes that show no certificate.
            "/startupz": partial(self._probe, health.STARTUP),
            "/readyz": partial(self._probe, health.READINESS),
            "/livez": partial(self._probe, health.LIVENESS),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close; whoever is slow, silent or one too many is cut off."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server made it
        one_too_many = len(self._serving) >= MOST_CONNECTIONS
        self._serving[task] = writer
        try:
            async with asyncio.timeout(_SECONDS):
                if not one_too_many:
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(head.decode("latin-1")))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            _logger.debug("a connection for metrics was cut off")
        finally:
            del self._serving[task]
            writer.transport.abort()

    async def end(self) -> None:
        """End what is being answered."""
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*self._serving)

    async def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        verb, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if path not in self._paths:
            status, kind, body = 404, "text/plain", f"there are {', '.join(self._paths)}\n".encode()
        elif verb not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", b"GET it\n"
        else:
            status, kind, body = await self._paths[path](fields.get("accept", ""))
        return (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n"
            f"{'allow: GET, HEAD' + chr(13) + chr(10) if status == 405 else ''}\r\n"
        ).encode() + (b"" if verb == "HEAD" else body)

    async def _metrics(self, accept: str) -> Answer:
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(REGISTRY)

    async def _health(self, _accept: str) -> Answer:
        checks = await self._checks.report(self._clock.now())
        ready = self._checks.ready
        found = health.document(self._service, metadata.version("counterfoil-chassis"), checks, ready=ready)
        return 200 if ready else 503, "application/json", orjson.dumps(found)

    async def _probe(self, name: str, _accept: str) -> Answer:
        if self._checks.told.get(name, False):
            return 200, "text/plain", f"{name}: yes\n".encode()
        failing = "; ".join(f"{check.name}: {check.detail}" for check in self._checks.checks if not check.ok)
        return 503, "text/plain", f"{name}: no; {failing or 'it is starting or stopping'}\n".encode()
