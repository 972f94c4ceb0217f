"""The write path: records are judged in the event loop, then written by one thread, many requests per commit.

Whatever arrives while one commit runs goes into the next, so the disk's flush is shared without a timer. A verdict is
given only after the commit that holds its record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import orjson
from counterfoil_chassis.clock import Ids

from counterfoil_ingest import blocks, validation
from counterfoil_ingest.dedup import DedupTable, boot_id, hash_of, load_table, scope_of
from counterfoil_ingest.entities import Batch, Block, Candidate, Finding, Header, Outcome, Quarantined, Verdict
from counterfoil_ingest.errors import ContractsUnavailableError, LogBusyError, LogUnavailableError
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import Effect, LogTransaction, LogWriter

PARTITION = 0
"""The one partition that version 1 writes."""

_BLOCK_RECORDS = 5_000
_BLOCK_BYTES = 2 << 20  # of lines; with one record of at most 1 MiB on top, a block fits into a gRPC message of 8 MiB
_WAITING_BYTES = 256 << 20  # what may wait for the writer before callers are told to come back
_AT_ONCE = 1_000  # records judged before the event loop gets its turn

# Bound once: reading an enum's member costs as much as making a verdict.
_ACCEPTED, _DUPLICATE, _RETRY = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.RETRY

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """One judged batch on its way to the writer. `quarantined` is candidate index -> (new id, findings)."""

    batch: Batch
    contracts: Mapping[str, Compiled | None]
    quarantined: Mapping[int, tuple[str, tuple[Finding, ...]]]
    retry: frozenset[str]
    effect: Effect | None
    size: int
    done: asyncio.Future[list[Verdict]]


class Appender:
    """Appends batches to the log; made by `open_appender`, ended by `close`."""

    def __init__(self, log: LogWriter, table: DedupTable, *, contracts: Contracts, ids: Ids) -> None:
        self._log = log
        self._table = table
        self._contracts = contracts
        self._ids = ids
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
        self._waiting: list[_Job] = []
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    async def append(self, batch: Batch, *, effect: Effect | None = None) -> list[Verdict]:
        """Return the verdict of each candidate once what is kept is durable.

        `effect` runs in the transaction that keeps the batch, which then holds nothing else; when it raises, nothing of
        the batch is kept. Raises LogBusyError when too much waits already, LogUnavailableError when nothing was kept.
        """
        contracts, unknown = await self._contracts_of(batch)
        batch, quarantined = await self._judge(batch, contracts, unknown)
        size = sum(len(each.data) for each in batch.candidates)
        if self._closed or self._waiting_bytes + size > _WAITING_BYTES:
            raise LogBusyError(
                "Too much waits for the log. Send it again after a second.", retry_after=timedelta(seconds=1)
            )
        done: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(batch, contracts, quarantined, unknown, effect, size, done))
        self._waiting_bytes += size
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await done

    async def close(self) -> None:
        """Write what waits, then end; later appends are refused."""
        self._closed = True
        while self._writing is not None:
            await self._writing
        await asyncio.get_running_loop().run_in_executor(self._thread, self._table.close)
        self._thread.shutdown()

    async def _contracts_of(self, batch: Batch) -> tuple[dict[str, Compiled | None], frozenset[str]]:
        """Return dataset -> contract in force, and the datasets of which that cannot be said now."""
        found: dict[str, Compiled | None] = {}
        unknown = set()
        for dataset in {each.dataset for each in batch.candidates if not each.findings}:
            try:
                found[dataset] = await self._contracts.find(batch.workspace, dataset)
            except ContractsUnavailableError:
                unknown.add(dataset)
        return found, frozenset(unknown)

    async def _judge(
        self, batch: Batch, contracts: Mapping[str, Compiled | None], unknown: frozenset[str]
    ) -> tuple[Batch, dict[int, tuple[str, tuple[Finding, ...]]]]:
        """Return the batch without what only judging needs, and by index what goes to quarantine."""
        bad: dict[int, tuple[str, tuple[Finding, ...]]] = {}
        kept = []
        for index, candidate in enumerate(batch.candidates):
            if index % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if candidate.findings or candidate.dataset not in unknown:
                findings = validation.findings_of(candidate, contracts.get(candidate.dataset))
                if findings:
                    bad[index] = (self._ids.new(), findings)
                    kept.append(candidate)
                    continue
            # Without its parsed value, which is freed here, still in the processor's cache, and not after the commit.
            kept.append(Candidate(candidate.record_id, candidate.dataset, candidate.data, None))
        return replace(batch, candidates=kept), bad

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                jobs = self._take()
                try:
                    group = await loop.run_in_executor(self._thread, self._write, jobs)
                except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to those who wait for these jobs)
                    self._fail(jobs, error)
                    continue
                self._log.announce(group.heads)
                for job, verdicts in zip(jobs, group.verdicts, strict=True):
                    if not job.done.done():
                        job.done.set_result(verdicts)
        finally:
            self._writing = None

    def _take(self) -> list[_Job]:
        """Take what goes into the next commit: all that waits, but a batch with an effect goes alone."""
        count = next((index for index, job in enumerate(self._waiting) if job.effect is not None), len(self._waiting))
        jobs = self._waiting[: count or 1]
        del self._waiting[: count or 1]
        self._waiting_bytes -= sum(job.size for job in jobs)
        return jobs

    def _fail(self, jobs: Sequence[_Job], error: Exception) -> None:
        if not isinstance(error, LogUnavailableError) and jobs[0].effect is None:
            _logger.error("append failed", exc_info=error)
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(error)

    def _write(self, jobs: Sequence[_Job]) -> _Group:
        """Write jobs in one transaction; runs in the writer's thread."""
        group = _Group(self._log, self._table)
        with self._log.transaction() as transaction:
            group.verdicts = [group.place(job, transaction) for job in jobs]
            group.finish()
            for job, verdicts in zip(jobs, group.verdicts, strict=True):
                if job.effect is not None:
                    job.effect(transaction.connection, verdicts)
            self._table.reserve(len(group.hashes))  # may need disk, so it has to come before the commit
        if group.hashes:
            self._table.enter(group.hashes, group.offsets, watermark=self._log.last_sequence())
        return group


