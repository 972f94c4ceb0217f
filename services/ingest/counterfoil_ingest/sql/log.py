"""The log in SQL: one row per block, one writer, durable at commit; `Connections` is what engines do differently."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import orjson
import zstandard
from counterfoil_chassis.lease import Lease
from counterfoil_chassis.postgresql import is_postgresql
from sqlalchemy.engine import make_url

from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Block, DatasetCounts, Erasure, Finding, Header, Quarantined, RecordName
from counterfoil_ingest.errors import BlockUnreadableError
from counterfoil_ingest.lineage import Predecessor, from_text
from counterfoil_ingest.reused_ids import fingerprint
from counterfoil_ingest.sql import erasing
from counterfoil_ingest.sql.log_postgresql import PostgresqlConnections
from counterfoil_ingest.sql.log_reading import Readers, block_of
from counterfoil_ingest.sql.log_sqlite import SqliteConnections
from counterfoil_ingest.store import Statements

# Statements that both engines understand; their places are numbered.
_AFTER = (
    "SELECT workspace, partition, first_offset, count, layout, payload, headers, sequence FROM log_block"
    " WHERE sequence > ?1 ORDER BY sequence LIMIT 64"
)
_ADD = (
    "INSERT INTO log_block (workspace, partition, first_offset, count, layout, payload, headers, sequence, datasets)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
)
_COUNT = (
    "INSERT INTO dataset_count AS held (workspace, dataset, records, quarantined, last_received_at, next_offset)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (workspace, dataset) DO UPDATE SET"
    " records = held.records + excluded.records, quarantined = held.quarantined + excluded.quarantined,"
    " last_received_at = CASE WHEN held.last_received_at > excluded.last_received_at"
    " THEN held.last_received_at ELSE excluded.last_received_at END,"
    " next_offset = CASE WHEN held.next_offset > excluded.next_offset"
    " THEN held.next_offset ELSE excluded.next_offset END"
)
_ARRIVED = (
    "INSERT INTO source_count AS held (workspace, source_id, events, first_received_at, last_received_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (workspace, source_id) DO UPDATE SET"
    " events = held.events + excluded.events,"
    " first_received_at = CASE WHEN held.first_received_at < excluded.first_received_at"
    " THEN held.first_received_at ELSE excluded.first_received_at END,"
    " last_received_at = CASE WHEN held.last_received_at > excluded.last_received_at"
    " THEN held.last_received_at ELSE excluded.last_received_at END"
)
_STORED_BYTES = (
    "SELECT (SELECT coalesce(sum(length(payload)), 0) FROM log_block WHERE workspace = ?1)"
    " + (SELECT coalesce(sum(length(raw_zstd) + coalesce(length(record_zstd), 0) + coalesce(length(repaired_zstd), 0)"
    " + length(findings)), 0) FROM quarantine WHERE workspace = ?1)"
)
_NEXT_OFFSET = "SELECT next_offset FROM dataset_count WHERE workspace = ?1 AND dataset = ?2"
_COUNTS = (
    "SELECT dataset, records, quarantined, last_received_at, next_offset FROM dataset_count"
    " WHERE workspace = ?1 ORDER BY dataset"
)
_HEADERS_FROM = "SELECT sequence, headers FROM log_block WHERE sequence >= ?1 ORDER BY sequence LIMIT 1"
_RECORDS_AFTER = "SELECT coalesce(sum(count), 0) FROM log_block WHERE sequence > ?1"
_HEADS = "SELECT workspace, partition, max(first_offset + count) FROM log_block GROUP BY workspace, partition"
_KEEP_STATE = "INSERT INTO log_state (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING"
_QUARANTINE = (
    "INSERT INTO quarantine AS held (workspace, quarantine_id, dataset, source_id, record_id, raw_sha256, findings,"
    " reasons, contract_id, contract_version, received_at, traceparent, raw_zstd, reason, path, record_zstd)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
    " ON CONFLICT (workspace, source_id, dataset, record_id, raw_sha256) DO UPDATE SET findings = excluded.findings,"
    " reasons = excluded.reasons, contract_id = excluded.contract_id, contract_version = excluded.contract_version,"
    " reason = excluded.reason, path = excluded.path, record_zstd = excluded.record_zstd"
    " WHERE held.state = 1 RETURNING quarantine_id"
)
_QUARANTINED_AS = (
    "SELECT quarantine_id FROM quarantine WHERE workspace = ?1 AND source_id = ?2 AND dataset = ?3 AND record_id = ?4"
    " AND raw_sha256 = ?5"
)
_INDEX = re.compile(r"\[\d+\]")
_GROUP_PATH = 300  # characters of a path that groups tell apart: an index takes no text of any length
_AT_HAND = 32  # partitions whose newest block is kept at hand: that is what their followers wait for
_RECALLED_BLOCKS = 8  # of 2 MiB each, whose records duplicates are compared with
_NAMED_BLOCKS = 32  # blocks whose record ids are kept at hand: duplicates come in the order they were first sent


class Connections(Readers, Protocol):
    """How an engine reads and writes."""

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query, from any thread; raise LogUnavailableError."""
        ...

    def transaction(self) -> AbstractContextManager[Statements]:
        """Begin a transaction that is durable when it ends without an exception; raise LogUnavailableError."""
        ...

    def forget(self) -> bool:
        """Overwrite what no transaction can see any more; False = it has to be repeated. Called by the writer."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class SqlLog:
    """The log of one service; `close` it. Reading is safe from any thread, writing from one."""

    def __init__(self, connections: Connections, *, new_epoch: Callable[[], str]) -> None:
        """Open the log in a migrated database whose lease is held."""
        self._connections = connections
        self._named: OrderedDict[tuple[str, int, int], list[RecordName]] = OrderedDict()
        self._recalled: OrderedDict[tuple[str, int, int], tuple[tuple[Header, ...], list[bytes]]] = OrderedDict()
        self._newest: dict[tuple[str, int], Block] = {}
        self._waiting: dict[tuple[str, int], set[asyncio.Future[None]]] = {}
        self.predecessors: Mapping[str, Predecessor]
        self.epoch, self.erasure_revision, self.predecessors = self._life(new_epoch)
        rows = connections.read(_HEADS)
        self._heads: dict[tuple[str, int], int] = {(workspace, partition): head for workspace, partition, head in rows}
        self._sequence: int = connections.read("SELECT coalesce(max(sequence), 0) FROM log_block")[0][0]

    def close(self) -> None:
        """Close every connection; nobody may use the log any more."""
        self._connections.close()

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
        return [
            block_of(row)
            for row in self._connections.read_blocks(workspace, partition, from_offset, max_bytes=max_bytes)
        ]

    def at_hand(self, workspace: str, partition: int, from_offset: int) -> list[Block]:
        """Return what `read` does when that has to be read from nowhere, else nothing."""
        newest = self._newest.get((workspace, partition))
        found = newest is not None and newest.first_offset <= from_offset < self.head(workspace, partition)
        return [newest] if newest is not None and found else []

    def next_offset(self, workspace: str, dataset: str) -> int:
        """Return the offset after a dataset's last record, 0 when it has none."""
        found = self._connections.read(_NEXT_OFFSET, (workspace, dataset))
        return found[0][0] if found else 0

    def counts(self, workspace: str) -> list[DatasetCounts]:
        """Return how much there is of each dataset, by name."""
        return [DatasetCounts(*row) for row in self._connections.read(_COUNTS, (workspace,))]

    def stored_bytes(self, workspace: str) -> int:
        """Return how many bytes a workspace's blocks and quarantined records fill."""
        return int(self._connections.read(_STORED_BYTES, (workspace,))[0][0])

    def erased_since(self, workspace: str, dataset: str, revision: int, *, partition: int, below: int) -> bool:
        """Tell whether an erasure after a revision has changed a dataset's records below an offset."""
        return bool(
            self._connections.read(*erasing.since(workspace, dataset, revision, partition=partition, below=below))
        )

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
    def transaction(self) -> Iterator[SqlLogTransaction]:
        """Begin a transaction that is durable when it ends without an exception."""
        with self._connections.transaction() as statements:
            changes = SqlLogTransaction(statements, self._sequence)
            yield changes
            changes.write_counts()
        self._sequence = changes.sequence
        for key, block in changes.newest.items():
            self._newest.pop(key, None)
            self._newest[key] = block
        while len(self._newest) > _AT_HAND:
            del self._newest[next(iter(self._newest))]

    def announce(self, heads: Mapping[tuple[str, int], int]) -> None:
        """Make committed heads known and wake who waits for them."""
        self._heads.update(heads)
        for key in heads:
            for woken in self._waiting.pop(key, ()):
                if not woken.done():
                    woken.set_result(None)

    def identify(self, workspace: str, partition: int, offset: int) -> RecordName:
        """Return what the record at an offset is named."""
        for (of_workspace, of_partition, first), found in reversed(self._named.items()):
            if of_workspace == workspace and of_partition == partition and first <= offset < first + len(found):
                return found[offset - first]
        block = self._block_of(workspace, partition, offset)
        names = blocks.names(block)
        self._named[(workspace, partition, block.first_offset)] = names
        if len(self._named) > _NAMED_BLOCKS:
            self._named.popitem(last=False)
        return names[offset - block.first_offset]

    def recall(self, workspace: str, partition: int, offset: int) -> tuple[bytes, Header]:
        """Return the JSON of the record at an offset, and what is known of the request that brought it."""
        for place, kept in self._recalled.items():
            if place[:2] == (workspace, partition) and place[2] <= offset < place[2] + len(kept[1]):
                headers, texts = kept
                break
        else:
            block = self._block_of(workspace, partition, offset)
            place, headers, texts = (workspace, partition, block.first_offset), block.headers, blocks.line_texts(block)
            self._recalled[place] = headers, texts
            if len(self._recalled) > _RECALLED_BLOCKS:
                self._recalled.popitem(last=False)
        found = blocks.line(texts[offset - place[2]])
        return bytes(found.r), headers[found.h]

    def _block_of(self, workspace: str, partition: int, offset: int) -> Block:
        rows = self._connections.read_blocks(workspace, partition, offset, max_bytes=0)
        if not rows:
            raise BlockUnreadableError(
                "The dedup table names a record that the log does not hold. Stop ingest, delete dedup.table, start it.",
                metadata={"offset": str(offset)},
            )
        return block_of(rows[0])

    def erase(
        self,
        workspace: str,
        partition: int,
        offsets: Sequence[int],
        *,
        quarantined: Sequence[str],
        held: Collection[str] = (),
        reverting: Callable[[Statements, Erasure], None] | None = None,
    ) -> Erasure:
        """Replace records by tombstones in one transaction, as many as fit into one; `offsets` ascend."""
        self._newest.clear()
        with self._connections.transaction() as statements:
            erasure = erasing.erase(
                statements,
                workspace,
                partition,
                offsets,
                quarantined=quarantined,
                held=held,
                revision=self.erasure_revision,
                reverted=reverting is not None,
            )
            if reverting is not None:
                reverting(statements, erasure)
        self.erasure_revision = erasure.revision
        self._named.clear()
        self._recalled.clear()
        return erasure

    def forget(self) -> bool:
        """Overwrite on disk what was erased; False = somebody still reads an older state, and it has to be repeated."""
        return self._connections.forget()

    def blocks_after(self, sequence: int) -> Iterator[tuple[int, Block]]:
        """Yield (sequence, block) of every block after a sequence, in the order of their commits."""
        while rows := self._connections.read(_AFTER, (sequence,)):
            for row in rows:
                yield row[7], block_of(row[:7])
            sequence = rows[-1][7]

    def records(self) -> int:
        """Return how many records the log holds in all."""
        return sum(self._heads.values())

    def newest_at(self) -> int:
        """Return when the newest block's last request arrived, microseconds UTC; 0 when there is none."""
        return self._arrived_at(self._sequence)[1] if self._sequence else 0

    def before(self, time: int) -> tuple[int, int]:
        """Return the sequence of the last block whose requests arrived before a time, and how many records follow."""
        low, high = 0, self._sequence  # times ascend with sequences, all but a moment
        while low < high:
            middle = (low + high + 1) // 2
            sequence, at = self._arrived_at(middle)
            low, high = (sequence, high) if at < time else (low, middle - 1)
        return low, int(self._connections.read(_RECORDS_AFTER, (low,))[0][0])

    def _arrived_at(self, sequence: int) -> tuple[int, int]:
        """Return the sequence of the first block from one on, and when its last request arrived."""
        found, headers = self._connections.read(_HEADERS_FROM, (sequence,))[0]
        return found, max(header.received_at for header in blocks.decode_headers(headers))

    def last_sequence(self) -> int:
        """Return the sequence of the newest block."""
        return self._sequence

    def _life(self, new_epoch: Callable[[], str]) -> tuple[str, int, dict[str, Predecessor]]:
        with self._connections.transaction() as statements:
            statements.execute(_KEEP_STATE, ("epoch", new_epoch()))
            statements.execute(_KEEP_STATE, ("erasure_revision", "0"))
        state = dict(self._connections.read("SELECT name, value FROM log_state"))
        predecessors = from_text(state.get("predecessors", "[]"))
        return state["epoch"], int(state["erasure_revision"]), {life.epoch: life for life in predecessors}


