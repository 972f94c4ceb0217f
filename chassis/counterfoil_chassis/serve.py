"""Run a service: one gRPC server with health, readiness, background work, signals and a graceful end."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import uvloop
from counterfoil.common.v1.calls_pb2_grpc import add_CallServiceServicer_to_server
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from counterfoil_chassis import logs, telemetry, vitals
from counterfoil_chassis.call import MESSAGE_OPTIONS, connect
from counterfoil_chassis.calls import Answers, CallServicer
from counterfoil_chassis.clock import Clock, Ids, SystemClock, SystemIds
from counterfoil_chassis.database import lasting
from counterfoil_chassis.dependency import CALLS, Dependency
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.fields import warm
from counterfoil_chassis.guarded import GuardedChannel
from counterfoil_chassis.health import FAILING_KEY, HEALTH, LIVENESS, READINESS, STARTUP, disk_space
from counterfoil_chassis.identity import (
    TokenSigner,
    TokenVerifier,
    derive_secret,
    load_private_key,
    load_trusted_keys,
)
from counterfoil_chassis.interceptor import Interceptor
from counterfoil_chassis.lease import Lease, SharedLease, lease_of, wait_for
from counterfoil_chassis.metrics import measure_loop_lag
from counterfoil_chassis.postgresql import is_postgresql
from counterfoil_chassis.revisions import prepare
from counterfoil_chassis.settings import ServiceSettings
from counterfoil_chassis.shedding import Load
from counterfoil_chassis.startup import make_data_dir, read_settings, require_free
from counterfoil_chassis.tracing import is_traced
from counterfoil_chassis.transport import Certificate, certificate_of

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

_DRAIN_PAUSE_SECONDS = 0.3
_CLEAN_UP_SECONDS = 5.0
_WAIT_SECONDS = 300
_SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *MESSAGE_OPTIONS,
    ("grpc.so_reuseport", 0),  # else a second process shares the port unnoticed
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
# Callers of one of several processes look for others, newly started ones too, when a connection ends.
_ONE_OF_SEVERAL: Sequence[tuple[str, Any]] = (
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 900_000),  # longer than any call
)
_logger = logging.getLogger(__name__)


@dataclass
class Host:
    """What the process gives to the service it hosts; `secret` is 32 bytes derived from the private key.

    `lease` is held while a service with a database is built and serves.
    """

    name: str
    clock: Clock
    ids: Ids
    signer: TokenSigner
    verifier: TokenVerifier
    secret: bytes
    load: Load
    lease: Lease | None = None
    tls: Certificate | None = None
    calls_per_dependency: int = CALLS

    def connect(self, name: str, target: str) -> GuardedChannel:
        """Open a channel to a service by its name and address; the caller closes it."""
        return connect(target, to=Dependency(name, self.calls_per_dependency), tls=self.tls)


@dataclass(frozen=True)
class Service:
    """What a service hosts: servicers with their `add_XServicer_to_server`, work for the process's life, readiness.

    `ready` is awaited, with the background work running, before readiness says SERVING. A background task that raises
    ends the process with exit code 1; one that returns has done its work. `unchanging` are the paths of reads by id
    whose answer stays the same for good, so that it may be kept; a service that does change one clears `kept` then.
    """

    servicers: Sequence[tuple[Callable[..., None], object]]
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    ready: Callable[[], Coroutine[Any, Any, None]] | None = None
    unchanging: Sequence[str] = ()
    kept: Answers | None = None


@dataclass
class Running:
    """A service that serves: its address `host:port` and its host."""

    address: str
    host: Host


Build = Callable[[SettingsT, Host, AsyncExitStack], Awaitable[Service]]


def make_host(name: str, settings: ServiceSettings, *, clock: Clock | None = None, ids: Ids | None = None) -> Host:
    """Read the keys the settings name and return the host; raise StartError when one is missing or unreadable."""
    if settings.private_key_file is None or settings.trusted_keys_dir is None:
        raise StartError("the settings name no private key or no folder of trusted keys")
    clock = clock or SystemClock()
    key = load_private_key(settings.private_key_file)
    return Host(
        name=name,
        clock=clock,
        ids=ids or SystemIds(clock),
        signer=TokenSigner(name, key, clock),
        verifier=TokenVerifier(load_trusted_keys(settings.trusted_keys_dir), clock),
        secret=derive_secret(key),
        load=Load(most=settings.max_running, delay=settings.max_delay_seconds),
        tls=certificate_of(settings),
        calls_per_dependency=settings.max_calls_per_dependency,
    )


def run(name: str, settings_type: type[SettingsT], build: Build[SettingsT], *, migrations: str | None = None) -> None:
    """Be a service's `main()`: serve until SIGTERM or SIGINT, or with the argument `migrate` upgrade the database.

    With `migrate --wait` it waits until another process has done so. Exits 0 when told to stop, 1 when background work
    failed, 2 with one line on stderr when it cannot start. `migrations` is the package that holds the folder
    `migrations`.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which the first process of a container would ignore
    try:
        sys.exit(_main(name, settings_type, build, migrations))
    except StartError as error:
        sys.stderr.write(f"counterfoil {name}: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(0)  # told to stop before there was anything to drain


def _main(name: str, settings_type: type[SettingsT], build: Build[SettingsT], migrations: str | None) -> int:
    arguments = sys.argv[1:]
    migrating = re.fullmatch(r"migrate( --wait(=(?P<seconds>[0-9]{1,6}))?)?", " ".join(arguments))
    if arguments and not migrating:
        raise StartError("the only arguments there are: migrate [--wait[=SECONDS]]")
    settings = read_settings(settings_type)
    logs.configure(name, level=settings.log_level)
    if migrating:
        if migrations is None:
            raise StartError("this service has no database to migrate")
        from counterfoil_chassis import migrate  # noqa: PLC0415 - Alembic, which a start does without

        if "--wait" in migrating[0]:
            seconds = int(migrating["seconds"] or _WAIT_SECONDS)
            migrate.wait_until_newest(settings.database_url, migrations, seconds=seconds)
        else:
            migrate.make(settings.database_url, migrations)
        return 0
    host = make_host(name, settings)
    require_free(settings.listen)
    make_data_dir(settings)
    telemetry.configure(name, settings.otlp_endpoint, ratio=settings.trace_ratio)
    try:
        return uvloop.run(_serve(settings, host, build, migrations))
    finally:
        telemetry.flush()


async def _serve(settings: SettingsT, host: Host, build: Build[SettingsT], migrations: str | None) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(vitals.serving(host.name, settings.metrics_listen, host.clock))
        stack.enter_context(HEALTH.checking("disk", disk_space(settings.data_dir)))
        if host.tls is not None:
            stack.enter_context(HEALTH.checking("certificate", host.tls.check(host.clock, channels=True)))
        meanwhile = await stack.enter_async_context(AsyncExitStack())
        if migrations and not await _may_write(settings, host, migrations, stack, meanwhile, stopping=stopping):
            return 0
        if host.lease is not None and not settings.shares_database:  # who loses it ends
            stack.enter_context(HEALTH.checking("lease", lambda: "", needed=True))
        server = _Server(await build(settings, host, stack), host)
        await meanwhile.aclose()  # its port is the service's now
        await server.start(settings.listen, also=[*_lease_work(host), measure_loop_lag, server.follow_health])
        stack.push_async_callback(server.stop, settings.drain_seconds, pause=_DRAIN_PAUSE_SECONDS)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        gc.set_threshold(20_000, 25, 25)
        _logger.info("serving", extra={"address": server.address})
        failure = await server.watch(stopping)
        if failure is None:
            _logger.info("stopping")
            return 0
        _logger.critical("background work failed", exc_info=failure)
    return 1


@asynccontextmanager
async def started(
    name: str,
    settings: SettingsT,
    build: Build[SettingsT],
    *,
    clock: Clock | None = None,
    ids: Ids | None = None,
    migrations: str | None = None,
) -> AsyncIterator[Running]:
    """Serve in the running loop while the block runs, ready from its first line; for tests.

    The settings name the data folder; its keys must exist (`write_key_pair`). Background work that failed raises at
    the block's end.
    """
    host = make_host(name, settings, clock=clock, ids=ids)
    require_free(settings.listen)
    make_data_dir(settings)
    telemetry.configure(name, settings.otlp_endpoint, ratio=settings.trace_ratio)
    async with AsyncExitStack() as stack:
        if migrations:
            stopping = asyncio.Event()
            stopping.set()
            if not await _may_write(settings, host, migrations, stack, stack, stopping=stopping):
                raise StartError("another process writes the database; it has to end first")
        server = _Server(await build(settings, host, stack), host)
        await server.start(settings.listen, also=_lease_work(host))
        stack.push_async_callback(server.stop, settings.drain_seconds)
        await server.ready()
        yield Running(address=server.address, host=host)
        server.check()


def _lease_work(host: Host) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    return [] if host.lease is None else [host.lease.keep]


async def _never() -> None:
    await asyncio.Event().wait()


async def _may_write(
    settings: ServiceSettings,
    host: Host,
    migrations: str,
    stack: AsyncExitStack,
    meanwhile: AsyncExitStack,
    *,
    stopping: asyncio.Event,
) -> bool:
    """Return True once this process holds its database's lease and the database is fit; False when told to stop.

    Until then it is a standby, which answers health alone: it lives, and is not ready. A process that shares the
    database with the holder waits for nobody; raise StartError where that cannot be.
    """
    if settings.shares_database:
        if not is_postgresql(settings.database_url):
            raise StartError(
                f"several processes of {host.name} share a database on PostgreSQL alone: set COUNTERFOIL_DATABASE_URL, "
                "or have one process do all"
            )
        host.lease = SharedLease(host.name, seconds=settings.lease_seconds)
        await asyncio.to_thread(prepare, settings.database_url, migrations)
        return True
    lease = host.lease = lease_of(host.name, settings.database_url, seconds=settings.lease_seconds)
    stack.push_async_callback(lease.give_back)
    if not await lease.taken():
        if stopping.is_set():
            return False
        _logger.warning("standing by", extra={"lease": host.name, "detail": lease.problem})
        standby = _Server(Service(servicers=(), ready=_never), host)
        await standby.start(settings.listen, also=[standby.follow_health])
        meanwhile.push_async_callback(standby.stop, 0)  # it answers health until the service itself can
        waiting, told = asyncio.create_task(wait_for(lease)), asyncio.create_task(stopping.wait())
        try:
            with HEALTH.checking("lease", lambda: lease.problem, needed=True):
                await asyncio.wait([waiting, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            waiting.cancel()
        if not waiting.done() or waiting.cancelled():
            return False
        waiting.result()
    await asyncio.to_thread(prepare, settings.database_url, migrations)
    return True


class _Server:
    """One gRPC server with its health and background tasks."""

    def __init__(self, service: Service, host: Host) -> None:
        self.address = ""
        self._service = service
        self._load = host.load
        self._interceptor = Interceptor(host.verifier, host.load, mutual=host.tls is not None)
        self._clock = host.clock
        self._tls = host.tls
        self._verifier = host.verifier
        self._health = HealthServicer()
        self._began = False
        self._requests: list[type[Message]] = []
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._readying: asyncio.Task[None] | None = None
        tracing = aio_server_interceptor(filter_=is_traced)  # type: ignore[no-untyped-call]  # ships no types
        several = _ONE_OF_SEVERAL if isinstance(host.lease, SharedLease) else ()
        options = [*_SERVER_OPTIONS, *several]
        self._server = grpc.aio.server(interceptors=[tracing, self._interceptor], options=options)

    async def start(self, listen: str, *, also: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()) -> None:
        """Bind, serve, and start the background work and what else runs; readiness follows by itself."""
        for name, value in ((STARTUP, True), (LIVENESS, True), (READINESS, False), ("", False)):
            await self._health.tell(name, serving=value)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        registrar = _Registrar(self._server)
        shared = CallServicer(self._verifier, unchanging=self._service.unchanging, kept=self._service.kept)
        shared_too: tuple[Callable[..., None], object] = (add_CallServiceServicer_to_server, shared)
        for add, servicer in (*self._service.servicers, shared_too):
            add(servicer, registrar)
        for service, handlers in registrar.services.items():
            for method in self._interceptor.serve(service):
                self._requests.append(method.request)
                shared.carry(method, handlers[method.path.rpartition("/")[2]])
        reflection.enable_server_reflection([*registrar.services, health.SERVICE_NAME], self._server)
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, self._tls.server_credentials())
        except RuntimeError as error:
            raise StartError(f"cannot listen on {listen}: {error}") from None
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        await self._server.start()
        background = (self._load.watch, *self._service.background, *also)
        self._tasks = [asyncio.create_task(lasting(work)) for work in background]
        self._readying = asyncio.create_task(self._become_ready())

    async def ready(self) -> None:
        """Wait until readiness says SERVING; raise what failed instead."""
        pending = set(self._all_tasks())
        while self._readying in pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            self.check()
        self.check()

    def _all_tasks(self) -> list[asyncio.Task[None]]:
        return [*self._tasks, *([self._readying] if self._readying else [])]

    def check(self) -> None:
        """Raise what failed in the background, if anything did."""
        for task in self._all_tasks():
            if task.done() and not task.cancelled() and (failure := task.exception()):
                raise failure

    async def watch(self, stopping: asyncio.Event) -> BaseException | None:
        """Wait for the order to stop (None) or for background work to fail (its failure)."""
        told = asyncio.create_task(stopping.wait())
        pending: set[asyncio.Task[Any]] = {told, *self._all_tasks()}
        try:
            while told in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled() and (failure := task.exception()):
                        return failure
            return None
        finally:
            told.cancel()

    async def stop(self, grace: float, *, pause: float = 0.0) -> None:
        """Say NOT_SERVING, let balancers notice, let running calls finish within the grace, end the background work."""
        self._stopping = True
        await self._tell_readiness()
        if self._readying is not None:
            self._readying.cancel()
        await asyncio.sleep(pause)
        stop = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(0)  # first refuse new calls, then end the streams that would never end
        self._interceptor.end_followers()
        await stop
        await self._interceptor.ended(_CLEAN_UP_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _become_ready(self) -> None:
        with HEALTH.checking("start", lambda: "it is still starting", needed=True):
            if self._service.ready is not None:
                await self._service.ready()
        self._began = True
        await self._tell_readiness()
        for request in self._requests:  # not before: together they take as long as a service's whole start may
            warm(request)
            await asyncio.sleep(0)

    async def follow_health(self) -> None:
        """Look at the checks for ever, so that readiness says what they say."""
        await HEALTH.follow(self._clock, self._tell_readiness)

    async def _tell_readiness(self) -> None:
        serving = self._began and not self._stopping and HEALTH.ready
        await self._health.tell_readiness(serving=serving)


class HealthServicer(health.aio.HealthServicer):
    """Says with its answer which checks fail, so that whoever asks can name what is missing."""

    async def tell(self, name: str, *, serving: bool) -> None:
        """Say from now on whether the process is well by this name; the door for metrics says the same."""
        HEALTH.told[name] = serving
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self.set(name, status)

    async def tell_readiness(self, *, serving: bool) -> None:
        """Say whether it takes calls, also to whoever asks for no name."""
        for name in ("", READINESS):
            await self.tell(name, serving=serving)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """Answer, with the failing checks as trailing metadata."""
        if failing := HEALTH.failing():
            context.set_trailing_metadata(((FAILING_KEY, failing),))
        answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return answer


class _Registrar:
    """Stands between generated `add_XServicer_to_server` functions and the server, and notes what they add."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.services: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Pass handlers on."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Pass handlers on and note them."""
        self.services[service] = handlers
        self._server.add_registered_method_handlers(service, handlers)
