"""The way of an event: from the gateway's door until it is durable in the log, authentication and tracing on.

Counted are the gateway and ingest, which the naive ones consist of, too; the lake, the graph and the trace sink follow
in processes of their own. What all costs once the lake has caught up is a row of its own.
"""

import base64
import contextlib
import sqlite3
import tempfile
from pathlib import Path

import orjson

from tests.bench.bodies import batch_template, event_template
from tests.bench.load import Cell, Variant, require_wrk
from tests.bench.measuring import Options, Report, Row, Target, in_rounds
from tests.bench.variants import free_port, running
from tests.bench.world import Platform, RawLoop
from tests.system.tenant import Tenant

BATCH, LARGE_BATCH = 100, 500
BATCH_CONNECTIONS = 16
EVENT_CONNECTIONS = 64


def measure(options: Options) -> Report:
    """Start every variant, load them in turn, and check that what was answered is in the log."""
    require_wrk()
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch, contextlib.ExitStack() as stack:
        bench = _Bench(Path(scratch), stack)
        cells = {
            name: lambda variant=variant: variant.measure(options.seconds) for name, variant in bench.variants.items()
        }
        for variant in bench.variants.values():
            variant.warm_up()
        rounds = in_rounds({**cells, "raw": lambda: bench.raw.events(BATCH)}, options)
        bench.check()
    return Report("Events", _how(options), _rows(rounds))


