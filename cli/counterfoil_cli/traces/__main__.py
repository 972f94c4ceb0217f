"""Composes the trace sink and serves until it is told to stop."""

import asyncio
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import uvicorn
import uvloop
from counterfoil_chassis import logs
from starlette.applications import Starlette
from starlette.routing import Route

from counterfoil_cli.traces.intake import Intake
from counterfoil_cli.traces.jaeger import JaegerApi, store_failed
from counterfoil_cli.traces.page import Pages
from counterfoil_cli.traces.receiver import MAX_REQUEST_BYTES, HttpReceiver, grpc_handler
from counterfoil_cli.traces.settings import TracesSettings
from counterfoil_cli.traces.store import SpanStore

DRAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Sink:
    """A running sink: where its doors are, as host:port, and how to end it."""

    pages: str
    otlp_http: str
    otlp_grpc: str
    stopping: asyncio.Event


def main() -> None:
    """Serve with the settings of the environment until SIGTERM or SIGINT."""
    logs.configure("traces")
    uvloop.run(_serve_until_told(TracesSettings()))


async def _serve_until_told(settings: TracesSettings) -> None:
    started = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(settings, started))
    await asyncio.wait({started, serving}, return_when=asyncio.FIRST_COMPLETED)
    if started.done():
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, started.result().stopping.set)
    await serving


async def serve(settings: TracesSettings, started: asyncio.Future[Sink]) -> None:
    """Serve until `stopping` of the sink, the result of `started`, is set; port 0 picks a free one."""
    store = SpanStore(settings.data_dir / "traces.db", max_spans=settings.max_spans, max_days=settings.max_days)
    intake = Intake(store)
    rpc = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_REQUEST_BYTES)])
    rpc.add_generic_rpc_handlers((grpc_handler(intake),))
    rpc_port = rpc.add_insecure_port(settings.grpc_listen)
    with _bound(settings.listen) as pages, _bound(settings.http_listen) as doors:
        web = _Server(uvicorn.Config(_app(store, intake), lifespan="off", log_config=None, access_log=False, ws="none"))
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(intake.run()), asyncio.create_task(web.serve(sockets=[pages, doors]))]
        await rpc.start()
        host = settings.grpc_listen.rpartition(":")[0]
        started.set_result(Sink(_name(pages), _name(doors), f"{host}:{rpc_port}", stopping))
        told = asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait({told, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        await rpc.stop(DRAIN_SECONDS)
        web.should_exit = True
        await tasks[1]
        tasks[0].cancel()
        told.cancel()
        for task in done - {told}:
            task.result()  # a part that ended by itself says why
    store.close()


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the sink stops its parts in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _app(store: SpanStore, intake: Intake) -> Starlette:
    receiver = HttpReceiver(intake)
    export = Route("/v1/traces", receiver.export, methods=["POST"])
    routes = [export, *JaegerApi(store).routes(), *Pages(store).routes()]
    return Starlette(routes=routes, exception_handlers={sqlite3.Error: store_failed})


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=256)


def _name(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()
