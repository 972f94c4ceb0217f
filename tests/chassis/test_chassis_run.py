"""`run` as a real process: exit codes, one-line failures, signals, migrations, tracing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.receipts_pb2_grpc import ReceiptProducerServiceStub
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import SystemClock
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tests.chassis.probe import bearer, principal_token, receipt_of
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}
    return {**kept, "COUNTERFOIL_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), **more}


async def start(data_dir: Path, **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chassis.probe_main",
        env=environment(data_dir, **more),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(*cases: tuple[list[str], dict[str, str]]) -> list[tuple[int, str]]:
    """Run `main()` to its end for each case of arguments and environment; return exit codes and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chassis.probe_cases",
        env=environment(Path("unused")),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        stdout, _ = await process.communicate(json.dumps(cases).encode())
    return [(code, stderr) for code, stderr in json.loads(stdout)]


@asynccontextmanager
async def serving(data_dir: Path, **more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    address = f"127.0.0.1:{free_port()}"
    process = await start(data_dir, COUNTERFOIL_PROBE_LISTEN=address, **more)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await HealthStub(channel).Check(HealthCheckRequest(), timeout=90, wait_for_ready=True)
        yield process, address
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_when_told_to_with_exit_code_0_and_json_logs(data_dir: Path, number: signal.Signals) -> None:
    async with serving(data_dir) as (process, address):
        process.send_signal(number)
        async with asyncio.timeout(60):
            _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    lines = [json.loads(line) for line in stderr.decode().splitlines()]
    assert [line["event"] for line in lines] == ["serving", "stopping"]
    assert lines[0]["address"] == address
    assert all({"time", "level", "service", "event", "logger"} <= line.keys() for line in lines)


async def test_what_keeps_it_from_serving_is_told_in_its_exit_code_and_one_line(data_dir: Path, package: str) -> None:
    newer, folder = data_dir / "newer.db", data_dir / "file" / "data"
    folder.parent.write_text("no folder")
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0099')")
        connection.commit()
    database = {"PROBE_PACKAGE": package, "PYTHONPATH": str(data_dir / "code")}
    key, trusted = "COUNTERFOIL_PROBE_PRIVATE_KEY_FILE", "COUNTERFOIL_TRUSTED_KEYS_DIR"
    keys = {key: str(data_dir / "keys" / "probe.pem"), trusted: str(data_dir / "keys" / "trusted")}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = f"127.0.0.1:{holder.getsockname()[1]}"
        expected: list[tuple[str, list[str], dict[str, str]]] = [
            ("cannot listen", [], {"COUNTERFOIL_PROBE_LISTEN": taken}),
            ("host:port", [], {"COUNTERFOIL_PROBE_LISTEN": "nonsense"}),
            ("no.pem", [], {key: str(data_dir / "no.pem")}),
            ("trusted keys", [], {trusted: str(data_dir / "no")}),
            ("COUNTERFOIL_TRACE_RATIO", [], {"COUNTERFOIL_TRACE_RATIO": "many"}),
            ("newer", [], {**database, "COUNTERFOIL_PROBE_DATABASE_URL": f"sqlite+aiosqlite:///{newer}"}),
            ("data folder", [], {**keys, "COUNTERFOIL_DATA_DIR": str(folder)}),
            ("migrate", ["serve", "please"], {}),
            ("--wait", ["migrate", "--wait=soon"], {}),
            ("no database", ["migrate"], {}),
            ("SQLite", ["migrate", "--wait"], database),
        ]
        places = {"COUNTERFOIL_DATA_DIR": str(data_dir)}
        found = await ended(*((arguments, places | variables) for _, arguments, variables in expected))
    for (code, stderr), (words, _, _) in zip(found, expected, strict=True):
        assert (code, len(stderr.splitlines())) == (2, 1), stderr
        assert words in stderr


async def test_failed_background_work_and_migrations_end_it_with_their_own_codes(data_dir: Path, package: str) -> None:
    places = {"COUNTERFOIL_DATA_DIR": str(data_dir)}
    database = {"PROBE_PACKAGE": package, "PYTHONPATH": str(data_dir / "code")}
    broken, migrated = await ended(([], {**places, "PROBE_BREAKS": "1"}), (["migrate"], places | database))
    assert broken[0] == 1
    failure = json.loads(broken[1].splitlines()[-1])
    assert failure["event"] == "background work failed"
    assert "the printer is on fire" in failure["error"]
    assert migrated == (0, "")
    with closing(sqlite3.connect(data_dir / "probe.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


async def test_spans_reach_the_collector_before_the_process_ends(data_dir: Path) -> None:
    names: list[str] = []

    class Collector(TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
            for resource in request.resource_spans:
                service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                names.extend(f"{service} {span.name}" for scope in resource.scope_spans for span in scope.spans)
            return ExportTraceServiceResponse()

    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with serving(data_dir, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}") as (process, address):
            async with connect(address) as channel:
                stub = ReceiptProducerServiceStub(channel)
                await stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir)))
            process.terminate()
            async with asyncio.timeout(60):
                await process.communicate()
    finally:
        await server.stop(None)
    assert names == ["probe /counterfoil.common.v1.ReceiptProducerService/GetReceipt"]


async def test_a_collector_that_is_not_there_costs_one_log_line_and_little_time(data_dir: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    clock = SystemClock()
    async with serving(data_dir, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as (process, address):
        async with connect(address) as channel:
            stub = ReceiptProducerServiceStub(channel)
            for _ in range(30):
                await stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir)))
        told = clock.now()
        process.terminate()
        async with asyncio.timeout(60):
            _, stderr = await process.communicate()
    assert process.returncode == 0
    assert (clock.now() - told).total_seconds() < 8
    events = [json.loads(line)["event"] for line in stderr.decode().splitlines()]
    assert events.count("traces are not delivered") <= 1
    assert set(events) <= {"serving", "stopping", "traces are not delivered"}
