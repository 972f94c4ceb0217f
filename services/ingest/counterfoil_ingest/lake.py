"""The lake: a consumer of the log that keeps every workspace's records as Delta tables and catches up when asked.

What is to be done, and when, is decided here; the process that does it is called by `lake_calls`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Protocol

from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.health import HEALTH

from counterfoil_ingest.arrow import PARTITION, SYSTEM_SCHEMA, LakeColumn
from counterfoil_ingest.lake_calls import LakeCalls, LakeFailedError
from counterfoil_ingest.lake_places import LakePlace
from counterfoil_ingest.lake_tables import CURSOR_FILE, LakeTable, columns_of, table_of, told_columns
from counterfoil_ingest.metrics import LAKE_BEHIND, LAKE_BEHIND_SECONDS
from counterfoil_ingest.openlineage import LakeShape
from counterfoil_ingest.read_errors import LakeBehindError, LakeUnavailableError
from counterfoil_ingest.registry import Compiled
from counterfoil_ingest.store import Log

_logger = logging.getLogger(__name__)

COMMIT_SECONDS = 5.0
COMMIT_ROWS = 50_000
_TICK_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_SETTLE_SECONDS = 3600.0
_RESERVED = {name.lower() for name in SYSTEM_SCHEMA.names}
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
    """What the loop knows of one workspace; `complete` is when the lake was last seen to have every record of it."""

    cursor: int = 0
    visited: float = 0.0
    complete: float = field(default_factory=time.monotonic)
    retry_at: float = 0.0
    settle_at: float = 0.0
    failure: str = ""
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Lake:
    """Delta tables at `place`, <workspace>/<dataset>/, written behind the log by who takes the `calls`."""

    def __init__(
        self,
        place: LakePlace,
        log: Log,
        contracts: ContractSource,
        calls: LakeCalls,
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
        self._calls = calls
        self._clock = clock
        self._commit_seconds = commit_seconds
        self._commit_rows = commit_rows
        self._tell = tell
        self._told: dict[tuple[str, str], LakeShape] = {}
        self._progress: dict[str, _Progress] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Follow the log of every workspace: a commit per interval, per `commit_rows` records, or when asked."""
        with (
            HEALTH.checking("lake", self._problem),
            LAKE_BEHIND.reading(read=self._behind),
            LAKE_BEHIND_SECONDS.reading(read=self._waiting_seconds),
        ):
            await self._follow()

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
                    before = self._clock.now().date().isoformat()
                    answer, _ = await self._call("settle", workspace, before=before)
                    more = bool(answer["more"])
            except LakeFailedError as error:
                more = False
                _logger.warning(
                    "the lake's files are not put in order", extra={"workspace": workspace, "error": str(error)}
                )
            if not more:
                progress.settle_at = loop.time() + _SETTLE_SECONDS
            return more
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
            answer, schema = await self._call("view", workspace, dataset=dataset)
        except LakeFailedError as error:
            raise _unavailable("read", error) from error
        return table_of(answer["table"], schema) if answer["table"] else None

    async def erase(self, workspace: str, records: Sequence[range]) -> int:
        """Erase the rows of records that the log has erased, by ranges of offsets; return how many are left: 0.

        A round that has read the log before it was erased ends first. Raises LakeUnavailableError.
        """
        progress = self._progress.setdefault(workspace, _Progress())
        async with progress.turn:
            try:
                places = [(each.start, each.stop) for each in records]
                answer, _ = await self._call("erase", workspace, records=places)
            except LakeFailedError as error:
                raise _unavailable("rewritten", error) from error
        return int(answer["left"])

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
        except (LakeFailedError, OSError, UnavailableError) as error:
            progress.retry_at = loop.time() + _RETRY_SECONDS
            progress.failure = error.kind if isinstance(error, LakeFailedError) else type(error).__name__
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
        head = self._log.head(workspace, PARTITION)
        read, _ = await self._call("read", workspace, head=head, rows=self._commit_rows)
        wanted = {}
        for dataset, found in read["datasets"].items():
            columns = columns_of(found["columns"] or ())
            if found["columns"] is None and found["under_contract"]:
                columns = lake_columns(await self._contracts.find(workspace, dataset))
            wanted[dataset] = told_columns(columns)
            if self._tell is not None:
                await self._tell_shape(workspace, dataset, columns, frozenset(found["sources"]))
        written, _ = await self._call("write", workspace, columns=wanted)
        return int(written["cursor"])

    async def _tell_shape(
        self, workspace: str, dataset: str, columns: Sequence[LakeColumn], sources: frozenset[str]
    ) -> None:
        """Tell a shape that is new to this process: most commits bring the same columns from the same sources."""
        place = (workspace, dataset)
        known = self._told.get(place, LakeShape())
        kinds = tuple((column.name, column.type.name) for column in columns)
        shape = LakeShape(kinds or known.columns, known.sources | sources)
        if shape != known and self._tell is not None:
            await self._tell(*place, shape)
            self._told[place] = shape

    async def _call(self, call: str, workspace: str, **rest: Any) -> tuple[Mapping[str, Any], bytes]:
        def in_force(dataset: str) -> Any:
            compiled = self._contracts.in_force(workspace, dataset)
            return told_columns(lake_columns(compiled)) if compiled else None

        return await self._calls.call({"call": call, "workspace": workspace, **rest}, in_force)


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
