"""The Delta tables of one workspace and how far they have come. All of it blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError

from counterfoil_ingest.arrow import ARROW_TYPES, DAY, EXTRA, RECORD_ID, LakeColumn, schema_of
from counterfoil_ingest.lake_commits import STATISTICS, commit, is_torn
from counterfoil_ingest.lake_erasing import erase_rows
from counterfoil_ingest.lake_places import LakePlace
from counterfoil_ingest.lake_sorting import sort_day
from counterfoil_ingest.lake_tables import CURSOR_FILE, LakeFile, LakeTable
from counterfoil_ingest.registry import ColumnType

_CHECKPOINT_VERSIONS = 100
_CONFIGURATION = {
    # A handle holds the statistics of all files of its table: those of other columns, which nobody here asks for, made
    # a commit of deltalake's to a hundred files take twice as long.
    "delta.dataSkippingStatsColumns": ",".join(STATISTICS),
    "delta.checkpointInterval": str(_CHECKPOINT_VERSIONS),
    "delta.logRetentionDuration": "interval 1 days",
    "delta.enableExpiredLogCleanup": "true",
}
_FILE_BYTES = 64 << 20
_FILE_ROWS = 2_000_000  # rows that compress well are many in few bytes, and to erase one all of its file are in memory
_GROUP_ROWS = 1 << 17  # readers have a group of rows in memory, and leave out those that hold nothing they look for
_SMALL_FILES = 24  # so many small files of one day are made one
_KEEP_REPLACED_HOURS = 1  # a query that began before a compaction still reads the files it replaced


class WorkspaceTables:
    """The tables of one workspace at `place`, for one life of the log.

    Each table's own cursor is a Delta application transaction in the commit that holds the rows, so that a crash
    neither repeats nor skips any. The cursor file says up to where *every* table has come: it only saves reading from
    the start, and when a table has less than the file claims, the log is read from the start.
    """

    def __init__(self, place: LakePlace, *, life: str, partition: int = 0) -> None:
        self._place = place
        self._life = life
        self._app_id = f"log/{life}/{partition}"
        self._tables: dict[str, DeltaTable] = {}
        self._committed: dict[str, int] = {}
        """The last version of a table that was committed past its handle, which is read anew where it is asked."""
        self._done: dict[str, int] = {}
        self._writes: dict[str, int] = {}
        self.cursor = 0
        self._open()

    def _open(self) -> None:
        claimed = self._read_cursor_file()
        if claimed is None or claimed["life"] != self._life:
            claimed = {"life": self._life, "offset": 0, "tables": {}}
        for dataset in self._place.datasets():
            table = self._whole(dataset)
            done = None if table is None else table.transaction_version(self._app_id)
            if table is None or done is None:  # of another life of the log: its offsets mean something else
                self._place.drop(dataset)
                continue
            if not _CONFIGURATION.items() <= table.metadata().configuration.items():
                table.alter.set_table_properties(_CONFIGURATION)  # of an older release
            self._tables[dataset] = table
            self._done[dataset] = done
        complete = all(self._done.get(name, -1) >= offset for name, offset in claimed["tables"].items())
        self.cursor = claimed["offset"] if complete else 0
        self._write_cursor_file()

    def intact(self) -> bool:
        """Say whether the folder is still there; when it was deleted, everything is written again."""
        return self._place.has(CURSOR_FILE)

    def done(self, dataset: str) -> int:
        """Return the exclusive offset up to which a dataset's records are in its table."""
        return max(self._done.get(dataset, 0), self.cursor)

    def columns(self, dataset: str, wanted: Sequence[LakeColumn]) -> list[LakeColumn]:
        """Return the contract's columns with the types that the table has: a column keeps its first type."""
        table = self._tables.get(dataset)
        if table is None:
            return list(wanted)
        fields = {field.name: field.type for field in _schema(table)}
        return [_keep_type(column, fields.get(column.name)) for column in wanted]

    def append(self, dataset: str, rows: pa.Table, columns: Sequence[LakeColumn], *, until: int) -> None:
        """Commit rows and the exclusive offset they bring the table to, together."""
        table = self._tables.get(dataset)
        if table is None:
            table = DeltaTable.create(
                self._place.uri(dataset),
                schema_of(columns),
                partition_by=[DAY],
                storage_options=self._place.options,
                configuration=_CONFIGURATION,
                commit_properties=self._transaction(0),
            )
            self._tables[dataset] = table
        if self._place.options is None:
            self._commit(dataset, rows, columns, until=until)
        else:
            write_deltalake(
                table,
                rows,
                mode="append",
                schema_mode="merge",
                commit_properties=self._transaction(until),
                writer_properties=_writing(columns),
            )
        self._done[dataset] = until
        self._writes[dataset] = self._writes.get(dataset, 0) + 1

    def _commit(self, dataset: str, rows: pa.Table, columns: Sequence[LakeColumn], *, until: int) -> None:
        """Commit rows to a table in a folder, once it has their columns."""
        known = _schema(self._tables[dataset]).names
        fresh = [field for field in rows.schema if field.name not in known]
        if fresh:
            self._handle(dataset).alter.add_columns(Schema.from_arrow(pa.schema(fresh)).fields)
        version = 1 + max(self._tables[dataset].version(), self._committed.get(dataset, 0))
        transaction = (self._app_id, until)
        commit(Path(self._place.uri(dataset)), version, rows, transaction=transaction, unlike=_unlike(columns))
        self._committed[dataset] = version
        if (version + 1) % _CHECKPOINT_VERSIONS == 0:  # at those that deltalake, which commits too, makes them
            table = self._handle(dataset)
            table.create_checkpoint()
            table.cleanup_metadata()

    def _handle(self, dataset: str) -> DeltaTable:
        """Return the handle of a table once it knows every commit."""
        table = self._tables[dataset]
        if table.version() < self._committed.get(dataset, 0):
            table.update_incremental()
        return table

    def advance(self, until: int) -> None:
        """Note that every table has come to an offset."""
        self.cursor = until
        self._write_cursor_file()

    def compact(self) -> None:
        """Make one file of many small ones, where a table was written often enough to have them."""
        for dataset, writes in self._writes.items():
            if writes >= _SMALL_FILES:
                self._compact(self._handle(dataset))
                self._writes[dataset] = 0

    def settle(self, event_time: Callable[[str], str | None], *, before: date) -> bool:
        """Make as few files as can be of one day before another, clustered by event time where they fit into one.

        `event_time` names the column of a dataset that says when something happened, if any. What is replaced is
        deleted when no query can read it any more. Returns whether there was such a day: then there may be another.
        """
        for dataset in self._tables:
            table = self._handle(dataset)
            for day, files in sorted(_days(table).items()):
                if day >= before or files.small < 2:
                    continue
                column = event_time(dataset)
                if column is not None and column in _schema(table).names and files.fit_into_one:
                    sort_day(table, self._place, dataset, day, column=column, schema=_schema(table))
                    return True
                if _merge(table, day, files)["numFilesRemoved"]:
                    return True
        return False

    def vacuum(self) -> None:
        """Delete the files of every table that a compaction replaced, or a crash left, and that nobody reads any more.

        A query that began when they were part of a table has an hour to end.
        """
        for dataset in self._tables:
            table = self._handle(dataset)
            table.vacuum(
                retention_hours=_KEEP_REPLACED_HOURS, dry_run=False, enforce_retention_duration=False, full=True
            )
            present = [action["path"] for action in pa.table(table.get_add_actions(flatten=True)).to_pylist()]
            self._place.forget(dataset, but=present, older_than=_KEEP_REPLACED_HOURS * 3600)

    def erase(self, records: Sequence[range]) -> int:
        """Erase the rows at ranges of offsets from every table and file; return how many are left: 0."""
        left = 0
        for dataset in self._tables:
            left += erase_rows(self._handle(dataset), self._place, dataset, records)
            self._tables[dataset] = self._opened(dataset)  # the old handle knows log entries that are gone
        return left

    def view(self, dataset: str) -> LakeTable | None:
        """Return a table as it is now; None when there is none. Its files may have to be fetched."""
        if dataset not in self._tables:
            return None
        table = self._handle(dataset)
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        files = tuple(_lake_file(action, self._place.path(dataset, action["path"])) for action in actions)
        return LakeTable(dataset, _schema(table), files)

    def _whole(self, dataset: str) -> DeltaTable | None:
        """Return a table; None when a loss of power has torn its log, for then all of it is read again from ours."""
        try:
            return self._opened(dataset)
        except DeltaError:
            if self._place.options is None and is_torn(Path(self._place.uri(dataset))):
                return None
            raise

    def _opened(self, dataset: str) -> DeltaTable:
        return DeltaTable(self._place.uri(dataset), storage_options=self._place.options)

    def _compact(self, table: DeltaTable) -> None:
        crowded = {day: files for day, files in _days(table).items() if files.small >= _SMALL_FILES}
        for day, files in crowded.items():
            _merge(table, day, files)
        if crowded:
            table.vacuum(retention_hours=_KEEP_REPLACED_HOURS, dry_run=False, enforce_retention_duration=False)

    def _transaction(self, until: int) -> CommitProperties:
        return CommitProperties(app_transactions=[Transaction(self._app_id, until)])

    def _read_cursor_file(self) -> dict[str, Any] | None:
        try:
            claimed: dict[str, Any] = orjson.loads(self._place.read(CURSOR_FILE) or b"")
        except orjson.JSONDecodeError:
            return None
        return claimed

    def _write_cursor_file(self) -> None:
        claims: Mapping[str, Any] = {"life": self._life, "offset": self.cursor, "tables": self._done}
        self._place.write(CURSOR_FILE, orjson.dumps(claims))


