"""Imports: a file is kept first; then its rows are appended, each batch in one transaction with its progress."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from counterfoil_chassis.clock import Clock, Ids, from_micros, to_micros
from counterfoil_chassis.database import StoreUnavailableError
from counterfoil_chassis.errors import CounterfoilError, ResourceExhaustedError, UnavailableError

from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import Erasure, Quarantined, Verdicts
from counterfoil_ingest.erasing import Eraser
from counterfoil_ingest.errors import LogUnavailableError
from counterfoil_ingest.files import Batches, FileUnreadableError, count_rows
from counterfoil_ingest.import_files import Layout, OpenFile, open_file
from counterfoil_ingest.import_jobs import SOURCE_ID, Import, ImportStore, State, file_of
from counterfoil_ingest.import_mappings import ImportMapping
from counterfoil_ingest.judging import Judge, Target
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.mapped_rows import Given
from counterfoil_ingest.placing import Judged
from counterfoil_ingest.read_errors import LakeBehindError
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import Log, Statements

_PAUSE_SECONDS = 1.0  # before a batch that could not be kept is tried again
_FLUSH_SECONDS = 60.0
_logger = logging.getLogger(__name__)


class ImportWorker:
    """Reads the files of unfinished imports one after the other, from where each was left."""

    def __init__(
        self,
        spool: Path,
        *,
        imports: ImportStore,
        appender: Appender,
        eraser: Eraser,
        contracts: Contracts,
        mappings: Mapping[str, ImportMapping],
        log: Log,
        lake: Lake,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._spool = spool
        self._imports = imports
        self._appender = appender
        self._eraser = eraser
        self._contracts = contracts
        self._mappings = mappings
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
                await (self._revert(each) if each.state is State.REVERTING else self._import(each))
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
        opened = await self._open(job, path)
        total = await asyncio.to_thread(count_rows, path, job.format.name)
        job = _read_as(replace(job, state=State.RUNNING, rows_total=total), opened)
        await self._imports.save(job)
        await self._append_all(job, opened.batches)
        head = self._log.head(job.workspace)
        await self._flush(job, head)
        now = await self._imports.get(job.workspace, job.import_id)
        done = replace(now, state=State.SUCCEEDED, rows_total=now.rows_read, finished_at=to_micros(self._clock.now()))
        if opened.airbyte is not None:
            done = replace(done, source_state=opened.airbyte.state)
            if opened.airbyte.problem:  # its states are good all the same: they follow the records they stand for
                return replace(
                    done, state=State.FAILED, error_reason="SOURCE_FAILED", error_detail=opened.airbyte.problem
                )
        if not job.dataset:
            return done
        return replace(
            done,
            snapshot_offset=head,
            log_epoch=self._log.epoch,
            erasure_revision=self._log.erasure_revision,
        )

    async def _open(self, job: Import, path: Path) -> OpenFile:
        compiled = await self._contract(job) if job.dataset else None
        mapping = given = None
        if job.mapping:
            mapping = self._mappings.get(job.mapping.partition("@")[0])
            if mapping is None or mapping.title != job.mapping:
                detail = f"The mapping {job.mapping} is here no longer. Upload the file again, by one that is."
                raise FileUnreadableError("MAPPING_UNKNOWN", detail)
            at = job.given.get("snapshot_at")
            given = Given(datetime.fromisoformat(at) if at else from_micros(job.created_at), job.given)
        layout = Layout(
            job.format.name,
            job.dataset,
            {column.name: column.type for column in compiled.columns} if compiled else {},
            mapping=mapping,
            given=given,
            encoding=job.given.get("encoding", ""),
            delimiter=job.given.get("delimiter", ""),
            decimal=job.given.get("decimal", ""),
            connection=await self._imports.connection(job.workspace, job.connection) if job.connection else None,
        )
        return await asyncio.to_thread(open_file, path, layout, skip=job.rows_read)

    async def _contract(self, job: Import) -> Compiled:
        compiled = await self._in_force(job, job.dataset)
        if compiled is None:
            detail = f"No contract is in force for `{job.dataset}`. Activate one and upload the file again."
            raise FileUnreadableError("NO_CONTRACT", detail)
        return compiled

    async def _in_force(self, job: Import, dataset: str) -> Compiled | None:
        """Return the contract in force now, waiting until that can be said."""
        while True:
            try:
                return await self._contracts.find(job.workspace, dataset)
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
        contracts = {name: await self._in_force(job, name) for name in set(rows.datasets) or {job.dataset}}
        received_at = to_micros(self._clock.now())
        return await asyncio.to_thread(judge.judge, rows, contracts, received_at=received_at)

    async def _append(self, job: Import, judged: Judged) -> None:
        def effect(statements: Statements, verdicts: Verdicts) -> None:
            new = [each.quarantine_id for index, each in judged.refused.items() if _is_new(verdicts, index, each)]
            self._imports.count(statements, job, verdicts, new)

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

    async def require_unheld(self, workspace: str, import_id: str) -> None:
        """Raise when legal holds keep what an import brought: see `Eraser.require_unheld`; ImportNotFoundError."""
        job = await self._imports.get(workspace, import_id)
        records, quarantined = await self._imports.records(job), partial(self._imports.quarantined, job)
        await self._eraser.require_unheld(workspace, records, quarantined=quarantined)

    async def _revert(self, job: Import) -> None:
        """Take back what an import brought; tried again later, with the others in between, when that cannot be now."""

        def effect(statements: Statements, erasure: Erasure) -> None:
            self._imports.count_reverted(statements, job, erasure)

        try:
            records, quarantined = await self._imports.records(job), partial(self._imports.quarantined, job)
            await self._eraser.revert(job.workspace, records, quarantined=quarantined, effect=effect)
        except (StoreUnavailableError, LogUnavailableError):
            raise
        except CounterfoilError as error:
            _logger.warning("revert is tried again", extra={"import_id": job.import_id, "reason": error.reason})
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            now = await self._imports.get(job.workspace, job.import_id)
            await self._imports.save(replace(now, state=State.REVERTED))

    async def _flush(self, job: Import, head: int) -> None:
        while True:
            try:
                await self._lake.flush(job.workspace, head, within=_FLUSH_SECONDS)
            except LakeBehindError:
                _logger.warning("import waits for the lake", extra={"import_id": job.import_id})
            else:
                return


def _read_as(job: Import, opened: OpenFile) -> Import:
    """Return an import that says how its text is read."""
    csv = opened.csv
    if csv is None:
        return job
    return replace(
        job,
        csv_encoding=csv.encoding,
        csv_delimiter=csv.delimiter,
        csv_quote=csv.quote,
        csv_header_line=csv.header_line,
    )


def _is_new(verdicts: Verdicts, index: int, refused: Quarantined) -> bool:
    """Tell whether a row was put into quarantine by this very import: the same file may have done it before."""
    return verdicts[index].quarantine_id == refused.quarantine_id
