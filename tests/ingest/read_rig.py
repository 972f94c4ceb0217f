"""The read side over a real log in a temporary folder: lake, imports, snapshots and queries, wired as in `__main__`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import zstandard
from counterfoil_chassis.clock import SystemClock, SystemIds
from counterfoil_chassis.database import Database
from counterfoil_ingest.append import Appender
from counterfoil_ingest.arrow import Chunk
from counterfoil_ingest.entities import Batch, Candidate, Quarantined
from counterfoil_ingest.erasing import Eraser
from counterfoil_ingest.holds import Holds
from counterfoil_ingest.import_jobs import Format, Import, State
from counterfoil_ingest.import_mappings import load_mappings
from counterfoil_ingest.imports import ImportWorker
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.lake_calls import InForce, LakeProcess, failure
from counterfoil_ingest.lake_places import FolderPlace, LakePlace
from counterfoil_ingest.lake_process import answer
from counterfoil_ingest.lake_writer import LakeWriter
from counterfoil_ingest.openlineage import LakeShape
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.registry import Column, ColumnType, Compiled, Contracts, validator_of
from counterfoil_ingest.snapshots import Snapshots
from counterfoil_ingest.sql.imports import SqlImportStore
from counterfoil_ingest.sql.log import SqlLog, found_at
from counterfoil_ingest.sql.quarantine import SqlQuarantine
from counterfoil_ingest.uploads import Spool

JSON_TYPES = {
    ColumnType.VARCHAR: {"type": "string"},
    ColumnType.BIGINT: {"type": "integer"},
    ColumnType.DOUBLE: {"type": "number"},
    ColumnType.BOOLEAN: {"type": "boolean"},
    ColumnType.DATE: {"type": "string", "format": "date"},
    ColumnType.TIMESTAMPTZ: {"type": "string"},
    ColumnType.JSON: {"type": ["object", "array"]},
}
SALES = {
    "sale_id": ColumnType.BIGINT,
    "shop": ColumnType.VARCHAR,
    "amount": ColumnType.DOUBLE,
    "paid": ColumnType.BOOLEAN,
    "day": ColumnType.DATE,
    "sold_at": ColumnType.TIMESTAMPTZ,
}


def contract(
    dataset: str,
    types: dict[str, ColumnType],
    *,
    workspace: str = "acme",
    version: str = "1.0.0",
    timezone: str = "America/New_York",
    required: Iterable[str] = (),
) -> Compiled:
    """Return a compiled contract whose columns are all optional but `required`."""
    schema = {
        "type": "object",
        "properties": {name: JSON_TYPES[kind] for name, kind in types.items()},
        "required": list(required),
    }
    text = orjson.dumps(schema)
    columns = tuple(
        Column(name, kind, name in set(required), timezone if kind is ColumnType.TIMESTAMPTZ else "", "")
        for name, kind in types.items()
    )
    digest = hashlib.sha256(text).hexdigest()
    return Compiled(workspace, dataset, f"{dataset}-contract", version, digest, validator_of(text), columns, text)


def record(dataset: str, record_id: str, value: dict[str, Any]) -> Candidate:
    """Return a candidate."""
    return Candidate(record_id, dataset, orjson.dumps(value), value)


def sale(number: int, **changes: Any) -> Candidate:
    """Return one sale; 50 cents each, one a minute from noon in New York."""
    value = {
        "sale_id": number,
        "shop": f"shop {number % 7}",
        "amount": 0.5,
        "paid": number % 2 == 0,
        "day": "2017-03-01",
        "sold_at": f"2017-03-01T12:{number % 60:02}:00",
    }
    return record("sales", f"s{number}", {name: v for name, v in (value | changes).items() if v is not None})


def arrow_of(chunks: Iterable[Chunk]) -> pa.Table:
    """Return chunks as one table, each read as a complete stream."""
    tables = [pa.ipc.open_stream(zstandard.decompress(chunk.data)).read_all() for chunk in chunks]
    assert [table.num_rows for table in tables] == [chunk.rows for chunk in chunks]
    return pa.concat_tables(tables)


class LakeThread:
    """Does what the lake's process does, in a thread: it needs no second to start, and tests can break what it does."""

    def __init__(self, place: LakePlace, log: SqlLog) -> None:
        self.writer = LakeWriter(place, log, epoch=log.epoch)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lake")

    async def call(self, request: Mapping[str, Any], in_force: InForce) -> tuple[dict[str, Any], bytes]:
        """Return the answer to a call, having told both as JSON does."""
        asked = orjson.loads(orjson.dumps(request))
        work = partial(answer, self.writer, asked, lambda question: {"columns": _told(in_force(question["in_force"]))})
        told, data = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        if "failed" in told:
            raise failure(told)
        return _told(told), data

    async def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _told(message: Any) -> Any:
    return orjson.loads(orjson.dumps(message))