class _Group:
    """What one commit writes."""

    def __init__(self, log: LogWriter, table: DedupTable) -> None:
        self._log = log
        self._table = table
        self._blocks: dict[str, _BlockWriter] = {}
        self._seen: dict[bytes, dict[str, int]] = {}
        self.heads: dict[tuple[str, int], int] = {}
        self.hashes: list[int] = []
        self.offsets: list[int] = []
        self.verdicts: list[list[Verdict]] = []

    def place(self, job: _Job, transaction: LogTransaction) -> list[Verdict]:
        """Give each candidate its place: the log, quarantine, or none."""
        batch = job.batch
        hashes, seen = self._told_apart(batch)
        known = self._table.contains(hashes)
        block = self._writing(job, transaction)
        verdicts = []
        for index, candidate in enumerate(batch.candidates):
            record_id, dataset = candidate.record_id, candidate.dataset
            older = seen[dataset].get(record_id)
            if older is None and known[index]:
                older = self._older(batch, candidate, hashes[index])
            if older is not None:
                verdict = Verdict(_DUPLICATE, record_id, dataset, PARTITION, older)
            elif index in job.quarantined:
                verdict = _quarantine(job, index, transaction)
            elif dataset in job.retry:
                verdict = Verdict(_RETRY, record_id, dataset)
            else:
                offset = block.append(candidate)
                seen[dataset][record_id] = offset
                self.hashes.append(hashes[index])
                self.offsets.append(offset)
                verdict = Verdict(_ACCEPTED, record_id, dataset, PARTITION, offset)
            verdicts.append(verdict)
        self.heads[batch.workspace, PARTITION] = block.next_offset
        return verdicts

    def finish(self) -> None:
        """Write the blocks that are not full."""
        for block in self._blocks.values():
            block.write()

    def _writing(self, job: _Job, transaction: LogTransaction) -> _BlockWriter:
        """Return the writer of the batch's workspace, told of its header."""
        batch = job.batch
        block = self._blocks.get(batch.workspace)
        if block is None:
            head = self._log.head(batch.workspace, PARTITION)
            block = self._blocks[batch.workspace] = _BlockWriter(batch.workspace, head, transaction)
        versions = {dataset: each.version for dataset, each in job.contracts.items() if each is not None}
        block.begin(Header(batch.source_id, batch.received_at, batch.traceparent, versions))
        return block

    def _told_apart(self, batch: Batch) -> tuple[list[int], dict[str, dict[str, int]]]:
        """Return each candidate's hash, and by dataset the ids (with offsets) that this commit has placed already."""
        scopes = {
            dataset: scope_of(batch.workspace, batch.source_id, dataset)
            for dataset in {each.dataset for each in batch.candidates}
        }
        seen = {dataset: self._seen.setdefault(scope, {}) for dataset, scope in scopes.items()}
        return [hash_of(scopes[each.dataset], each.record_id) for each in batch.candidates], seen

    def _older(self, batch: Batch, candidate: Candidate, hash_: int) -> int | None:
        """Return the offset of the record with this very id; another id may share its hash."""
        for offset in self._table.matches(hash_):
            if offset >= self._log.head(batch.workspace, PARTITION):
                continue  # of another workspace, whose log is longer
            found = self._log.identify(batch.workspace, PARTITION, offset)
            if found == (batch.source_id, candidate.dataset, candidate.record_id):
                return offset
        return None


