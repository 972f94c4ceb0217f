"""Imports: a file is kept first; then its rows are appended, each batch in one transaction with its progress."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from counterfoil_chassis.clock import Clock, Ids, to_micros
from counterfoil_chassis.database import StoreUnavailableError
from counterfoil_chassis.errors import CounterfoilError, ResourceExhaustedError, UnavailableError

from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import Verdicts
from counterfoil_ingest.errors import LogUnavailableError
from counterfoil_ingest.files import READERS, Batches, FileUnreadableError, count_rows
from counterfoil_ingest.judging import Judge, Target
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.placing import Judged
from counterfoil_ingest.read_errors import LakeBehindError
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import Log, Statements

SOURCE_ID = "import"
"""The source of every imported record: the same file again finds its rows in the log already."""

_PAUSE_SECONDS = 1.0  # before a batch that could not be kept is tried again
_FLUSH_SECONDS = 60.0
_logger = logging.getLogger(__name__)


class Format(enum.IntEnum):
    """What kind of file it is; the numbers are those of `ingest.v1.Import.Format`."""

    CSV = 1
    JSONL = 2
    PARQUET = 3


class State(enum.IntEnum):
    """Where an import is; the numbers are those of `ingest.v1.Import.State`."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Import:
    """One file on its way into a dataset. Times are microseconds UTC, 0 = none; `snapshot_offset` -1 = none yet."""

    workspace: str
    import_id: str
    dataset: str
    format: Format
    file_name: str
    file_bytes: int
    file_sha256: str
    created_by: str
    traceparent: str
    created_at: int
    state: State = State.PENDING
    rows_total: int = 0
    rows_read: int = 0
    rows_accepted: int = 0
    rows_duplicate: int = 0
    rows_quarantined: int = 0
    error_reason: str = ""
    error_detail: str = ""
    finished_at: int = 0
    snapshot_offset: int = -1
    log_epoch: str = ""
    erasure_revision: int = 0


class ImportStore(Protocol):
    """Imports; every call is a transaction of its own, but `count`, which is part of the log's."""

    async def add(self, new: Import) -> None:
        """Keep a new import."""
        ...

    async def get(self, workspace: str, import_id: str) -> Import:
        """Return one import; raise ImportNotFoundError when absent or in another workspace."""
        ...

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[Import]:
        """Return the newest imports before an id, newest first."""
        ...

    async def unfinished(self) -> Sequence[Import]:
        """Return every pending or running import of every workspace, oldest first."""
        ...

    async def save(self, changed: Import) -> None:
        """Store an import's state, totals, error and snapshot; its row counters are `count`'s."""
        ...

    def count(self, statements: Statements, of: Import, verdicts: Verdicts) -> None:
        """Add verdicts to an import's counters within the transaction that keeps their records."""
        ...