class _Bench:
    """Every variant, up at once."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        ours = stack.enter_context(Platform.running(folder / "data"))
        untraced = stack.enter_context(Platform.running(folder / "untraced", traces=False))
        schema = ours.schema_of("events")
        self.raw = RawLoop(schema)
        (folder / "schema.json").write_bytes(orjson.dumps(schema))
        templates = {"one": event_template(), "batch": batch_template(BATCH), "large": batch_template(LARGE_BATCH)}
        for name, template in templates.items():
            (folder / name).write_bytes(template)
        ports = [free_port() for _ in range(3)]
        self._naive = folder / "naive.db"
        log = stack.enter_context(running("naive-log", ports[0], str(self._naive), str(folder / "schema.json")))
        naive = stack.enter_context(running("naive-gateway", ports[1], f"127.0.0.1:{ports[0]}"))
        sink = stack.enter_context(running("sink", ports[2]))
        port, environment = ours.beside()
        unary = stack.enter_context(running("unary-gateway", port, environment=environment))
        self._tenants = {"ours": ours.tenant, "untraced": untraced.tenant}
        key = key_of(ours.tenant)
        gateway, ingest = (ours.installation.child(name) for name in ("gateway", "ingest"))
        everybody = ours.processes()

        def traced(path: str, template: str, connections: int) -> Variant:
            url = ours.installation.url + path
            return Variant(url, "post", folder / template, connections, (gateway, ingest), key, everybody)

        other = untraced.installation
        off = (other.child("gateway"), other.child("ingest"))
        batch_url, one_url = f"http://127.0.0.1:{ports[1]}/v1/batch", f"http://127.0.0.1:{ports[2]}/v1/track"
        json = {"Content-Type": "application/json"}
        self.variants = {
            "batch": traced("/v1/batch", "batch", BATCH_CONNECTIONS),
            "untraced": Variant(
                f"{other.url}/v1/batch",
                "post",
                folder / "batch",
                BATCH_CONNECTIONS,
                off,
                key_of(untraced.tenant),
                untraced.processes(),
            ),
            "large": traced("/v1/batch", "large", BATCH_CONNECTIONS),
            "naive": Variant(batch_url, "post", folder / "batch", BATCH_CONNECTIONS, (naive, log), json),
            "one": traced("/v1/track", "one", EVENT_CONNECTIONS),
            "unary": Variant(
                f"http://127.0.0.1:{port}/v1/track",
                "post",
                folder / "one",
                EVENT_CONNECTIONS,
                (unary, ingest),
                key,
                everybody,
            ),
            "sink": Variant(one_url, "post", folder / "one", EVENT_CONNECTIONS, (sink,), json),
        }

    def check(self) -> None:
        """End everything unless all that was answered with success is in the log, and nothing twice."""
        sizes = {"batch": BATCH, "large": LARGE_BATCH, "one": 1, "unary": 1}
        for name, tenant in self._tenants.items():
            loads = sizes if name == "ours" else {"untraced": BATCH}
            counted, distinct = tenant.sql("SELECT count(*), count(DISTINCT message_id) FROM events")[0]
            self._compare(name, loads, counted=counted, distinct=distinct)
        with contextlib.closing(sqlite3.connect(self._naive)) as database:
            (counted,) = database.execute("SELECT count(*) FROM event").fetchone()
        self._compare("naive", {"naive": BATCH}, counted=counted, distinct=counted)

    def _compare(self, name: str, loads: dict[str, int], *, counted: int, distinct: int) -> None:
        answered = sum(self.variants[each].completed * size for each, size in loads.items())
        perhaps = sum(self.variants[each].unanswered * size for each, size in loads.items())
        if not answered <= counted <= answered + perhaps or counted != distinct:
            text = f"{answered:,} events were answered with success (and {perhaps:,} may be there unanswered)"
            raise SystemExit(f"{name}: {text}, the log has {counted:,} of which {distinct:,} differ")


def _rows(rounds: list[dict[str, Cell]]) -> list[Row]:
    def per_event(name: str, size: int) -> list[float]:
        return [found[name].us / size for found in rounds]

    def ratio(above: list[float], below: list[float]) -> list[float]:
        return [a / b for a, b in zip(above, below, strict=True)]

    batch, large, naive = per_event("batch", BATCH), per_event("large", LARGE_BATCH), per_event("naive", BATCH)
    one, unary, sink = per_event("one", 1), per_event("unary", 1), per_event("sink", 1)
    raw = [found["raw"] for found in rounds]
    settled = [found["batch"].settled / found["batch"].requests / BATCH * 1e6 for found in rounds]
    return [
        Row("CPU per event in batches of 500, of the raw loop", ratio(large, raw), "x", Target("T1", 2.0)),
        Row("CPU per event in batches of 100, of the raw loop", ratio(batch, raw), "x", Target("T2", 2.2)),
        Row("the same with the lake caught up", ratio(settled, raw), "x"),
        Row(
            "FastAPI + pydantic + a Struct per event, CPU in ours, batches of 100",
            ratio(naive, batch),
            "x",
            Target("T3", 10, at_least=True),
        ),
        Row(
            "one event, 64 connections: CPU in that of a FastAPI route that does nothing",
            ratio(one, sink),
            "x",
            Target("T4", 1.0),
        ),
        Row(
            "one event, 64 connections: CPU without coalescing, in ours",
            ratio(unary, one),
            "x",
            Target("T5", 5, at_least=True),
        ),
        Row(
            "CPU with traces, in that without, batches of 100",
            ratio(batch, per_event("untraced", BATCH)),
            "x",
            Target("T13", 1.10),
        ),
        Row("raw loop, batches of 100", raw, " us/event"),
        Row("ours, batches of 100", batch, " us/event"),
        Row("ours, batches of 500", large, " us/event"),
        Row("ours, one event", one, " us"),
        Row("without coalescing, one event", unary, " us"),
        Row("FastAPI route that does nothing", sink, " us"),
        Row(
            "events per second, batches of 100 (wrk on the same machine)",
            [found["batch"].per_second * BATCH for found in rounds],
        ),
        Row("requests per second of one event", [found["one"].per_second for found in rounds]),
        Row("answer to a batch of 100, p50", [found["batch"].p50_ms for found in rounds], " ms"),
        Row("answer to a batch of 100, p99", [found["batch"].p99_ms for found in rounds], " ms"),
    ]


def _how(options: Options) -> str:
    return (
        f"wrk, {options.rounds} rounds of {options.seconds} s per variant, all variants up at once, their order "
        f"rotated; batches over {BATCH_CONNECTIONS} connections, single events over {EVENT_CONNECTIONS}."
    )


def key_of(tenant: Tenant) -> dict[str, str]:
    """Return the headers of a sender with a write key of its own."""
    credentials = base64.b64encode(f"{tenant.source('Bench')[1]}:".encode()).decode()
    return {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
