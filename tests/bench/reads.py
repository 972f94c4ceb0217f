"""The way of a read by id: a forecast of about four kilobytes, authentication, policy check and tracing on.

Counted are the gateway and the service that has it. Forecasts and receipts never change; a person does, whenever the
log says something new of it; schemas are read as the consumers of Kafka do, whose clients send the subject along.
"""

import contextlib
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
from counterfoil.models.v1 import forecasts_pb2
from google.protobuf.json_format import ParseDict

from tests.bench.load import Cell, Variant, require_wrk
from tests.bench.measuring import Options, Report, Row, Target, in_rounds
from tests.bench.variants import free_port, running
from tests.bench.world import Platform
from tests.system.installation import until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, sales_csv

CONNECTIONS = 64
HORIZONS = (20, 21, 22, 23, 24)
PERSONS = 50
SCHEMAS = 20


@dataclass(frozen=True)
class _Read:
    """Resources that are read by id, and the service that has them."""

    paths: list[str]
    service: str


def measure(options: Options) -> Report:
    """Make what is read, start every variant, load them in turn."""
    require_wrk()
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        ours = stack.enter_context(Platform.running(folder / "data"))
        forecasts = _forecasts(ours.tenant)
        reads = {
            "forecasts": _Read([f"/v1/forecasts/{one['forecast_id']}" for one in forecasts], "models"),
            "receipts": _Read([f"/v1/receipts/{one['receipt_id']}" for one in forecasts], "governance"),
            "persons": _Read([f"/v1/persons/{person_id}" for person_id in _persons(ours.tenant)], "graph"),
            "schemas": _Read(_schemas(ours.tenant), "contracts"),
        }
        for name, read in reads.items():
            (folder / name).write_text("\n".join(read.paths))
        gateway = ours.installation.child("gateway")
        everybody = ours.processes()

        def variant(name: str, service: str) -> Variant:
            processes = (gateway, ours.installation.child(service))
            key = {"X-Api-Key": ours.tenant.key}
            return Variant(ours.installation.url, "get", folder / name, CONNECTIONS, processes, key, everybody)

        variants = {name: variant(name, read.service) for name, read in reads.items()}
        size = len(ours.tenant.http.get(reads["forecasts"].paths[0]).content)
        variants |= _others(folder, stack, forecasts, ours.tenant.http)
        for one in variants.values():
            one.warm_up()
        rounds = in_rounds(
            {name: lambda one=one: one.measure(options.seconds) for name, one in variants.items()}, options
        )
    how = (
        f"wrk, {options.rounds} rounds of {options.seconds} s per variant over {CONNECTIONS} connections; "
        f"{len(HORIZONS)} forecasts of about {size:,} bytes of JSON and their receipts, {PERSONS} persons, "
        f"{SCHEMAS} schemas."
    )
    return Report("Reads by id", how, _rows(rounds))


def _others(
    folder: Path, stack: contextlib.ExitStack, forecasts: list[dict[str, Any]], http: httpx.Client
) -> dict[str, Variant]:
    """Start what the platform is compared with, over the same forecasts."""
    with contextlib.closing(sqlite3.connect(folder / "typed.db")) as database, database:
        database.execute("CREATE TABLE forecast (id TEXT PRIMARY KEY, body BLOB)")
        rows = [(one["forecast_id"], ParseDict(one, forecasts_pb2.Forecast()).SerializeToString()) for one in forecasts]
        database.executemany("INSERT INTO forecast VALUES (?, ?)", rows)
    path = f"/v1/forecasts/{forecasts[0]['forecast_id']}"
    (folder / "body").write_bytes(http.get(path).content)
    service_port, typed_port, sink_port = free_port(), free_port(), free_port()
    service = stack.enter_context(running("typed-service", service_port, str(folder / "typed.db")))
    typed = stack.enter_context(running("typed-gateway", typed_port, f"127.0.0.1:{service_port}"))
    sink = stack.enter_context(running("sink", sink_port, str(folder / "body")))
    found = orjson.loads(httpx.get(f"http://127.0.0.1:{typed_port}{path}", trust_env=False).content)
    if found["series"] != forecasts[0]["series"]:
        raise SystemExit("the variants do not answer the same")

    def variant(port: int, *processes: psutil.Process) -> Variant:
        return Variant(f"http://127.0.0.1:{port}", "get", folder / "forecasts", CONNECTIONS, processes, {})

    return {"typed": variant(typed_port, typed, service), "sink": variant(sink_port, sink)}


