"""The write path: records are judged in the event loop, then written by one thread, many requests per commit.

Whatever arrives while one commit runs goes into the next, so the disk's flush is shared without a timer. A verdict is
given only after the commit that holds its record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

import orjson
from counterfoil_chassis.clock import Ids

from counterfoil_ingest import validation
from counterfoil_ingest.dedup import Dedup, boot_id, load_table
from counterfoil_ingest.entities import Batch, Candidate, Columns, Finding, Header, Quarantined, Verdict, Verdicts
from counterfoil_ingest.errors import ContractsUnavailableError, LogBusyError, LogUnavailableError
from counterfoil_ingest.placing import Group, Judged
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import Effect, LogWriter

_WAITING_BYTES = 256 << 20  # what may wait for the writer before callers are told to come back
_AT_ONCE = 1_000  # records judged before the event loop gets its turn

_logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """Judged batches on their way to the writer; one alone where there is an effect."""

    batches: Sequence[Judged]
    effect: Effect | None
    size: int
    done: asyncio.Future[Sequence[Verdicts]]


class Appender:
    """Appends batches to the log; made by `open_appender`, ended by `close`."""

    def __init__(self, log: LogWriter, table: Dedup, *, contracts: Contracts, ids: Ids) -> None:
        self._log = log
        self._table = table
        self._contracts = contracts
        self._ids = ids
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
        self._waiting: list[_Job] = []
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    async def append(self, batch: Batch, *, effect: Effect | None = None) -> Verdicts:
        """Return the verdict of each candidate once what is kept is durable.

        `effect` runs in the transaction that keeps the batch, which then holds nothing else; when it raises, nothing of
        the batch is kept. Raises LogBusyError when too much waits already, LogUnavailableError when nothing was kept.
        """
        return await self.append_judged(await self.judge(batch), effect=effect)

    async def judge(self, batch: Batch) -> Judged:
        """Return records as what the log takes, each held against its contract."""
        contracts, unknown = await self._contracts_of(batch)
        return await self._judge(batch, contracts, unknown)

    async def judge_columns(
        self, columns: Columns, *, workspace: str, source_id: str, received_at: int, traceparent: str
    ) -> Judged | None:
        """Return records as what the log takes; None when it is not sure that each of them keeps its contract."""
        try:
            compiled = await self._contracts.find(workspace, columns.dataset)
        except ContractsUnavailableError:
            return None
        if compiled is None or not _keep(columns, compiled):
            return None
        return Judged(
            workspace=workspace,
            header=Header(source_id, received_at, traceparent, {columns.dataset: compiled.version}),
            ids=columns.ids,
            datasets=[columns.dataset] * len(columns.ids),
            datas=columns.records,
            refused={},
            unknown=frozenset(),
            size=columns.size,
        )

    def judge_singles(
        self, columns: Columns, *, workspace: str, source_id: str, arrived: Sequence[tuple[int, str]]
    ) -> Judged | None:
        """Return records that each came by itself as what the log takes; `arrived` is when, and in which trace.

        None when it is not sure that each keeps its contract, or when that would have to be asked for.
        """
        compiled = self._contracts.in_force(workspace, columns.dataset)
        if compiled is None or not _keep(columns, compiled):
            return None
        versions = {columns.dataset: compiled.version}
        headers = [Header(source_id, *how, versions) for how in arrived]
        return Judged(
            workspace=workspace,
            header=headers[0],
            ids=columns.ids,
            datasets=[columns.dataset] * len(columns.ids),
            datas=columns.records,
            refused={},
            unknown=frozenset(),
            size=columns.size,
            apart=headers,
        )

    async def append_judged(self, judged: Judged, *, effect: Effect | None = None) -> Verdicts:
        """Do as `append` does with records that were held against their contracts already."""
        (verdicts,) = await self.append_all([judged], effect=effect)
        return verdicts

    async def append_all(self, batches: Sequence[Judged], *, effect: Effect | None = None) -> Sequence[Verdicts]:
        """Do as `append_judged` does with several batches in one commit; only one by itself may have an effect."""
        size = sum(judged.bytes() for judged in batches)
        if self._closed or self._waiting_bytes + size > _WAITING_BYTES:
            raise LogBusyError(
                "Too much waits for the log. Send it again after a second.", retry_after=timedelta(seconds=1)
            )
        done: asyncio.Future[Sequence[Verdicts]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(batches, effect, size, done))
        self._waiting_bytes += size
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await done

    async def look_up(self, judged: Judged) -> Sequence[Verdict]:
        """Return what `append_judged` would answer now; nothing is kept."""
        return await self.in_turn(lambda: Group(self._log, self._table, self._ids).look_up(judged))

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do work of the log's writer between two commits; raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

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

    async def _judge(self, batch: Batch, contracts: Mapping[str, Compiled | None], unknown: frozenset[str]) -> Judged:
        """Hold every candidate against its contract; return what of it the writer needs."""
        candidates = batch.candidates
        faults: dict[int, tuple[Finding, ...]] = {}
        for start in range(0, len(candidates), _AT_ONCE):
            if start:
                await asyncio.sleep(0)
            some = candidates[start : start + _AT_ONCE]
            faults.update(validation.faults(some, contracts, unknown=unknown, start=start))
        versions = {dataset: each.version for dataset, each in contracts.items() if each is not None}
        return Judged(
            workspace=batch.workspace,
            header=Header(batch.source_id, batch.received_at, batch.traceparent, versions),
            ids=[each.record_id for each in candidates],
            datasets=[each.dataset for each in candidates],
            datas=[each.data for each in candidates],
            origins=[each.origin for each in candidates],
            refused={
                index: self._refused(batch, candidates[index], found, contracts) for index, found in faults.items()
            },
            unknown=unknown,
        )

    def _refused(
        self,
        batch: Batch,
        candidate: Candidate,
        findings: tuple[Finding, ...],
        contracts: Mapping[str, Compiled | None],
    ) -> Quarantined:
        compiled = contracts.get(candidate.dataset)
        return Quarantined(
            quarantine_id=self._ids.new(),
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
            record=b"" if candidate.origin is None else candidate.data,
        )

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                jobs = self._take()
                try:
                    heads, verdicts = await loop.run_in_executor(self._thread, self._write, jobs)
                except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to those who wait for these jobs)
                    self._fail(jobs, error)
                    continue
                self._log.announce(heads)
                for job, of_job in zip(jobs, verdicts, strict=True):
                    if not job.done.done():
                        job.done.set_result(of_job)
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

    def _write(self, jobs: Sequence[_Job]) -> tuple[Mapping[tuple[str, int], int], Sequence[Sequence[Verdicts]]]:
        """Write jobs in one transaction; return the new heads and the verdicts. Runs in the writer's thread."""
        group = Group(self._log, self._table, self._ids)
        with self._log.transaction() as transaction:
            placed = iter(group.place([batch for job in jobs for batch in job.batches], transaction))
            verdicts = [list(islice(placed, len(job.batches))) for job in jobs]
            for job, of_job in zip(jobs, verdicts, strict=True):
                if job.effect is not None:
                    job.effect(transaction.statements, of_job[0])
            newest = max(batch.header.received_at for job in jobs for batch in job.batches)
            self._table.reserve(group.placed, at=newest)  # may need disk, so it has to come before the commit
        group.enter()
        return group.heads, verdicts


def _keep(columns: Columns, compiled: Compiled) -> bool:
    """Tell whether it is sure that every record keeps a contract."""
    checks = compiled.validator.columnwise
    return checks is not None and compiled.rules is None and checks.keep(columns)


async def open_appender(
    log: LogWriter, table_path: Path, *, contracts: Contracts, ids: Ids, keep: timedelta = timedelta(0)
) -> Appender:
    """Open the dedup table, made anew from the log where it must be, and return the log's appender.

    Ids are kept for `keep` at least, and for ever without one.
    """
    table = await asyncio.to_thread(load_table, table_path, log, boot_id=boot_id(), keep=keep)
    return Appender(log, table, contracts=contracts, ids=ids)
