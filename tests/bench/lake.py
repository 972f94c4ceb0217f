"""The lake's way out and in: a snapshot as Arrow against the log's JSON, and a commit of Delta against a Parquet file.

Both ways out are read from a real ingest by gRPC, as models and the graph read them, until three columns of every event
are lists of Python. What is written is the lake's own table of events, with the same compression on both sides.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from counterfoil.common.v1.snapshot_pb2 import Snapshot
from counterfoil.ingest.v1 import records_pb2
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceStub
from counterfoil_chassis.call import connect, outgoing
from counterfoil_ingest.arrow import EXTRA, RECORD_ID, schema_of
from counterfoil_ingest.delta import WorkspaceTables
from counterfoil_ingest.lake import lake_columns
from counterfoil_ingest.lake_places import FolderPlace
from counterfoil_ingest.registry import ColumnType
from google.protobuf.json_format import ParseDict

from tests.bench.bodies import ID, NOW, batch_template
from tests.bench.measuring import Options, Report, Row, Target, in_rounds
from tests.bench.world import Platform
from tests.chassis.probe import signer
from tests.ingest.ingest_records import compiled
from tests.system.tenant import Tenant, ok

BATCH, COMMIT_ROWS, COMMITS = 500, 10_000, 5
TOUCHED = ("event", "user_id", "timestamp")
TIMEOUT = 120.0


def measure(options: Options) -> Report:
    """Send events, then read all of them both ways in turn, and write tables both ways in turn."""
    events = 20_000 if options.quick else 200_000
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        folder = Path(scratch)
        with Platform.running(folder / "data") as ours:
            snapshot = _send(ours.tenant, events)
            reader = _Reader(ours, snapshot, events)
            reads = in_rounds({"arrow": reader.arrow, "json": reader.json}, options)
            rows = reader.rows(COMMIT_ROWS)
        writer = _Writer(folder, rows)
        writer.delta()
        writes = in_rounds({"delta": writer.delta, "parquet": writer.parquet}, options)
    how = (
        f"{options.rounds} rounds; {events:,} events by a snapshot and by the log's blocks, {len(TOUCHED)} fields of "
        f"each touched; {COMMITS} commits of {COMMIT_ROWS:,} events, the median of a round."
    )
    return Report("Lake", how, _rows(reads, writes, events))


def _rows(reads: list[dict[str, float]], writes: list[dict[str, float]], events: int) -> list[Row]:
    faster = [found["json"] / found["arrow"] for found in reads]
    slower = [found["delta"] / found["parquet"] for found in writes]
    return [
        Row("events/s as Arrow, in those of JSON lines read by orjson", faster, "x", Target("T9", 4, at_least=True)),
        Row("a commit of Delta, in a Parquet file that is synced", slower, "x", Target("T10", 1.25)),
        Row("events per second as Arrow", [events / found["arrow"] for found in reads]),
        Row("events per second as JSON lines", [events / found["json"] for found in reads]),
        Row("a commit of Delta, p50", [found["delta"] * 1e3 for found in writes], " ms"),
        Row("a Parquet file that is synced, p50", [found["parquet"] * 1e3 for found in writes], " ms"),
    ]


def _send(tenant: Tenant, events: int) -> Snapshot:
    """Send events and return a snapshot that holds them all."""
    key = tenant.source("Bench")[1]
    template = batch_template(BATCH).replace(NOW.encode(), b"2026-03-01T12:35:00Z").split(ID.encode())
    for first in range(0, events, BATCH):
        ids = [b"%d" % number for number in range(first, first + BATCH)]
        body = b"".join(part + name for part, name in zip(template, [*ids, b""], strict=True))
        ok(tenant.http.post("/v1/batch", content=body, headers={"X-Write-Key": key, "X-Api-Key": ""}))
    return ParseDict(ok(tenant.http.post("/v1/snapshots", json={"dataset": "events"})), Snapshot())


class _Reader:
    """Reads what one workspace has, as a service does."""

    def __init__(self, ours: Platform, snapshot: Snapshot, events: int) -> None:
        self._signer = signer(ours.installation.data, "models")
        self._target = f"127.0.0.1:{7101 + ours.installation.offset}"
        self._snapshot = snapshot
        self._workspace = ours.tenant.workspace
        self._events = events

    def arrow(self) -> float:
        """Return the seconds that a snapshot takes."""
        return self._time(self._arrow)

    def json(self) -> float:
        """Return the seconds that the log's blocks take."""
        return self._time(self._json)

    def rows(self, count: int) -> pa.Table:
        """Return so many rows of the lake with all their columns."""

        async def read() -> pa.Table:
            found = [table async for table in self._tables([])]
            return pa.concat_tables(found).slice(0, count)

        return asyncio.run(read())

    def _time(self, read: Callable[[], Any]) -> float:
        began = time.perf_counter()
        if asyncio.run(read()) != self._events:
            raise SystemExit("what was read is not what was sent")
        return time.perf_counter() - began

    async def _arrow(self) -> int:
        rows = 0
        async for table in self._tables(list(TOUCHED)):
            columns = [table[name].to_pylist() for name in TOUCHED[:2]] + [
                table[TOUCHED[2]].cast(pa.int64()).to_pylist()
            ]
            rows += len(columns[0])
        return rows

    async def _tables(self, columns: list[str]) -> AsyncIterator[pa.Table]:
        request = records_pb2.ReadSnapshotRequest(snapshot=self._snapshot, columns=columns, workspace=self._workspace)
        async with connect(self._target) as channel:
            stub: Any = RecordServiceStub(channel)
            async for each in stub.ReadSnapshot(request, **outgoing(default=TIMEOUT, signer=self._signer)):
                yield pa.ipc.open_stream(zstandard.decompress(each.arrow_ipc_zstd)).read_all()

    async def _json(self) -> int:
        rows, inflate = 0, zstandard.ZstdDecompressor()
        request = records_pb2.ReadRecordsRequest(workspace=self._workspace)
        async with connect(self._target) as channel:
            stub: Any = RecordServiceStub(channel)
            async for each in stub.ReadRecords(request, **outgoing(default=TIMEOUT, signer=self._signer)):
                if each.HasField("block"):
                    records = [orjson.loads(line)["r"] for line in inflate.decompress(each.block.payload).splitlines()]
                    columns = [[record[name] for record in records] for name in TOUCHED]
                    rows += len(columns[0])
        return rows


