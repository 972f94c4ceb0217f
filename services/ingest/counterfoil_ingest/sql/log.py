"""The log in SQLite: one row per block, one writing connection, durable at commit (WAL, synchronous=FULL)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

import orjson
import zstandard
from counterfoil_chassis.errors import StartError

from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Block, DatasetCounts, Finding, Quarantined
from counterfoil_ingest.errors import BlockUnreadableError, LogUnavailableError
from counterfoil_ingest.lineage import Predecessor, from_text

_READ = (
    "SELECT workspace, partition, first_offset, count, layout, payload, headers FROM log_block"
    " WHERE workspace = ?1 AND partition = ?2 AND first_offset >= coalesce("
    "(SELECT max(first_offset) FROM log_block WHERE workspace = ?1 AND partition = ?2 AND first_offset <= ?3), 0)"
    " ORDER BY first_offset"
)
_AFTER = (
    "SELECT workspace, partition, first_offset, count, layout, payload, headers, sequence FROM log_block"
    " WHERE sequence > ? ORDER BY sequence"
)
_ADD = (
    "INSERT INTO log_block (workspace, partition, first_offset, count, layout, payload, headers, sequence, datasets)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COUNT = (
    "INSERT INTO dataset_count (workspace, dataset, records, quarantined, last_received_at, next_offset)"
    " VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (workspace, dataset) DO UPDATE SET records = records + excluded.records,"
    " quarantined = quarantined + excluded.quarantined,"
    " last_received_at = max(last_received_at, excluded.last_received_at),"
    " next_offset = max(next_offset, excluded.next_offset)"
)
_NEXT_OFFSET = "SELECT next_offset FROM dataset_count WHERE workspace = ? AND dataset = ?"
_QUARANTINE = (
    "INSERT INTO quarantine (workspace, quarantine_id, dataset, source_id, record_id, raw_sha256, findings, reasons,"
    " contract_id, contract_version, received_at, traceparent, raw_zstd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (workspace, source_id, dataset, record_id, raw_sha256) DO UPDATE SET findings = excluded.findings,"
    " reasons = excluded.reasons, contract_id = excluded.contract_id, contract_version = excluded.contract_version"
    " RETURNING quarantine_id"
)
_NAMED_BLOCKS = 32  # blocks whose record ids are kept at hand: duplicates come in the order they were first sent


class SqliteLog:
    """The log of one service; `close` it. Reading is safe from any thread, writing from one."""

    def __init__(self, path: Path, *, new_epoch: Callable[[], str]) -> None:
        """Open the log in a migrated database; raise StartError when another process writes it."""
        self._path = path
        self._lock = _locked(path)
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._writer = self._connect()
        self._named: OrderedDict[tuple[str, int, int], list[tuple[str, str, str]]] = OrderedDict()
        self._waiting: dict[tuple[str, int], set[asyncio.Future[None]]] = {}
        self.predecessors: Mapping[str, Predecessor]
        self.epoch, self.erasure_revision, self.predecessors = self._life(new_epoch)
        rows = self._writer.execute(
            "SELECT workspace, partition, max(first_offset + count) FROM log_block GROUP BY workspace, partition"
        )
        self._heads: dict[tuple[str, int], int] = {(workspace, partition): head for workspace, partition, head in rows}
        self._sequence: int = self._writer.execute("SELECT coalesce(max(sequence), 0) FROM log_block").fetchone()[0]

    def close(self) -> None:
        """Close every connection; nobody may use the log any more."""
        for connection in (self._writer, *self._readers):
            connection.close()
        self._lock.close()

    # Reading

    def head(self, workspace: str, partition: int = 0) -> int:
        """Return the offset that the next record gets."""
        return self._heads.get((workspace, partition), 0)

    def workspaces(self) -> list[str]:
        """Return the workspaces that have records."""
        return sorted({workspace for workspace, _ in self._heads})

    def read(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int = 4 << 20) -> list[Block]:
        """Return the next blocks from the one that holds `from_offset` on."""
        if from_offset >= self.head(workspace, partition):
            return []
        found: list[Block] = []
        room = max_bytes
        with closing(self._reader().execute(_READ, (workspace, partition, from_offset))) as rows:
            for row in rows:
                block = _block(row)
                room -= len(block.payload)
                if found and room < 0:
                    break
                found.append(block)
        return found

    def next_offset(self, workspace: str, dataset: str) -> int:
        """Return the offset after a dataset's last record, 0 when it has none."""
        found = self._reader().execute(_NEXT_OFFSET, (workspace, dataset)).fetchone()
        return found[0] if found else 0

    def counts(self, workspace: str) -> list[DatasetCounts]:
        """Return how much there is of each dataset, by name."""
        rows = self._reader().execute(
            "SELECT dataset, records, quarantined, last_received_at, next_offset FROM dataset_count"
            " WHERE workspace = ? ORDER BY dataset",
            (workspace,),
        )
        return [DatasetCounts(*row) for row in rows.fetchall()]

    async def wait(self, workspace: str, partition: int, after_offset: int, *, timeout: float) -> int:  # noqa: ASYNC109  (running out of time is an answer here)
        """Return the head as soon as it is past `after_offset`, or after `timeout` seconds as it then is."""
        key = (workspace, partition)
        if self.head(*key) <= after_offset:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(key, set())
            waiting.add(woken)
            try:
                await asyncio.wait_for(woken, timeout)
            except TimeoutError:
                pass
            finally:
                waiting.discard(woken)
        return self.head(*key)

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[SqliteLogTransaction]:
        """Begin a transaction that is durable when it ends without an exception."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        changes = SqliteLogTransaction(self._writer, self._sequence)
        try:
            yield changes
            changes.write_counts()
            self._writer.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors, e.g. a full disk
                self._writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _unavailable(error) from error
            raise
        self._sequence = changes.sequence

    def announce(self, heads: Mapping[tuple[str, int], int]) -> None:
        """Make committed heads known and wake who waits for them."""
        self._heads.update(heads)
        for key in heads:
            for woken in self._waiting.pop(key, ()):
                if not woken.done():
                    woken.set_result(None)

    def identify(self, workspace: str, partition: int, offset: int) -> tuple[str, str, str]:
        """Return (source id, dataset, record id) of the record at an offset."""
        for (of_workspace, of_partition, first), found in reversed(self._named.items()):
            if of_workspace == workspace and of_partition == partition and first <= offset < first + len(found):
                return found[offset - first]
        row = self._writer.execute(_READ, (workspace, partition, offset)).fetchone()
        if row is None:
            raise BlockUnreadableError(
                "The dedup table names a record that the log does not hold. Stop ingest, delete dedup.table, start it.",
                metadata={"offset": str(offset)},
            )
        block = _block(row)
        names = blocks.names(block)
        self._named[(workspace, partition, block.first_offset)] = names
        if len(self._named) > _NAMED_BLOCKS:
            self._named.popitem(last=False)
        return names[offset - block.first_offset]

    def blocks_after(self, sequence: int) -> Iterator[tuple[int, Block]]:
        """Yield (sequence, block) of every block after a sequence, in the order of their commits."""
        for row in self._writer.execute(_AFTER, (sequence,)):
            yield row[7], _block(row[:7])

    def records(self) -> int:
        """Return how many records the log holds in all."""
        return sum(self._heads.values())

    def last_sequence(self) -> int:
        """Return the sequence of the newest block."""
        return self._sequence

    def _life(self, new_epoch: Callable[[], str]) -> tuple[str, int, dict[str, Predecessor]]:
        self._writer.execute("INSERT OR IGNORE INTO log_state VALUES ('epoch', ?)", (new_epoch(),))
        self._writer.execute("INSERT OR IGNORE INTO log_state VALUES ('erasure_revision', '0')")
        state = dict(self._writer.execute("SELECT name, value FROM log_state").fetchall())
        predecessors = from_text(state.get("predecessors", "[]"))
        return state["epoch"], int(state["erasure_revision"]), {life.epoch: life for life in predecessors}

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            connection.execute("PRAGMA query_only=ON")
            self._readers.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: transactions are begun by hand. All are closed by the thread that closes the log: no thread check.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection


class SqliteLogTransaction:
    """What is written in one transaction of the log's connection."""

    def __init__(self, connection: sqlite3.Connection, sequence: int) -> None:
        self.connection = connection
        self.sequence = sequence
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._compressor = zstandard.ZstdCompressor(level=1)

    def add_block(self, block: Block, *, datasets: Mapping[str, int], last_offsets: Mapping[str, int]) -> int:
        """Append a block that begins at its partition's head; return its sequence."""
        self.sequence += 1
        headers = block.headers
        self.connection.execute(
            _ADD,
            (
                block.workspace,
                block.partition,
                block.first_offset,
                block.count,
                block.layout,
                block.payload,
                blocks.encode_headers(headers),
                self.sequence,
                orjson.dumps(datasets).decode(),
            ),
        )
        received_at = max(header.received_at for header in headers)
        for dataset, count in datasets.items():
            counts = self._counts.setdefault((block.workspace, dataset), [0, 0, 0, 0])
            counts[0] += count
            counts[2] = max(counts[2], received_at)
            counts[3] = last_offsets[dataset] + 1
        return self.sequence

    def add_quarantined(self, record: Quarantined) -> str:
        """Keep a record in quarantine; return its id, the older one when the same bytes are there already."""
        row = (
            record.workspace,
            record.quarantine_id,
            record.dataset,
            record.source_id,
            record.record_id,
            hashlib.sha256(record.raw).digest(),
            findings_json(record.findings),
            "".join(f" {reason} " for reason in sorted({each.reason for each in record.findings})),
            record.contract_id,
            record.contract_version,
            record.received_at,
            record.traceparent,
            self._compressor.compress(record.raw),
        )
        kept: str = self.connection.execute(_QUARANTINE, row).fetchone()[0]
        if kept == record.quarantine_id:
            self._counts.setdefault((record.workspace, record.dataset), [0, 0, 0, 0])[1] += 1
        return kept

    def write_counts(self) -> None:
        """Add what this transaction brought to the datasets' counters."""
        rows = [(*key, *counts) for key, counts in self._counts.items()]
        self.connection.executemany(_COUNT, rows)


def findings_json(findings: tuple[Finding, ...]) -> str:
    """Return findings as they are stored."""
    return orjson.dumps([[each.reason, each.path, each.detail] for each in findings]).decode()


def _block(row: tuple[str, int, int, int, int, bytes, bytes]) -> Block:
    workspace, partition, first_offset, count, layout, payload, headers = row
    return Block(workspace, partition, first_offset, count, layout, payload, blocks.decode_headers(headers))


def _unavailable(error: sqlite3.Error) -> LogUnavailableError:
    return LogUnavailableError(
        f"The log could not be written ({error}); nothing was kept. Send it again, and look at the disk of ingest.",
        retry_after=timedelta(seconds=1),
    )


def _locked(path: Path) -> IO[bytes]:
    file = path.with_suffix(".lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StartError(
            f"another process writes the log at {path}: stop it, or give this one its own COUNTERFOIL_DATA_DIR"
        ) from error
    return file