def _unlike(columns: Sequence[LakeColumn]) -> list[str]:
    """Return the columns whose values, ids and objects, differ from row to row."""
    return [RECORD_ID, EXTRA, *(column.name for column in columns if column.type is ColumnType.JSON)]


def _writing(columns: Sequence[LakeColumn]) -> WriterProperties:
    """Return how deltalake writes files: as `commit` does."""
    plain = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
    named = dict.fromkeys(_unlike(columns), plain)
    return WriterProperties(
        compression="ZSTD", compression_level=1, max_row_group_size=_GROUP_ROWS, column_properties=named
    )


def _schema(table: DeltaTable) -> pa.Schema:
    exported: Any = table.schema().to_arrow()  # of another Arrow library; it hands over by the Arrow C interface
    return pa.schema(exported)


@dataclass(slots=True)
class _Files:
    """The files of one day of receipt: (bytes, rows) of each."""

    each: list[tuple[int, int]] = field(default_factory=list)

    @property
    def target(self) -> int:
        """How many bytes a file may have, so that it has no more than `_FILE_ROWS` wherever its rows come from."""
        least = min((size / rows for size, rows in self.each if rows), default=float(_FILE_BYTES))
        return max(1, min(_FILE_BYTES, int(least * _FILE_ROWS)))

    @property
    def small(self) -> int:
        """How many can be made one with another."""
        target = self.target
        return sum(size < target / 2 for size, _ in self.each)

    @property
    def fit_into_one(self) -> bool:
        """Whether all of them can be one file."""
        return sum(size for size, _ in self.each) <= _FILE_BYTES and sum(rows for _, rows in self.each) <= _FILE_ROWS