class ImportWorker:
    """Reads the files of unfinished imports one after the other, from where each was left."""

    def __init__(
        self,
        spool: Path,
        *,
        imports: ImportStore,
        appender: Appender,
        contracts: Contracts,
        log: Log,
        lake: Lake,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._spool = spool
        self._imports = imports
        self._appender = appender
        self._contracts = contracts
        self._log = log
        self._lake = lake
        self._clock = clock
        self._ids = ids
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for a new import at once."""
        self._wake.set()

    async def clean(self) -> None:
        """Delete files whose upload broke off or whose import has ended; call it before uploads are taken."""
        wanted = {file_of(self._spool, each.import_id) for each in await self._imports.unfinished()}
        for path in set(self._spool.glob("*")) - wanted:
            path.unlink()

    async def run(self) -> None:
        """Work until cancelled, first on what a stopped process left unfinished."""
        while True:
            self._wake.clear()
            waiting = await self._imports.unfinished()
            for each in waiting:
                await self._import(each)
            if not waiting:
                await self._wake.wait()

    async def _import(self, job: Import) -> None:
        try:
            done = await self._read(job)
        except (StoreUnavailableError, LogUnavailableError):
            raise  # the database is away, which is not the file's fault: it goes on from where it was
        except (FileUnreadableError, CounterfoilError) as error:
            _logger.warning("import failed", extra={"import_id": job.import_id, "reason": error.reason})
            done = await self._failed(job, error.reason, str(error))
        except Exception:  # whatever a file does to a library, it must not stop the service again at every start
            _logger.exception("import failed unexpectedly", extra={"import_id": job.import_id})
            done = await self._failed(job, "INTERNAL", "The import failed on our side; the log of ingest says why.")
        await self._imports.save(done)
        await asyncio.to_thread(file_of(self._spool, job.import_id).unlink, missing_ok=True)

    async def _failed(self, job: Import, reason: str, detail: str) -> Import:
        now = await self._imports.get(job.workspace, job.import_id)
        finished_at = to_micros(self._clock.now())
        return replace(now, state=State.FAILED, error_reason=reason, error_detail=detail, finished_at=finished_at)

    async def _read(self, job: Import) -> Import:
        """Append every row that has no verdict yet, then bring the lake there; return the import as succeeded."""
        path = file_of(self._spool, job.import_id)
        if not await asyncio.to_thread(path.exists):
            raise FileUnreadableError(
                "FILE_LOST", "The uploaded file is no longer in the data folder. Upload it again."
            )
        compiled = await self._contract(job)
        total = await asyncio.to_thread(count_rows, path, job.format.name)
        job = replace(job, state=State.RUNNING, rows_total=total)
        await self._imports.save(job)
        types = {column.name: column.type for column in compiled.columns}
        await self._append_all(job, READERS[job.format.name](path, types, skip=job.rows_read))
        head = self._log.head(job.workspace)
        await self._flush(job, head)
        now = await self._imports.get(job.workspace, job.import_id)
        return replace(
            now,
            state=State.SUCCEEDED,
            rows_total=now.rows_read,
            finished_at=to_micros(self._clock.now()),
            snapshot_offset=head,
            log_epoch=self._log.epoch,
            erasure_revision=self._log.erasure_revision,
        )

    async def _contract(self, job: Import) -> Compiled:
        compiled = await self._in_force(job)
        if compiled is None:
            detail = f"No contract is in force for `{job.dataset}`. Activate one and upload the file again."
            raise FileUnreadableError("NO_CONTRACT", detail)
        return compiled

    async def _in_force(self, job: Import) -> Compiled | None:
        """Return the contract in force now, waiting until that can be said."""
        while True:
            try:
                return await self._contracts.find(job.workspace, job.dataset)
            except UnavailableError as error:
                _logger.warning(
                    "import waits for its contract", extra={"import_id": job.import_id, "error": str(error)}
                )
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _append_all(self, job: Import, batches: Batches) -> None:
        """Append batches in order; the next one is read and judged while the log writes."""
        target = Target(job.workspace, job.dataset, SOURCE_ID, job.traceparent, job.file_sha256)
        judge = Judge(target, new_id=self._ids.new)
        reading = asyncio.create_task(self._next(job, batches, judge))
        try:
            while (judged := await reading) is not None:
                reading = asyncio.create_task(self._next(job, batches, judge))
                await self._append(job, judged)
        finally:
            # A thread cannot be stopped: wait for it, so that it does not read on behind a finished import.
            with contextlib.suppress(asyncio.CancelledError, FileUnreadableError):
                await reading

    async def _next(self, job: Import, batches: Batches, judge: Judge) -> Judged | None:
        rows = await asyncio.to_thread(next, batches, None)
        if rows is None:
            return None
        compiled = await self._in_force(job)
        received_at = to_micros(self._clock.now())
        return await asyncio.to_thread(judge.judge, rows, compiled, received_at=received_at)

    async def _append(self, job: Import, judged: Judged) -> None:
        def effect(statements: Statements, verdicts: Verdicts) -> None:
            self._imports.count(statements, job, verdicts)

        while True:
            try:
                await self._appender.append_judged(judged, effect=effect)
            except (UnavailableError, ResourceExhaustedError) as error:
                _logger.warning(
                    "import batch is tried again", extra={"import_id": job.import_id, "reason": error.reason}
                )
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def _flush(self, job: Import, head: int) -> None:
        while True:
            try:
                await self._lake.flush(job.workspace, head, within=_FLUSH_SECONDS)
            except LakeBehindError:
                _logger.warning("import waits for the lake", extra={"import_id": job.import_id})
            else:
                return


def file_of(spool: Path, import_id: str) -> Path:
    """Return where an import's file is kept until its rows are in the log."""
    return spool / f"{import_id}.file"
