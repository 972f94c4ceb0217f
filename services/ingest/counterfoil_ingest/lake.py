"""The lake: a consumer of the log that keeps every workspace's records as Delta tables and catches up when asked."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache, partial
from typing import Any, Protocol, TypeVar

import msgspec
import pyarrow as pa
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.health import HEALTH
from deltalake.exceptions import DeltaError

from counterfoil_ingest import blocks
from counterfoil_ingest.arrow import PARTITION, SYSTEM_SCHEMA, LakeColumn, LakeRecords, extras_of, read_lines
from counterfoil_ingest.delta import CURSOR_FILE, LakeTable, WorkspaceTables
from counterfoil_ingest.errors import BlockUnreadableError
from counterfoil_ingest.lake_places import LakePlace
from counterfoil_ingest.metrics import LAKE_BEHIND, LAKE_BEHIND_SECONDS
from counterfoil_ingest.openlineage import LakeShape
from counterfoil_ingest.read_errors import LakeBehindError, LakeUnavailableError
from counterfoil_ingest.registry import ColumnType, Compiled
from counterfoil_ingest.store import Log

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

COMMIT_SECONDS = 5.0
COMMIT_ROWS = 50_000
_READ_BYTES = 512 << 10  # of compressed blocks: some ten thousand records
_TICK_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_SETTLE_SECONDS = 3600.0
_EVENT_TIME = "timestamp"  # of events; of another dataset it is the first column that is a moment
_FAILURES = (DeltaError, OSError, pa.ArrowException)
"""What goes wrong with the lake's disk or storage."""
_RESERVED = {name.lower() for name in SYSTEM_SCHEMA.names}
_LOOKED_AT = 200  # records of a block that show which undeclared properties there are
_MOST_LEARNT = 1_000
_COLUMN_NAME = re.compile(r"[^\s,;{}()=`\"\\/.]{1,255}\Z")  # what Parquet, Delta and SQL engines agree to read


class ContractSource(Protocol):
    """Where the lake learns what columns a dataset has."""

    def in_force(self, workspace: str, dataset: str) -> Compiled | None:
        """Return what is known to be in force, without asking."""
        ...

    async def find(self, workspace: str, dataset: str) -> Compiled | None:
        """Return what is in force, asking when not known; raise ContractsUnavailableError."""
        ...


def lake_columns(compiled: Compiled | None) -> list[LakeColumn]:
    """Return the columns a lake table has for a contract: none when there is no contract.

    A property that no table can have as a column (a reserved or unusual name) is left to `_extra`.
    """
    columns: dict[str, LakeColumn] = {}
    for column in compiled.columns if compiled else ():
        key = column.name.lower()
        if key not in _RESERVED and key not in columns and _COLUMN_NAME.match(column.name):
            columns[key] = LakeColumn(column.name, column.type, column.default_timezone)
    return list(columns.values())


@dataclass(slots=True)
class _Progress:
    """What the loop knows of one workspace; `tables` is used by the lake's thread only.

    `complete` is when the lake was last seen to have every record of the log.
    """

    tables: WorkspaceTables | None = None
    cursor: int = 0
    visited: float = 0.0
    complete: float = field(default_factory=time.monotonic)
    retry_at: float = 0.0
    settle_at: float = 0.0
    failure: str = ""
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _Read:
    """Records read from the log for one round, by dataset, and the offset they lead to."""

    until: int
    records: dict[str, LakeRecords]