class _BlockWriter:
    """Fills blocks of one workspace and writes each when it is full."""

    def __init__(self, workspace: str, first_offset: int, transaction: LogTransaction) -> None:
        self.next_offset = first_offset
        self._workspace = workspace
        self._transaction = transaction
        self._header = Header("", 0, "", {})
        self._empty()

    def begin(self, header: Header) -> None:
        """Take what follows as brought by another request."""
        self._header = header
        self._headed = False

    def append(self, candidate: Candidate) -> int:
        """Append a record of the present request; return its offset."""
        if not self._headed:  # a block keeps no header that none of its records has
            self._headers.append(self._header)
            self._headed = True
        offset, dataset = self.next_offset, candidate.dataset
        line = blocks.line(offset, len(self._headers) - 1, dataset, candidate.record_id, candidate.data)
        self._lines.append(line)
        self._size += len(line)
        self._datasets[dataset] = self._datasets.get(dataset, 0) + 1
        self.next_offset = offset + 1
        if len(self._lines) >= _BLOCK_RECORDS or self._size >= _BLOCK_BYTES:
            self.write()
        return offset

    def write(self) -> None:
        """Write the block if it holds anything, and begin another."""
        if not self._lines:
            return
        block = Block(
            workspace=self._workspace,
            partition=PARTITION,
            first_offset=self.next_offset - len(self._lines),
            count=len(self._lines),
            layout=blocks.LAYOUT,
            payload=blocks.encode(self._lines),
            headers=tuple(self._headers),
        )
        self._transaction.add_block(block, datasets=self._datasets)
        self._empty()

    def _empty(self) -> None:
        self._headed = False
        self._lines: list[bytes] = []
        self._size = 0
        self._headers: list[Header] = []
        self._datasets: dict[str, int] = {}


def _quarantine(job: _Job, index: int, transaction: LogTransaction) -> Verdict:
    batch, candidate = job.batch, job.batch.candidates[index]
    quarantine_id, findings = job.quarantined[index]
    compiled = job.contracts.get(candidate.dataset)
    kept = transaction.add_quarantined(
        Quarantined(
            quarantine_id=quarantine_id,
            workspace=batch.workspace,
            dataset=candidate.dataset,
            source_id=batch.source_id,
            record_id=candidate.record_id,
            findings=findings,
            contract_id=compiled.contract_id if compiled else "",
            contract_version=compiled.version if compiled else "",
            received_at=batch.received_at,
            traceparent=batch.traceparent,
            raw=candidate.data if candidate.origin is None else orjson.dumps(candidate.origin),
        )
    )
    return Verdict(Outcome.QUARANTINED, candidate.record_id, candidate.dataset, quarantine_id=kept, findings=findings)


async def open_appender(log: LogWriter, table_path: Path, *, contracts: Contracts, ids: Ids) -> Appender:
    """Open the dedup table, made anew from the log where it must be, and return the log's appender."""
    table = await asyncio.to_thread(load_table, table_path, log, boot_id=boot_id())
    return Appender(log, table, contracts=contracts, ids=ids)
