"""Both doors, bound to their addresses: started together, drained together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import uvicorn
from counterfoil_chassis.call import MESSAGE_OPTIONS, connect
from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.health import HEALTH, LIVENESS, STARTUP
from counterfoil_chassis.serve import HealthServicer
from counterfoil_chassis.tracing import is_traced
from counterfoil_chassis.transport import Certificate, certificate_of
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from counterfoil_gateway.gateway import Gateway, Identity, compose
from counterfoil_gateway.readiness import Readiness
from counterfoil_gateway.serving import MODELS, SERVING
from counterfoil_gateway.settings import Settings

DRAIN_PAUSE = 0.3
"""Seconds between saying "not ready" and refusing, for balancers to notice."""
HEAD_SECONDS: Final = 20.0
"""How long a connection may take to send the head of a request."""
_RENEW_SECONDS = 60.0
_STREAMS = 256  # of one connection; its further calls wait at the caller's side
log = logging.getLogger(__name__)


@dataclass
class Serving:
    """A gateway that serves. Addresses are `host:port`."""

    rest: str
    grpc: str
    failed: asyncio.Future[None]
    """Raises what made it stop serving."""


@asynccontextmanager
async def serving(
    settings: Settings,
    identity: Identity,
    *,
    pause: float = 0.0,
    also: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
) -> AsyncIterator[Serving]:
    """Serve while the block runs; at its end say "not ready", wait `pause` seconds, finish what runs, stop.

    `also` is what runs beside, for the process's life. Raises StartError when an address is taken.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(settings.listen))
        tls, door = certificate_of(settings), _door_certificate(settings)
        at_once = settings.max_calls_per_dependency
        channels, untraced = {}, {}
        for name, target in settings.targets().items():
            to, certified = Dependency(name, at_once), MODELS if name == SERVING else name
            channels[name] = connect(target, to=to, tls=tls, certified=certified)
            untraced[name] = connect(target, to=to, traced=False, tls=tls, certified=certified)
        for channel in (*channels.values(), *untraced.values()):
            stack.push_async_callback(channel.close)
        gateway = compose(settings, channels, untraced, identity=identity)
        tasks = [asyncio.create_task(work()) for work in (*_work(gateway), *also)]
        for name, read in gateway.readiness.checks().items():
            stack.enter_context(HEALTH.checking(name, read, needed=True))
        for name, certificate in (("certificate", tls), ("door certificate", door)):
            if certificate is not None:
                check = certificate.check(identity.clock, channels=certificate is tls)
                stack.enter_context(HEALTH.checking(name, check))
        stack.push_async_callback(_end, tasks)
        health_of_door, grpc_address, stop_grpc = await _grpc_door(settings, gateway)
        stack.push_async_callback(stop_grpc, settings.drain_seconds)
        server = _Server(uvicorn.Config(gateway.app, **_uvicorn(settings)))
        http = asyncio.create_task(server.serve([listener]))
        tasks.append(asyncio.create_task(server.let_go()))
        stack.push_async_callback(_stop_doors, server, http, partial(stop_grpc, settings.drain_seconds))
        ready = asyncio.create_task(_announce(gateway.readiness, health_of_door))
        stack.push_async_callback(_end, [ready])
        stack.push_async_callback(_drain, gateway, health_of_door, pause)
        await server.accepting()
        await health_of_door.tell(STARTUP, serving=True)
        if door is not None:
            renewing = asyncio.create_task(_renew(door, server.config.ssl))
            stack.push_async_callback(_end, [renewing])
        host = settings.listen.rpartition(":")[0]
        yield Serving(f"{host}:{listener.getsockname()[1]}", grpc_address, _first_failure([http, ready, *tasks]))


def _uvicorn(settings: Settings) -> dict[str, Any]:
    return {
        "loop": "none",
        "http": "httptools",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": settings.trusted_proxies,
        "ssl_certfile": settings.door_cert_file,
        "ssl_keyfile": settings.door_key_file,
        "reset_contextvars": True,  # else a connection that a large body paused goes on within that request's span
        "timeout_graceful_shutdown": max(1, round(settings.drain_seconds)),
    }


def _door_certificate(settings: Settings) -> Certificate | None:
    if settings.door_cert_file is None or settings.door_key_file is None:
        return None
    return Certificate(settings.door_cert_file, settings.door_key_file)