class _Writer:
    """Writes the same rows again and again."""

    def __init__(self, folder: Path, rows: pa.Table) -> None:
        self._folder = folder
        self._columns = [c for c in lake_columns(compiled("bench")) if c.name in rows.column_names]
        self._unlike = {RECORD_ID, EXTRA, *(c.name for c in self._columns if c.type is ColumnType.JSON)}
        self._tables = WorkspaceTables(FolderPlace(folder / "lake"), life="bench/0")
        self._rows = _as_lake(rows, schema_of(self._columns))
        self._written = 0

    def delta(self) -> float:
        """Return the seconds of a commit."""
        return self._median(self._commit)

    def parquet(self) -> float:
        """Return the seconds of a file."""
        return self._median(self._file)

    def _median(self, write: Callable[[], None]) -> float:
        seconds = []
        for _ in range(COMMITS):
            self._written += self._rows.num_rows
            began = time.perf_counter()
            write()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    def _commit(self) -> None:
        self._tables.append("events", self._rows, self._columns, until=self._written)

    def _file(self) -> None:
        path = self._folder / f"{self._written}.parquet"
        alike = [name for name in self._rows.column_names if name not in self._unlike]
        pq.write_table(
            self._rows, path, compression="zstd", compression_level=1, use_dictionary=alike, write_statistics=alike
        )
        for place in (path, self._folder):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _as_lake(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with every column that a table of the lake has, null where a snapshot does not tell."""
    return pa.table(
        [
            rows[field.name].combine_chunks().cast(field.type)
            if field.name in rows.column_names
            else pa.repeat(pa.scalar(_OF_ALL.get(field.name), field.type), rows.num_rows)
            for field in schema
        ],
        schema=schema,
    )


_OF_ALL = {"_received_day": 20_000, "_partition": 0}