@dataclass
class ReadSide:
    """Everything that reads."""

    folder: Path
    log: SqlLog
    appender: Appender
    contracts: Contracts
    calls: LakeThread | LakeProcess
    lake: Lake
    snapshots: Snapshots
    queries: Queries
    imports: SqlImportStore
    worker: ImportWorker
    spool: Spool
    ids: SystemIds
    quarantine: SqlQuarantine
    eraser: Eraser
    shapes: list[tuple[str, str, LakeShape]]
    """What the lake told of its datasets."""
    holds: Holds

    async def append(
        self, *candidates: Candidate, workspace: str = "acme", received_at: int = 1_700_000_000_000_000
    ) -> None:
        """Append records and wait until they are durable."""
        await self.appender.append(Batch(workspace, "api", received_at, "", candidates))

    async def flush(self, workspace: str = "acme") -> None:
        """Bring the lake to the head."""
        await self.lake.flush(workspace, self.log.head(workspace), within=20)

    async def flush_within(self, seconds: float) -> None:
        """Bring the lake to the head in so many seconds."""
        await self.lake.flush("acme", self.log.head("acme"), within=seconds)

    async def rows(self, dataset: str, columns: list[str], workspace: str = "acme") -> list[dict[str, Any]]:
        """Return a dataset's rows as the lake has them now."""
        snapshot = self.snapshots.at_head(workspace, dataset)
        reading = await self.snapshots.open(workspace, snapshot, columns=columns, within=20)
        rows: list[dict[str, Any]] = arrow_of(list(reading.chunks)).to_pylist()
        return rows

    async def upload(self, dataset: str, data: bytes, kind: Format, workspace: str = "acme", **changes: Any) -> str:
        """Keep a file as UploadImport does; return the import's id."""

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 1 << 20):
                yield data[start : start + (1 << 20)]

        import_id = self.ids.new()
        uploaded = await self.spool.receive(import_id, chunks())
        new = Import(workspace, import_id, dataset, kind, "file", uploaded.size, uploaded.sha256, "ada", "", 1)
        await self.imports.add(replace(new, **changes))
        self.worker.wake()
        return import_id

    async def ended(self, import_id: str, workspace: str = "acme") -> Import:
        """Return an import once it has ended."""
        async with asyncio.timeout(30):
            under_way = (State.PENDING, State.RUNNING, State.REVERTING)
            while (found := await self.imports.get(workspace, import_id)).state in under_way:
                await asyncio.sleep(0.02)
        return found

    async def import_file(self, dataset: str, data: bytes, kind: Format, **changes: Any) -> Import:
        """Import a file to its end."""
        return await self.ended(await self.upload(dataset, data, kind, **changes))

    async def kept(self, quarantine_id: str, workspace: str = "acme") -> Quarantined:
        """Return a quarantined record."""
        return await self.quarantine.get(workspace, quarantine_id)

    async def revert(self, import_id: str, workspace: str = "acme") -> Import:
        """Revert an import to the end."""

        async def tell(_connection: Any) -> None:
            """Nobody is told."""

        await self.imports.revert(workspace, import_id, reason="wrong", by="ada", at=2, tell=tell)
        self.worker.wake()
        return await self.ended(import_id, workspace)


@asynccontextmanager
async def read_side(
    rig: Any,
    *,
    commit_seconds: float = 60.0,
    commit_rows: int = 50_000,
    run: bool = True,
    place: LakePlace | None = None,
    apart: bool = False,
) -> AsyncIterator[ReadSide]:
    """Open the read side over an open log; with `run`, the lake and the imports work.

    The lake is written by a thread; `apart`, by the process that does so in an installation.
    """
    database = Database(rig.url, lease=rig.lease)
    folder = rig.folder / "lake"
    shapes: list[tuple[str, str, LakeShape]] = []

    async def tell(workspace: str, dataset: str, shape: LakeShape) -> None:
        shapes.append((workspace, dataset, shape))

    clock = SystemClock()
    place = place or FolderPlace(folder)
    calls: LakeThread | LakeProcess = LakeThread(place, rig.log)
    if apart:
        calls = LakeProcess(place.address, log=found_at(rig.url), epoch=rig.log.epoch)
    lake = Lake(
        place,
        rig.log,
        rig.contracts,
        calls,
        clock=clock,
        commit_seconds=commit_seconds,
        commit_rows=commit_rows,
        tell=tell,
    )
    snapshots = Snapshots(rig.log, lake, rig.contracts)
    queries = Queries(lake, snapshots=snapshots, contracts=rig.contracts, folder=folder, pseudonym_secret=b"secret")
    spool = Spool(rig.folder / "imports")
    imports = SqlImportStore(database)
    holds = Holds(clock, monotonic=time.monotonic)
    holds.known = True
    eraser = Eraser(rig.log, rig.appender, lake, SqlQuarantine(database), holds=holds)
    worker = ImportWorker(
        spool.folder,
        imports=imports,
        appender=rig.appender,
        eraser=eraser,
        contracts=rig.contracts,
        mappings=load_mappings(None),
        log=rig.log,
        lake=lake,
        clock=clock,
        ids=SystemIds(clock),
    )
    side = ReadSide(
        rig.folder,
        rig.log,
        rig.appender,
        rig.contracts,
        calls,
        lake,
        snapshots,
        queries,
        imports,
        worker,
        spool,
        SystemIds(clock),
        SqlQuarantine(database),
        eraser,
        shapes,
        holds,
    )
    tasks = [asyncio.create_task(work()) for work in ((lake.run, worker.run) if run else ())]
    try:
        yield side
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await queries.close()
        await calls.close()
        await database.close()
        failures = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
        assert failures == []