class Lake:
    """Delta tables at `place`, <workspace>/<dataset>/, written behind the log by one thread of its own."""

    def __init__(
        self,
        place: LakePlace,
        log: Log,
        contracts: ContractSource,
        *,
        clock: Clock,
        commit_seconds: float = COMMIT_SECONDS,
        commit_rows: int = COMMIT_ROWS,
        tell: Callable[[str, str, LakeShape], Awaitable[None]] | None = None,
    ) -> None:
        """Take also `tell`: it is awaited before a commit that changes what a workspace's dataset is made of."""
        self._place = place
        self._log = log
        self._contracts = contracts
        self._clock = clock
        self._commit_seconds = commit_seconds
        self._commit_rows = commit_rows
        self._tell = tell
        self._told: dict[tuple[str, str], LakeShape] = {}
        self._progress: dict[str, _Progress] = {}
        self._wake = asyncio.Event()
        self._extras: dict[tuple[LakeColumn, ...], tuple[str, ...]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lake")

    async def run(self) -> None:
        """Follow the log of every workspace: a commit per interval, per `commit_rows` records, or when asked."""
        try:
            with (
                HEALTH.checking("lake", self._problem),
                LAKE_BEHIND.reading(read=self._behind),
                LAKE_BEHIND_SECONDS.reading(read=self._waiting_seconds),
            ):
                await self._follow()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            for workspace in self._log.workspaces():
                progress = self._progress.setdefault(workspace, _Progress())
                if progress.cursor == self._log.head(workspace, PARTITION):
                    progress.complete = time.monotonic()
            due = [name for name in sorted(self._progress) if self._is_due(name, now=loop.time())]
            for workspace in due:
                await self._visit(workspace)
            if not due and not await self._settle():
                await self._pause()

    async def _settle(self) -> bool:
        """Put the files of one day that is over in order, where nothing is more urgent; return whether it did."""
        loop = asyncio.get_running_loop()
        for workspace, progress in self._progress.items():
            if progress.cursor == 0 or loop.time() < progress.settle_at:
                continue
            try:
                async with progress.turn:
                    more = await self._call(partial(self._settle_tables, workspace))
            except _FAILURES as error:
                more, progress.tables = False, None
                _logger.warning(
                    "the lake's files are not put in order", extra={"workspace": workspace, "error": str(error)}
                )
            if not more:
                progress.settle_at = loop.time() + _SETTLE_SECONDS
            return more
        return False

    def _settle_tables(self, workspace: str) -> bool:
        tables = self._tables(workspace)

        def event_time(dataset: str) -> str | None:
            columns = lake_columns(self._contracts.in_force(workspace, dataset))
            times = [column.name for column in columns if column.type is ColumnType.TIMESTAMPTZ]
            return next((name for name in times if name == _EVENT_TIME), times[0] if times else None)

        if tables.settle(event_time, before=self._clock.now().date()):
            return True
        tables.vacuum()
        return False

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(min(_TICK_SECONDS, self._commit_seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass  # time to look whether an interval has passed

    async def flush(self, workspace: str, offset: int, *, within: float) -> None:
        """Return once every record below an exclusive offset is in the lake; raise LakeBehindError after `within` s."""
        progress = self._progress.setdefault(workspace, _Progress())
        if progress.cursor >= offset and (offset == 0 or self._place.below(workspace).has(CURSOR_FILE)):
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        progress.waiting.append((offset, reached))
        self._wake.set()
        try:
            await asyncio.wait_for(reached, within)
        except TimeoutError:
            raise LakeBehindError(
                "The lake has not caught up with the log yet. Try again in a moment.",
                metadata={"offset": str(offset), "reached": str(progress.cursor)},
                retry_after=timedelta(seconds=2),
            ) from None
        finally:
            progress.waiting = [each for each in progress.waiting if each[1] is not reached]

    def waiting_seconds(self, workspace: str) -> float:
        """Return for how long a workspace's oldest record that is not in the lake has waited; 0 = all are in it."""
        progress = self._progress.get(workspace)
        if progress is None or progress.cursor >= self._log.head(workspace, PARTITION):
            return 0.0
        return time.monotonic() - progress.complete

    def _behind(self) -> int:
        heads = ((self._log.head(name, PARTITION), each.cursor) for name, each in self._progress.items())
        return max((head - cursor for head, cursor in heads), default=0)

    def _waiting_seconds(self) -> float:
        now = time.monotonic()
        waiting = (now - p.complete for name, p in self._progress.items() if p.cursor < self._log.head(name, PARTITION))
        return max(waiting, default=0.0)

    def _problem(self) -> str:
        failures = [each.failure for each in self._progress.values() if each.failure]
        if not failures:
            return ""
        return (
            f"records of {len(failures)} workspaces do not get in ({failures[0]}); it is tried again, look for "
            "`lake round failed` in the log, and at the disk"
        )

    async def table(self, workspace: str, dataset: str) -> LakeTable | None:
        """Return a table as it is now, to be read; None when nothing was written to it yet.

        Raises LakeUnavailableError.
        """
        table = await self._view(workspace, dataset)
        if table is not None and self._place.options is not None:
            progress = self._progress.setdefault(workspace, _Progress())
            async with progress.turn:  # an erasure leaves no copy behind that was being made
                try:
                    await asyncio.to_thread(_fetch, self._place.below(workspace), table)
                except OSError as error:
                    raise _unavailable("read", error) from error
        return table

    async def rows_before(self, workspace: str, dataset: str, day: date) -> int:
        """Count the rows of a table that were received before a day; raise LakeUnavailableError."""
        table = await self._view(workspace, dataset)
        return sum(file.rows for file in table.files if file.day < day) if table else 0

    async def _view(self, workspace: str, dataset: str) -> LakeTable | None:
        try:
            return await self._call(lambda: self._tables(workspace).view(dataset))
        except _FAILURES as error:
            raise _unavailable("read", error) from error

    async def erase(self, workspace: str, records: Sequence[range]) -> int:
        """Erase the rows of records that the log has erased, by ranges of offsets; return how many are left: 0.

        A round that has read the log before it was erased ends first. Raises LakeUnavailableError.
        """
        progress = self._progress.setdefault(workspace, _Progress())
        async with progress.turn:
            try:
                return await self._call(lambda: self._tables(workspace).erase(records))
            except _FAILURES as error:
                progress.tables = None
                raise _unavailable("rewritten", error) from error

    def _is_due(self, workspace: str, *, now: float) -> bool:
        progress = self._progress[workspace]
        if now < progress.retry_at:
            return False
        if progress.waiting:
            return True
        behind = self._log.head(workspace, PARTITION) - progress.cursor
        return behind >= self._commit_rows or (behind > 0 and now - progress.visited >= self._commit_seconds)

    async def _visit(self, workspace: str) -> None:
        """Do one round for a workspace and tell those who wait for it."""
        progress = self._progress[workspace]
        loop = asyncio.get_running_loop()
        begun, head = time.monotonic(), self._log.head(workspace, PARTITION)
        try:
            async with progress.turn:
                progress.cursor = await self._round(workspace)
        except (*_FAILURES, BlockUnreadableError, UnavailableError) as error:
            progress.tables = None  # opened afresh: after a failed commit the kept handles may not show what is on disk
            progress.retry_at = loop.time() + _RETRY_SECONDS
            progress.failure = type(error).__name__  # its text may hold what a record holds
            _logger.warning("lake round failed", extra={"workspace": workspace, "error": str(error)})
            return
        progress.visited, progress.failure = loop.time(), ""
        if progress.cursor >= head:
            progress.complete = begun
        for offset, reached in progress.waiting:
            if offset <= progress.cursor and not reached.done():
                reached.set_result(None)
        progress.waiting = [each for each in progress.waiting if not each[1].done()]

    async def _round(self, workspace: str) -> int:
        """Bring a workspace's tables `commit_rows` records further; return the exclusive offset reached."""
        read = await self._call(lambda: self._read(workspace))
        columns = {}
        for dataset, records in read.records.items():
            asked = records.columns is None and records.under_contract()
            columns[dataset] = lake_columns(await self._contracts.find(workspace, dataset) if asked else None)
            if self._tell is not None:
                await self._tell_shape(workspace, records, records.columns or columns[dataset])
        return await self._call(lambda: self._write(workspace, read, columns))

    async def _tell_shape(self, workspace: str, records: LakeRecords, columns: Sequence[LakeColumn]) -> None:
        """Tell a shape that is new to this process: most commits bring the same columns from the same sources."""
        place = (workspace, records.dataset)
        known = self._told.get(place, LakeShape())
        kinds = tuple((column.name, column.type.name) for column in columns)
        shape = LakeShape(kinds or known.columns, known.sources | records.sources)
        if shape != known and self._tell is not None:
            await self._tell(*place, shape)
            self._told[place] = shape

    def _read(self, workspace: str) -> _Read:
        tables = self._tables(workspace)
        until = tables.cursor
        records: dict[str, LakeRecords] = {}
        rows = 0

        @cache
        def columns_of(dataset: str) -> tuple[LakeColumn, ...] | None:
            compiled = self._contracts.in_force(workspace, dataset)
            return tuple(tables.columns(dataset, lake_columns(compiled))) if compiled else None

        while rows < self._commit_rows:
            found = self._log.read(workspace, PARTITION, until, max_bytes=_READ_BYTES)
            for block in found:
                text, dataset = blocks.open_block(block)
                columns = columns_of(dataset)
                lines = read_lines(text, columns, self._extras.get(columns, ())) if columns else None
                typed = lines is not None and all(line.d == dataset for line in lines)
                if lines is None or not typed:
                    lines = blocks.decode_lines(block)
                    self._learn(columns, [line.r for line in lines[:_LOOKED_AT] if line.d == dataset])
                for name, some in _by_dataset(lines).items():
                    wanted = max(until, tables.done(name))
                    fresh = some if some[0].o >= wanted else [line for line in some if line.o >= wanted]
                    if fresh:
                        if name not in records:
                            records[name] = LakeRecords(name, columns_of(name))
                        records[name].add(fresh, block.headers, typed=typed)
                        rows += len(fresh)
                until = block.next_offset
            if not found:
                break
        return _Read(until, records)

    def _learn(self, columns: tuple[LakeColumn, ...] | None, records: list[msgspec.Raw]) -> None:
        """Have the undeclared properties of these records read with their columns from the next block on."""
        if columns is None:
            return
        known = self._extras.pop(columns, ())
        found = extras_of(records, columns)
        self._extras[columns] = known if found <= set(known) else tuple(sorted(found))
        if len(self._extras) > _MOST_LEARNT:
            del self._extras[next(iter(self._extras))]

    def _write(self, workspace: str, read: _Read, wanted: dict[str, list[LakeColumn]]) -> int:
        tables = self._tables(workspace)
        for dataset, records in read.records.items():
            columns = records.columns or tuple(tables.columns(dataset, wanted[dataset]))
            tables.append(dataset, records.table(columns), columns, until=read.until)
        if read.until > tables.cursor:
            tables.advance(read.until)
        tables.compact()
        return tables.cursor

    def _tables(self, workspace: str) -> WorkspaceTables:
        progress = self._progress.setdefault(workspace, _Progress())
        if progress.tables is None or not progress.tables.intact():
            life = f"{self._log.epoch}/0"  # 0: tables of releases that could not erase say so
            progress.tables = WorkspaceTables(self._place.below(workspace), life=life, partition=PARTITION)
        return progress.tables

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _unavailable(done: str, error: Exception) -> LakeUnavailableError:
    """Return what callers are told; where the lake lies is in the error's text, which is for the log only."""
    _logger.warning("lake could not be used", extra={"work": done, "error": str(error)})
    return LakeUnavailableError(
        f"The lake could not be {done}. Try again, and look at ingest's log, its disk and the lake's storage.",
        retry_after=timedelta(seconds=_RETRY_SECONDS),
    )


def _fetch(place: LakePlace, table: LakeTable) -> None:
    """Have the files of a table where they are read from."""
    for file in table.files:
        place.fetch(table.dataset, file.name)


def _by_dataset(lines: list[Any]) -> dict[str, list[Any]]:
    """Return the lines of a block by their dataset; most blocks have one."""
    if len({line.d for line in lines}) == 1:
        return {lines[0].d: lines}
    found: dict[str, list[Any]] = {}
    for line in lines:
        found.setdefault(line.d, []).append(line)
    return found
