"""One SQL query in a DuckDB of its own that can see its datasets' files and nothing else.

Only what runs a query imports this module: DuckDB costs a tenth of a second at start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from counterfoil_ingest import sql_guard
from counterfoil_ingest.arrow import DAY, Chunk, chunks
from counterfoil_ingest.delta import LakeTable
from counterfoil_ingest.json_rows import rows_json
from counterfoil_ingest.read_errors import QueryTimeoutError, QueryTooLargeError, SqlInvalidError
from counterfoil_ingest.snapshots import Snapshot

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

_BATCH_ROWS = 16_384
_CONFIG = {
    "threads": "1",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
}


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows as a JSON array of arrays, the (name, SQL type) of each column, and what was read."""

    columns: Sequence[tuple[str, str]]
    rows: bytes
    row_count: int
    truncated: bool
    snapshots: Sequence[Snapshot]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a query sees of one dataset."""

    snapshot: Snapshot
    schema: pa.Schema
    table: LakeTable | None


class Query:
    """One query's DuckDB. All but `interrupt` is called from one thread at a time."""

    def __init__(self, sql: str, *, memory: str, hidden: str) -> None:
        self._sql = sql
        self._memory = memory
        self._hidden = hidden
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._snapshots: list[Snapshot] = []
        self._interrupted = False
        self._busy = threading.Lock()
        self.reads: frozenset[str] = frozenset()
        self.defines: frozenset[str] = frozenset()

    def open(self) -> None:
        """Start DuckDB and look through the SQL."""
        self._connection = duckdb.connect(":memory:", config=dict(_CONFIG))
        self.reads = sql_guard.tables_of(self._connection, self._sql)
        self.defines = sql_guard.defined_by(self._connection, self._sql)

    def show(self, datasets: dict[str, Dataset]) -> None:
        """Show each dataset as a view of its files, then lock everything else away."""
        files = [file.path for each in datasets.values() if each.table for file in each.table.files]
        self._do("SET TimeZone = 'UTC'")
        self._do(f"SET memory_limit = {_text(self._memory)}")
        self._do("SET temp_directory = ''")
        self._do(f"SET allowed_paths = [{', '.join(map(_text, files))}]")
        self._do("SET enable_external_access = false")
        self._do("SET lock_configuration = true")
        for name, each in datasets.items():
            self._do(f"CREATE VIEW {_name(name)} AS {_view(each)}")
            self._snapshots.append(each.snapshot)

    def rows(self, values: Sequence[Any], max_rows: int) -> QueryResult:
        """Run the SELECT and return its first rows."""
        relation = self._open.sql(self._sql, params=list(values)).limit(max_rows + 1)
        types = [str(each) for each in relation.types]
        found = relation.to_arrow_reader(_BATCH_ROWS).read_all()
        shown = found.slice(0, max_rows)
        return QueryResult(
            columns=list(zip(relation.columns, types, strict=True)),
            rows=rows_json(shown, types),
            row_count=shown.num_rows,
            truncated=found.num_rows > max_rows,
            snapshots=self._snapshots,
        )

    def chunks(self, values: Sequence[Any]) -> Iterator[Chunk]:
        """Run the SELECT and return its rows as chunks, drawn as they are computed."""
        reader = self._open.sql(self._sql, params=list(values)).to_arrow_reader(_BATCH_ROWS)
        return chunks((pa.Table.from_batches([batch]) for batch in reader), reader.schema)

    async def call(self, work: Callable[[], _T]) -> _T:
        """Do work in a thread; a failure of DuckDB becomes one of ours, without the lake's paths."""
        try:
            return await asyncio.to_thread(self._guarded, work)
        except duckdb.InterruptException as error:
            raise self._timeout() from error
        except duckdb.OutOfMemoryException as error:
            raise QueryTooLargeError(
                f"The query needs more than {self._memory} of memory. Aggregate earlier, or select less."
            ) from error
        except (duckdb.Error, pa.ArrowException) as error:
            if self._interrupted:
                raise self._timeout() from error
            raise SqlInvalidError(self._told(error)) from error

    def interrupt(self) -> None:
        """Stop what runs, and let nothing more begin; may be called from any thread."""
        self._interrupted = True
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        """Close DuckDB once nothing runs in it any more."""
        with self._busy:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @property
    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise duckdb.InterruptException("closed")
        return self._connection

    def _guarded(self, work: Callable[[], _T]) -> _T:
        with self._busy:
            if self._interrupted:
                raise duckdb.InterruptException("interrupted")
            return work()

    def _do(self, statement: str) -> None:
        self._open.execute(statement).fetchall()

    def _timeout(self) -> QueryTimeoutError:
        return QueryTimeoutError("The query took too long. Select less, or allow it a later deadline.")

    def _told(self, error: Exception) -> str:
        text = str(error)
        if self._hidden in text or DAY + "=" in text or ".parquet" in text:
            _logger.error("query failed on the lake's files", extra={"error": text})
            return "The query failed while reading the lake."
        return text[:2000]


def _view(dataset: Dataset) -> str:
    """Return the SELECT of a dataset: its rows below the snapshot's offsets, with every column there is."""
    files = [_text(file.path) for file in dataset.table.files] if dataset.table else []
    present = set(dataset.table.schema.names) if dataset.table else set()
    shown = ", ".join(
        _name(field.name)
        if files and field.name in present
        else f"NULL::{_SQL_TYPES[field.type]} AS {_name(field.name)}"
        for field in dataset.schema
    )
    if not files:
        return f"SELECT {shown} WHERE false"
    limits = " OR ".join(f"(_partition = {p} AND _offset < {o})" for p, o in dataset.snapshot.offsets.items())
    options = f"union_by_name = true, hive_partitioning = true, hive_types = {{'{DAY}': DATE}}"
    source = f"read_parquet([{', '.join(files)}], {options})"
    return f"SELECT {shown} FROM {source} WHERE {limits}"  # noqa: S608  (names and texts are quoted)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
