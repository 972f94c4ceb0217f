"""Read-only SQL over the lake: each query in a DuckDB of its own that can see its datasets' files and nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import orjson
import pyarrow as pa

from counterfoil_ingest import sql_guard
from counterfoil_ingest.arrow import DAY, Chunk, chunks
from counterfoil_ingest.delta import LakeTable
from counterfoil_ingest.json_rows import rows_json
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.read_errors import (
    ParametersInvalidError,
    QueryTimeoutError,
    QueryTooLargeError,
    SqlInvalidError,
)
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.snapshots import Snapshot, Snapshots, known_schema

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

MEMORY = "512MB"
AT_ONCE = 2
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
class _Dataset:
    """What a query sees of one dataset."""

    snapshot: Snapshot
    schema: pa.Schema
    table: LakeTable | None


class Queries:
    """Runs queries of all workspaces, `at_once` at a time, each with one thread and `memory`."""

    def __init__(
        self,
        lake: Lake,
        *,
        snapshots: Snapshots,
        contracts: Contracts,
        folder: Path,
        memory: str = MEMORY,
        at_once: int = AT_ONCE,
    ) -> None:
        self._lake = lake
        self._snapshots = snapshots
        self._contracts = contracts
        self._folder = str(folder)
        self._memory = memory
        self._turn = asyncio.Semaphore(at_once)

    async def run(self, workspace: str, sql: str, parameters: bytes, *, max_rows: int, within: float) -> QueryResult:
        """Return up to `max_rows` rows of one SELECT; raise SqlInvalidError, QueryTimeoutError, QueryTooLargeError."""
        values = parameters_of(parameters)
        async with self._opened(workspace, sql, within=within) as query:
            return await query.call(lambda: query.rows(values, max_rows))

    async def stream(self, workspace: str, sql: str, parameters: bytes, *, within: float) -> AsyncIterator[Chunk]:
        """Yield all rows of one SELECT as chunks; raises as `run`."""
        values = parameters_of(parameters)
        async with self._opened(workspace, sql, within=within) as query:
            reading = await query.call(lambda: query.chunks(values))
            while (chunk := await query.call(lambda: next(reading, None))) is not None:
                yield chunk

    @asynccontextmanager
    async def _opened(self, workspace: str, sql: str, *, within: float) -> AsyncIterator[_Query]:
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        try:
            async with asyncio.timeout_at(end):
                await self._turn.acquire()
        except TimeoutError:
            raise QueryTimeoutError("Other queries kept this one waiting too long. Try again in a moment.") from None
        query = _Query(sql, memory=self._memory, hidden=self._folder)
        timer = loop.call_at(end, query.interrupt)
        try:
            await query.call(query.open)
            datasets = await self._datasets(workspace, query, within=max(0.0, end - loop.time()))
            await query.call(lambda: query.show(datasets))
            yield query
        finally:
            timer.cancel()
            query.interrupt()
            await asyncio.to_thread(query.close)
            self._turn.release()

    async def _datasets(self, workspace: str, query: _Query, *, within: float) -> dict[str, _Dataset]:
        found: dict[str, _Dataset] = {}
        for name in sorted(query.reads):
            compiled = await self._contracts.find(workspace, name)
            snapshot = self._snapshots.at_head(workspace, name)
            await self._lake.flush(workspace, max(snapshot.offsets.values()), within=within)
            table = await self._lake.table(workspace, name)
            if compiled is not None or table is not None:
                found[name] = _Dataset(snapshot, known_schema(compiled, table), table)
            elif name not in query.defines:
                raise SqlInvalidError(f"There is no dataset `{name}`. List the datasets to see their names.")
        return found


class _Query:
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

    def show(self, datasets: dict[str, _Dataset]) -> None:
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


def parameters_of(text: bytes) -> list[Any]:
    """Return the parameters of a JSON array of plain values; raise ParametersInvalidError."""
    try:
        values = orjson.loads(text) if text.strip() else []
    except orjson.JSONDecodeError as error:
        raise ParametersInvalidError(
            f'The parameters are no JSON ({error}). Send an array such as [1, "a"].'
        ) from error
    if not isinstance(values, list) or any(isinstance(value, list | dict) for value in values):
        raise ParametersInvalidError('The parameters must be a JSON array of plain values such as [1, "a"].')
    return values


def _view(dataset: _Dataset) -> str:
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
