"""Follows the log with the Delta tables of every workspace. All of it blocks: it runs in the lake's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Protocol

import msgspec

from counterfoil_ingest import blocks
from counterfoil_ingest.arrow import PARTITION, LakeColumn, LakeRecords, extras_of, read_lines
from counterfoil_ingest.delta import WorkspaceTables
from counterfoil_ingest.entities import Block
from counterfoil_ingest.lake_places import LakePlace
from counterfoil_ingest.lake_tables import LakeTable
from counterfoil_ingest.registry import ColumnType

_READ_BYTES = 512 << 10  # of compressed blocks: some ten thousand records
_EVENT_TIME = "timestamp"  # of events; of another dataset it is the first column that is a moment
_LOOKED_AT = 200  # records of a block that show which undeclared properties there are
_MOST_LEARNT = 1_000

InForce = Callable[[str], Sequence[LakeColumn] | None]
"""Returns the columns of a dataset's contract as far as they are known without asking; None = they are not."""


class Blocks(Protocol):
    """The blocks of the log."""

    def read(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int = 4 << 20) -> list[Block]:
        """Return the next blocks, as `Log.read` does."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    """Records that were read for a workspace's tables, by dataset, and the exclusive offset they lead to."""

    tables: WorkspaceTables
    until: int
    records: Mapping[str, LakeRecords]


class LakeWriter:
    """Writes the tables at `place`, <workspace>/<dataset>/, for one life of the log."""

    def __init__(self, place: LakePlace, log: Blocks, *, epoch: str) -> None:
        self._place = place
        self._log = log
        self._life = f"{epoch}/0"  # 0: tables of releases that could not erase say so
        self._opened: dict[str, WorkspaceTables] = {}
        self._read: _Read | None = None
        self._extras: dict[tuple[LakeColumn, ...], tuple[str, ...]] = {}

    def read(self, workspace: str, in_force: InForce, *, head: int, rows: int) -> Mapping[str, LakeRecords]:
        """Read some `rows` records on from where the lake is, as far as there are any below `head`; `write` takes them.

        Raises BlockUnreadableError, LogUnavailableError, and what the lake's disk or storage fails with.
        """
        self._read = None
        tables = self._tables(workspace)
        until = tables.cursor
        records: dict[str, LakeRecords] = {}
        fresh_rows = 0

        @cache
        def columns_of(dataset: str) -> tuple[LakeColumn, ...] | None:
            known = in_force(dataset)
            return None if known is None else tuple(tables.columns(dataset, known))

        while fresh_rows < rows and until < head:
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
                        fresh_rows += len(fresh)
                until = block.next_offset
            if not found:
                break
        self._read = _Read(tables, until, records)
        return records

    def write(self, workspace: str, wanted: Mapping[str, Sequence[LakeColumn]]) -> int:
        """Commit what was just read of a workspace; return the exclusive offset that all its tables have come to.

        `wanted` are the columns of datasets whose contract was not known when they were read.
        """
        read, self._read = self._read, None
        tables = self._tables(workspace)
        if read is None or read.tables is not tables:
            raise OSError("the tables are not those that were read for: this process or their folder is a new one")
        for dataset, records in read.records.items():
            columns = records.columns or tuple(tables.columns(dataset, wanted.get(dataset, ())))
            tables.append(dataset, records.table(columns), columns, until=read.until)
        if read.until > tables.cursor:
            tables.advance(read.until)
        tables.compact()
        return tables.cursor

    def settle(self, workspace: str, in_force: InForce, *, before: date) -> bool:
        """Put the files of one day before another in order; return whether there was such a day."""

        def event_time(dataset: str) -> str | None:
            times = [column.name for column in in_force(dataset) or () if column.type is ColumnType.TIMESTAMPTZ]
            return next((name for name in times if name == _EVENT_TIME), times[0] if times else None)

        tables = self._tables(workspace)
        if tables.settle(event_time, before=before):
            return True
        tables.vacuum()
        return False

    def erase(self, workspace: str, records: Sequence[range]) -> int:
        """Erase the rows at ranges of offsets; return how many are left: 0."""
        return self._tables(workspace).erase(records)

    def view(self, workspace: str, dataset: str) -> LakeTable | None:
        """Return a table as it is now; None when nothing was written to it yet."""
        return self._tables(workspace).view(dataset)

    def forget(self, workspace: str) -> None:
        """Open a workspace's tables afresh: after a failure the kept handles may not show what is on disk."""
        self._opened.pop(workspace, None)

    def _tables(self, workspace: str) -> WorkspaceTables:
        tables = self._opened.get(workspace)
        if tables is None or not tables.intact():
            tables = WorkspaceTables(self._place.below(workspace), life=self._life, partition=PARTITION)
            self._opened[workspace] = tables
        return tables

    def _learn(self, columns: tuple[LakeColumn, ...] | None, records: list[msgspec.Raw]) -> None:
        """Have the undeclared properties of these records read with their columns from the next block on."""
        if columns is None:
            return
        known = self._extras.pop(columns, ())
        found = extras_of(records, columns)
        self._extras[columns] = known if found <= set(known) else tuple(sorted(found))
        if len(self._extras) > _MOST_LEARNT:
            del self._extras[next(iter(self._extras))]


def _by_dataset(lines: list[Any]) -> dict[str, list[Any]]:
    """Return the lines of a block by their dataset; most blocks have one."""
    if len({line.d for line in lines}) == 1:
        return {lines[0].d: lines}
    found: dict[str, list[Any]] = {}
    for line in lines:
        found.setdefault(line.d, []).append(line)
    return found