def _days(table: DeltaTable) -> dict[date, _Files]:
    """Return a table's files by the day of receipt."""
    found: dict[date, _Files] = {}
    for action in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        of_day = found.setdefault(action[f"partition.{DAY}"], _Files())
        of_day.each.append((action["size_bytes"], action["num_records"]))
    return found


def _merge(table: DeltaTable, day: date, files: _Files) -> dict[str, Any]:
    """Make few files of the small ones of a day; return what was done."""
    here: Any = [(DAY, "=", day.isoformat())]
    return table.optimize.compact(here, target_size=files.target, writer_properties=_writing(()))


def _keep_type(column: LakeColumn, present: pa.DataType | None) -> LakeColumn:
    if present is None or present == ARROW_TYPES[column.type]:
        return column
    kept = next(kind for kind, arrow in ARROW_TYPES.items() if arrow == present and kind is not ColumnType.JSON)
    return LakeColumn(column.name, kept, column.timezone)


def _lake_file(action: Mapping[str, Any], path: Path) -> LakeFile:
    same = action["min._contract_version"] == action["max._contract_version"] and (
        action["null_count._contract_version"] == 0
    )
    return LakeFile(
        name=action["path"],
        path=str(path),
        day=action[f"partition.{DAY}"],
        rows=action["num_records"],
        first_partition=action["min._partition"],
        last_partition=action["max._partition"],
        first_offset=action["min._offset"],
        last_offset=action["max._offset"],
        contract_version=action["min._contract_version"] if same else None,
    )