def _forecasts(tenant: Tenant) -> list[dict[str, Any]]:
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    if tenant.upload("sales", sales_csv(150), form="csv")["state"] != "SUCCEEDED":
        raise SystemExit("the sales were not imported")
    spec = {"forecast": {**SALES_MODEL["forecast"], "horizon_days": max(HORIZONS)}}
    ok(tenant.http.post("/v1/models", json={"model_id": "shops", **spec}))
    tenant.train("shops")
    asked = [{"model_id": "shops", "horizon_days": days} for days in HORIZONS]
    made = [ok(tenant.http.post("/v1/forecasts", json=each, headers={"Request-Timeout": "60"})) for each in asked]
    return [ok(tenant.http.get(f"/v1/forecasts/{one['forecast_id']}")) for one in made]


def _schemas(tenant: Tenant) -> list[str]:
    """Register schemas of some twenty fields; return the paths by which consumers read them."""
    fields = {f"field_{n}": {"type": "string", "maxLength": n + 1} for n in range(20)}
    paths = []
    for number in range(SCHEMAS):
        schema = {"title": f"Order {number}", "type": "object", "properties": fields, "additionalProperties": False}
        subject = f"orders-{number}-value"
        body = {"schemaType": "JSON", "schema": orjson.dumps(schema).decode()}
        made = ok(tenant.http.post(f"/schema-registry/subjects/{subject}/versions", json=body))
        paths.append(f"/schema-registry/schemas/ids/{made['id']}?subject={subject}")
    return paths


def _persons(tenant: Tenant) -> list[str]:
    """Send events of people who are known by two identifiers; return the persons they become."""
    events = [
        {"type": "track", "event": "Seen", "messageId": f"p{n}", "userId": f"user-{n}", "anonymousId": f"device-{n}"}
        for n in range(PERSONS)
    ]
    ok(tenant.send_events(tenant.source("People")[1], events))

    def known() -> list[str] | None:
        found = ok(tenant.http.get("/v1/persons", params={"page_size": PERSONS}))["persons"]
        return [person["person_id"] for person in found] if len(found) == PERSONS else None

    return until(known, seconds=60, what="the graph has not read the events")


def _rows(rounds: list[dict[str, Cell]]) -> list[Row]:
    def us(name: str) -> list[float]:
        return [found[name].us for found in rounds]

    def in_those_of(name: str, other: str) -> list[float]:
        return [found[name].us / found[other].us for found in rounds]

    faster = [found["forecasts"].per_second / found["typed"].per_second for found in rounds]
    route = "a FastAPI route that returns the bytes of one"
    return [
        Row(
            "requests/s, in those of FastAPI with a response model and a unary call",
            faster,
            "x",
            Target("T11", 4, at_least=True),
        ),
        Row(f"CPU, in that of {route}", in_those_of("forecasts", "sink"), "x", Target("T11", 0.7)),
        Row(f"a receipt: CPU, in that of {route} of a forecast", in_those_of("receipts", "sink"), "x"),
        Row(f"a person: CPU, in that of {route} of a forecast", in_those_of("persons", "sink"), "x"),
        Row(
            f"a schema: CPU, in that of {route} of a forecast", in_those_of("schemas", "sink"), "x", Target("T11", 0.7)
        ),
        Row(
            "schemas/s, in those of FastAPI with a response model and a unary call",
            [found["schemas"].per_second / found["typed"].per_second for found in rounds],
            "x",
            Target("T11", 4, at_least=True),
        ),
        Row("a schema, CPU", us("schemas"), " us"),
        Row("a forecast, CPU", us("forecasts"), " us"),
        Row("a receipt, CPU", us("receipts"), " us"),
        Row("a person, CPU", us("persons"), " us"),
        Row("FastAPI with a response model and a unary call, CPU", us("typed"), " us"),
        Row(f"{route}, CPU", us("sink"), " us"),
        Row("forecasts per second (wrk on the same machine)", [found["forecasts"].per_second for found in rounds]),
        Row("answer with a forecast, p50", [found["forecasts"].p50_ms for found in rounds], " ms"),
        Row("answer with a forecast, p99", [found["forecasts"].p99_ms for found in rounds], " ms"),
    ]