def open_log(url: str, *, lease: Lease | None, new_epoch: Callable[[], str]) -> SqlLog:
    """Open the log of a database whose lease is held; only SQLite can do without one."""
    if is_postgresql(url):
        if lease is None:
            raise ValueError("the log in PostgreSQL is written under a lease")
        return SqlLog(PostgresqlConnections(url, lease), new_epoch=new_epoch)
    return SqlLog(SqliteConnections(Path(found_at(url)[1])), new_epoch=new_epoch)


def found_at(url: str) -> tuple[str, str]:
    """Return which engine a database has, and where it is, for `open_blocks` of another process."""
    return ("postgresql", url) if is_postgresql(url) else ("sqlite", make_url(url).database or "")


class SqlLogTransaction:
    """What is written in one transaction of the log's writer."""

    def __init__(self, statements: Statements, sequence: int) -> None:
        self.statements = statements
        self.sequence = sequence
        self.newest: dict[tuple[str, int], Block] = {}
        """The last block of each partition that it has written."""
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._arrived: dict[tuple[str, str], list[int]] = {}

    def add_block(self, block: Block, *, datasets: Mapping[str, int], last_offsets: Mapping[str, int]) -> int:
        """Append a block that begins at its partition's head; return its sequence."""
        self.sequence += 1
        headers = block.headers
        self.statements.execute(
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
        self.newest[block.workspace, block.partition] = block
        received_at = max(header.received_at for header in headers)
        for dataset, count in datasets.items():
            counts = self._counts.setdefault((block.workspace, dataset), [0, 0, 0, 0])
            counts[0] += count
            counts[2] = max(counts[2], received_at)
            counts[3] = last_offsets[dataset] + 1
        return self.sequence

    @cached_property
    def _compressor(self) -> zstandard.ZstdCompressor:
        """What quarantine needs, which is seldom used: making one costs as much as a small block."""
        return zstandard.ZstdCompressor(level=1)

    def add_quarantined(self, record: Quarantined) -> str:
        """Keep a record in quarantine; return its id, the older one when the same bytes are there already.

        What was replayed or discarded stays as it is, however often its bytes come again.
        """
        sha256 = fingerprint(record.raw)
        row = (
            record.workspace,
            record.quarantine_id,
            record.dataset,
            record.source_id,
            record.record_id,
            sha256,
            findings_json(record.findings),
            "".join(f" {reason} " for reason in sorted({each.reason for each in record.findings})),
            record.contract_id,
            record.contract_version,
            record.received_at,
            record.traceparent,
            self._compressor.compress(record.raw),
            *first_of(record.findings),
            self._compressor.compress(record.record) if record.record else None,
        )
        found = self.statements.execute(_QUARANTINE, row)
        if not found:
            found = self.statements.execute(_QUARANTINED_AS, (row[0], row[3], row[2], row[4], sha256))
        kept: str = found[0][0]
        if kept == record.quarantine_id:
            self._counts.setdefault((record.workspace, record.dataset), [0, 0, 0, 0])[1] += 1
            self.add_arrived(record.workspace, record.source_id, records=0, received_at=record.received_at)
        return kept

    def add_arrived(self, workspace: str, source_id: str, *, records: int, received_at: int) -> None:
        """Count records of a source that the log takes, 0 of one that went to quarantine."""
        counts = self._arrived.setdefault((workspace, source_id), [0, received_at, received_at])
        counts[0] += records
        counts[1:] = min(counts[1], received_at), max(counts[2], received_at)

    def write_counts(self) -> None:
        """Add what this transaction brought to the counters of datasets and sources."""
        self.statements.execute_many(_COUNT, [(*key, *counts) for key, counts in self._counts.items()])
        self.statements.execute_many(_ARRIVED, [(*key, *counts) for key, counts in self._arrived.items()])


def findings_json(findings: tuple[Finding, ...]) -> str:
    """Return findings as they are stored."""
    return orjson.dumps([[each.reason, each.path, each.detail] for each in findings]).decode()


def first_of(findings: tuple[Finding, ...]) -> tuple[str, str]:
    """Return reason and path of the first finding, by which quarantined records are grouped; any index is `[*]`."""
    first = findings[0]
    return first.reason, _INDEX.sub("[*]", first.path)[:_GROUP_PATH]
