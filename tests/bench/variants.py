"""What the platform is compared with, each a process of its own: `python -m tests.bench.variants <name> <arguments>`.

`sink`            a FastAPI application whose routes do nothing: they take a body, or return one that is there already
`naive-gateway`   FastAPI, pydantic and a protobuf Struct per event, one unary call per request
`naive-log`       what that calls: jsonschema-rs and a row per event in SQLite, durable before it answers
`unary-gateway`   our own gateway, every request in a call of its own
`typed-gateway`   FastAPI with a response model, one unary call per read
`typed-service`   what that calls: messages by id in SQLite, read in the loop
None of them signs anybody in, asks policies or writes traces, except the third.
"""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import jsonschema_rs
import orjson
import psutil
import uvicorn
import uvloop
from counterfoil.models.v1 import forecasts_pb2
from fastapi import FastAPI, Request, Response
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import ListValue
from pydantic import BaseModel

from tests.system.installation import until

APPEND = "/bench.NaiveLog/Append"
READ = "/bench.TypedService/GetForecast"
SYNCED = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")


def sink(port: str, content: str = "") -> None:
    """Serve the routes that do nothing."""
    body = Path(content).read_bytes() if content else b""
    app = _application()

    @app.post("/v1/track")
    async def track(request: Request) -> Response:
        await request.body()
        return Response(b'{"success":true}', media_type="application/json")

    @app.get("/v1/forecasts/{forecast_id}")
    async def get(forecast_id: str) -> Response:
        return Response(body, media_type="application/json")

    _serve(app, port)


class Event(BaseModel):
    """One event, as such models are written."""

    type: str
    event: str
    userId: str  # noqa: N815
    anonymousId: str  # noqa: N815
    messageId: str  # noqa: N815
    timestamp: str
    context: dict[str, Any]
    properties: dict[str, Any]


class Batch(BaseModel):
    """A batch of them."""

    batch: list[Event]


def naive_gateway(port: str, target: str) -> None:
    """Take batches apart into models, and send a Struct per event."""
    calls: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(target) as channel:
            calls["append"] = channel.unary_unary(APPEND, request_serializer=ListValue.SerializeToString)
            yield

    app = _application(lifespan=lifespan)

    @app.post("/v1/batch")
    async def batch(found: Batch) -> dict[str, bool]:
        request = ListValue()
        for event in found.batch:
            request.values.add().struct_value.update(event.model_dump())
        await calls["append"](request, timeout=10)
        return {"success": True}

    _serve(app, port)


def naive_log(port: str, file: str, schema: str) -> None:
    """Validate and keep every event."""
    is_valid = jsonschema_rs.validator_for(orjson.loads(Path(schema).read_bytes())).is_valid
    names = {"userId": "user_id", "anonymousId": "anonymous_id", "messageId": "message_id"}
    database = _database(file, "CREATE TABLE event (message_id TEXT PRIMARY KEY, body BLOB)")

    async def append(request: ListValue, _context: Any) -> bytes:
        rows = []
        for event in MessageToDict(request):
            record = {names.get(name, name): value for name, value in event.items()}
            if not is_valid(record):
                raise ValueError("an event breaks the contract")
            rows.append((record["message_id"], orjson.dumps(record)))
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT OR IGNORE INTO event VALUES (?, ?)", rows)
        database.execute("COMMIT")
        return b""

    _serve_rpc(port, APPEND, append, ListValue.FromString, bytes)


def unary_gateway() -> None:
    """Run our gateway with a shared call for every single item."""
    from counterfoil_chassis import coalesce
    from counterfoil_gateway import append
    from counterfoil_gateway.__main__ import main

    changed: tuple[tuple[Any, str, int], ...] = (
        (coalesce, "MAX_ITEMS", 1),
        (coalesce, "IN_FLIGHT", 100_000),
        (append, "MANY_ITEMS", 1),
    )
    for module, name, value in changed:
        assert hasattr(module, name)
        setattr(module, name, value)
    sys.argv = ["gateway"]
    main()


class PointModel(BaseModel):
    """One day."""

    day: str
    mean: float
    lower: float
    upper: float


class SeriesModel(BaseModel):
    """One series."""

    series: str
    method: str
    last_day: str
    points: list[PointModel]