async def _renew(certificate: Certificate, context: ssl.SSLContext | None) -> None:
    """Look every minute whether the REST door's certificate was changed; the gRPC door looks at each handshake."""
    while context is not None:
        await asyncio.sleep(_RENEW_SECONDS)
        certificate.load_into(context)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._accepting.set()

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._accepting = asyncio.Event()

    async def accepting(self) -> None:
        """Wait until requests are taken."""
        await self._accepting.wait()

    async def let_go(self) -> None:
        """Close for ever the connections that take longer than 20 seconds to send the head of a request.

        uvicorn itself bounds only those that send nothing after an answer; bodies are bounded once they have a place.
        """
        since: dict[tuple[Any, Any], float] = {}
        while True:
            await asyncio.sleep(HEAD_SECONDS / 4)
            now = time.monotonic()
            connections: set[Any] = set(self.server_state.connections)
            owing = [(each, each.cycle) for each in connections if _owes_a_head(each)]
            since = {each: since.get(each, now) for each in owing}
            for (connection, _), begun in since.items():
                if now - begun >= HEAD_SECONDS:
                    connection.transport.close()


def _owes_a_head(connection: Any) -> bool:
    """Tell whether a connection has sent no request yet, or has begun its next one and not said which."""
    cycle = connection.cycle
    return cycle is None or (cycle.response_complete and connection.timeout_keep_alive_task is None)


async def _grpc_door(
    settings: Settings, gateway: Gateway
) -> tuple[HealthServicer, str, Callable[[float], Awaitable[None]]]:
    tracing = aio_server_interceptor(filter_=is_traced)  # type: ignore[no-untyped-call]  # ships no types
    options = [*MESSAGE_OPTIONS, ("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", _STREAMS)]
    server = grpc.aio.server(interceptors=[tracing], options=options)
    door = HealthServicer()
    await door.tell(STARTUP, serving=False)
    await door.tell(LIVENESS, serving=True)
    await door.tell_readiness(serving=False)
    health_pb2_grpc.add_HealthServicer_to_server(door, server)
    server.add_generic_rpc_handlers((gateway.proxy,))
    if gateway.reflection is not None:
        add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # untyped
        add(gateway.reflection, server)
    with _listener(settings.grpc_listen) as probe:  # gRPC itself would print its own story about a taken port
        port = probe.getsockname()[1]
    host = settings.grpc_listen.rpartition(":")[0]
    try:
        if (certificate := _door_certificate(settings)) is None:
            bound = server.add_insecure_port(f"{host}:{port}")
        else:
            bound = server.add_secure_port(f"{host}:{port}", certificate.server_credentials())
    except RuntimeError as error:
        message = f"cannot listen on {settings.grpc_listen}: {error}"
        raise StartError(message) from None
    await server.start()
    return door, f"{host}:{bound}", server.stop


async def _announce(readiness: Readiness, door: HealthServicer) -> None:
    await readiness.follow()
    await door.tell_readiness(serving=True)
    log.info("ready")
    await asyncio.Event().wait()


def _work(gateway: Gateway) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    return [gateway.admission.watch, *(watcher.run for watcher in gateway.watchers.values())]


async def _drain(gateway: Gateway, door: HealthServicer, pause: float) -> None:
    gateway.readiness.drain()
    gateway.admission.draining = True
    await door.tell_readiness(serving=False)
    await asyncio.sleep(pause)
    gateway.following.end()


async def _stop_doors(
    server: uvicorn.Server, http: asyncio.Task[None], stop_grpc: Callable[[], Awaitable[None]]
) -> None:
    """Stop both at once: what runs at either has the same time, which the orchestrator allows but once."""
    server.should_exit = True
    await asyncio.gather(asyncio.wait([http]), stop_grpc())


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _first_failure(tasks: list[asyncio.Task[None]]) -> asyncio.Future[None]:
    async def wait() -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("a part of the gateway ended that never ends")

    return asyncio.ensure_future(wait())


@contextmanager
def _listener(listen: str) -> Iterator[socket.socket]:
    """Bind an address; raise StartError with what to do when it cannot be had."""
    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        message = f"the address {listen} is not host:port"
        raise StartError(message)
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET  # with its protocol named, asyncio too sends at once
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            message = f"cannot listen on {listen}: {reason}; stop what uses it or set another address"
            raise StartError(message) from None
        yield listener