class ForecastModel(BaseModel):
    """The forecast, as such models are written."""

    forecast_id: str
    model_id: str
    model_version: int
    receipt_id: str
    horizon_days: int
    coverage: float
    timezone: str
    series: list[SeriesModel]
    completeness: dict[str, Any]
    snapshots: list[dict[str, Any]]
    created_at: str


def typed_gateway(port: str, target: str) -> None:
    """Read by a unary call and answer by a response model."""
    calls: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(target) as channel:
            serialize = forecasts_pb2.GetForecastRequest.SerializeToString
            parse = forecasts_pb2.Forecast.FromString
            calls["read"] = channel.unary_unary(READ, request_serializer=serialize, response_deserializer=parse)
            yield

    app = _application(lifespan=lifespan)

    @app.get("/v1/forecasts/{forecast_id}", response_model=ForecastModel)
    async def get(forecast_id: str) -> ForecastModel:
        request = forecasts_pb2.GetForecastRequest(forecast_id=forecast_id)
        found: forecasts_pb2.Forecast = await calls["read"](request, timeout=10)
        return ForecastModel(
            forecast_id=found.forecast_id,
            model_id=found.model_id,
            model_version=found.model_version,
            receipt_id=found.receipt_id,
            horizon_days=found.horizon_days,
            coverage=found.coverage,
            timezone=found.timezone,
            series=[
                SeriesModel(
                    series=one.series,
                    method=one.method,
                    last_day=one.last_day,
                    points=[PointModel(day=p.day, mean=p.mean, lower=p.lower, upper=p.upper) for p in one.points],
                )
                for one in found.series
            ],
            completeness=MessageToDict(found.completeness, preserving_proto_field_name=True),
            snapshots=[MessageToDict(one, preserving_proto_field_name=True) for one in found.snapshots],
            created_at=found.created_at.ToJsonString(),
        )

    _serve(app, port)


def typed_service(port: str, file: str) -> None:
    """Answer messages by id."""
    database = sqlite3.connect(file)

    async def read(request: forecasts_pb2.GetForecastRequest, _context: Any) -> forecasts_pb2.Forecast:
        (body,) = database.execute("SELECT body FROM forecast WHERE id = ?", (request.forecast_id,)).fetchone()
        return forecasts_pb2.Forecast.FromString(body)

    parse, serialize = forecasts_pb2.GetForecastRequest.FromString, forecasts_pb2.Forecast.SerializeToString
    _serve_rpc(port, READ, read, parse, serialize)


def _application(**options: Any) -> FastAPI:
    telemetry = {"tracing": False, "metrics": False, "logs": False}
    return FastAPI(openapi_url=None, docs_url=None, redoc_url=None, telemetry=telemetry, **options)


def _serve(app: FastAPI, port: str) -> None:
    how = {"loop": "none", "http": "httptools", "ws": "none", "access_log": False, "log_level": "warning"}
    uvloop.run(uvicorn.Server(uvicorn.Config(app, port=int(port), **how)).serve())


def _serve_rpc(
    port: str,
    path: str,
    answer: Callable[[Any, Any], Awaitable[Any]],
    parse: Callable[[bytes], Any],
    serialize: Callable[[Any], bytes],
) -> None:
    async def serve() -> None:
        server = grpc.aio.server()
        service, _, method = path.removeprefix("/").rpartition("/")
        handler = grpc.unary_unary_rpc_method_handler(answer, parse, serialize)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    uvloop.run(serve())


def _database(file: str, table: str) -> sqlite3.Connection:
    database = sqlite3.connect(file, isolation_level=None)
    for statement in (*SYNCED, table):
        database.execute(statement)
    return database


@contextlib.contextmanager
def running(name: str, port: int, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Run one of them until the block ends; what is given is its process. It takes its port first, if it takes any."""
    given = [str(port), *arguments] if environment is None else []
    command = [sys.executable, "-m", "tests.bench.variants", name, *given]
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}) as process:
        try:
            until(lambda: _accepts(process, port), seconds=60, what=f"{name} does not listen on {port}")
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _accepts(process: "subprocess.Popen[bytes]", port: int) -> bool | None:
    if process.poll() is not None:
        raise SystemExit(f"{process.args} ended with {process.returncode}")
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return None


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


PROGRAMS: Mapping[str, Callable[..., None]] = {
    "sink": sink,
    "naive-gateway": naive_gateway,
    "naive-log": naive_log,
    "unary-gateway": unary_gateway,
    "typed-gateway": typed_gateway,
    "typed-service": typed_service,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
