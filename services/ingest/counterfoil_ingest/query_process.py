"""The process that runs queries, one after the other: `python -m counterfoil_ingest.query_process MEMORY`.

It has no secrets in its environment, writes no files, and may have about twice the memory that DuckDB is given: what
DuckDB does not count (a text of gigabytes, a list of a billion) ends the query or this process, never ingest. Messages
are those of `counterfoil_chassis.apart`; one that says a `size` is followed by so many bytes. It ends by itself when a
query has cost it more processor time than there is for it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, BinaryIO, Final

import duckdb
import pyarrow as pa
from counterfoil_chassis.apart import allow, be_silent, read, ready, write

from counterfoil_ingest import sql_guard
from counterfoil_ingest.arrow import DAY, Chunk
from counterfoil_ingest.json_rows import rows_json
from counterfoil_ingest.query_errors import NotReplayableError, ResultTooLargeError
from counterfoil_ingest.query_results import Digest, Form, arrow_pieces, chunk_pieces, csv_pieces
from counterfoil_ingest.read_errors import QueryTooLargeError, SqlInvalidError
from counterfoil_ingest.sql_text import literal, quoted

_BATCH_ROWS: Final = 2048  # as many as DuckDB computes at once: no more than that is ever held of a streamed result
_BESIDE: Final = 256 << 20  # bytes that Python and Arrow may have beside twice DuckDB's
_UNITS: Final = {"MB": 1 << 20, "GB": 1 << 30}
_CONFIG: Final = {
    "threads": "1",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def connect() -> duckdb.DuckDBPyConnection:
    """Open a DuckDB for one query; close it."""
    return duckdb.connect(":memory:", config=dict(_CONFIG))


def lock_down(
    connection: duckdb.DuckDBPyConnection, views: Mapping[str, str], files: Sequence[str], *, memory: str
) -> None:
    """Show each dataset as a view of its files, and lock everything else away."""
    paths = ", ".join(map(literal, files))
    for statement in (
        "SET TimeZone = 'UTC'",
        f"SET memory_limit = {literal(memory)}",
        "SET temp_directory = ''",
        f"SET allowed_paths = [{paths}]",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
        *(f"CREATE VIEW {quoted(name)} AS {select}" for name, select in views.items()),
    ):
        connection.execute(statement).fetchall()


class Query:
    """One query in a DuckDB of its own."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Look through the SQL; raise SqlInvalidError."""
        self._connection = connection
        self._sql = sql
        self._tree = sql_guard.parsed(connection, sql)
        self.reads = sql_guard.tables_of(connection, self._tree)
        self.defines = sql_guard.defined_by(self._tree)

    def rows_of(self, name: str) -> dict[str, int]:
        """Return how many rows a dataset's view has, by the contract version they were validated under."""
        sql = f"SELECT coalesce(_contract_version, ''), count(*) FROM {quoted(name)} GROUP BY 1"  # noqa: S608
        return dict(self._connection.execute(sql).fetchall())

    def relation(self, values: Sequence[Any], *, max_rows: int) -> duckdb.DuckDBPyRelation:
        """Return the SELECT, with one row more than may be shown; 0 = without a limit."""
        relation = self._connection.sql(self._sql, params=list(values))
        return relation.limit(max_rows + 1) if max_rows else relation

    def require_replayable(self) -> None:
        """Raise NotReplayableError when the SELECT calls what differs from time to time."""
        if called := sql_guard.volatile_in(self._connection, self._tree):
            raise NotReplayableError(
                f"`{called}` gives something else each time, so the result could never be made again. Pass the value "
                "as a parameter, or ask for no receipt."
            )


class _Rows:
    """The batches of a result, counted, measured and, for a receipt, hashed as they pass."""

    def __init__(self, relation: duckdb.DuckDBPyRelation, asked: dict[str, Any]) -> None:
        self.types = [str(each) for each in relation.types]
        self.columns = list(zip(relation.columns, self.types, strict=True))
        self.digest = Digest(self.columns) if asked["receipt"] else None
        self.rows = 0
        self.truncated = False
        self._reader = relation.to_arrow_reader(_BATCH_ROWS)
        self.schema = self._reader.schema
        self._max_rows, self._max_bytes = asked["max_rows"], asked["max_bytes"]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        size = 0
        for batch in self._reader:
            room = self._max_rows - self.rows if self._max_rows else batch.num_rows
            self.truncated = batch.num_rows > room
            shown = batch.slice(0, room)
            size += shown.nbytes
            if size > self._max_bytes:
                raise ResultTooLargeError(
                    f"The rows are larger than {self._max_bytes} bytes. Select fewer columns or rows, or aggregate; "
                    "CSV and Arrow may be larger than JSON."
                )
            self.rows += shown.num_rows
            if self.digest is not None:
                self.digest.add(pa.Table.from_batches([shown]))
            yield shown
            if self.truncated:
                return

    def pieces(self, form: Form) -> Iterator[Chunk]:
        """Yield the rows as they are asked for."""
        match form:
            case Form.JSON:
                table = pa.Table.from_batches(iter(self), self.schema)
                yield Chunk(rows_json(table, self.types), table.num_rows)
            case Form.CHUNKS:
                yield from chunk_pieces(self, self.schema)
            case Form.ARROW:
                yield from arrow_pieces(self, self.schema)
            case Form.CSV:
                yield from csv_pieces(self, self.schema, self.types)


def answer(opened: Mapping[str, Any], incoming: BinaryIO, outgoing: BinaryIO, *, memory: str) -> bool:
    """Answer the query that a message has opened; return False when this process has to end after it."""
    try:
        with closing(connect()) as connection:
            query = Query(connection, opened["sql"])
            if opened["receipt"]:
                query.require_replayable()
            write(outgoing, {"reads": sorted(query.reads), "defines": sorted(query.defines)})
            asked = read(incoming)
            if asked is None:
                return False
            lock_down(connection, asked["views"], asked["files"], memory=memory)
            _run(query, asked, outgoing)
    except (SqlInvalidError, NotReplayableError, ResultTooLargeError) as error:
        write(outgoing, {"refused": error.reason, "message": error.message})
    except Exception as error:  # noqa: BLE001 - whatever the SQL brings about is told, and ends nothing but the query
        return _refuse(error, outgoing, memory=memory, hidden=opened["hidden"])
    return True


def _run(query: Query, asked: dict[str, Any], outgoing: BinaryIO) -> None:
    versions = {name: query.rows_of(name) for name in asked["views"]} if asked["receipt"] else {}
    rows = _Rows(query.relation(asked["values"], max_rows=asked["max_rows"]), asked)
    write(outgoing, {"columns": rows.columns, "versions": versions})
    for piece in rows.pieces(Form(asked["form"])):
        write(outgoing, {"rows": piece.rows, "size": len(piece.data)}, piece.data)
    sha256 = rows.digest.sha256() if rows.digest else ""
    write(outgoing, {"end": True, "rows": rows.rows, "truncated": rows.truncated, "sha256": sha256})


def _refuse(error: Exception, outgoing: BinaryIO, *, memory: str, hidden: str) -> bool:
    """Tell what became of a query without the lake's paths; return whether this process may go on."""
    text = str(error)
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException) or "Out of Memory Error" in text:
        told = f"The query needs more than {memory} of memory. Aggregate earlier, or select less."
        write(outgoing, {"refused": QueryTooLargeError.reason, "message": told, "ends": True})
        return False
    if not isinstance(error, duckdb.Error | pa.ArrowException | OSError | RuntimeError | ValueError | OverflowError):
        raise error
    ends = isinstance(error, duckdb.FatalException | duckdb.InternalException)
    message: dict[str, Any] = {"refused": SqlInvalidError.reason, "message": text[:2000], "ends": ends}
    if hidden in text or DAY + "=" in text or ".parquet" in text:
        message |= {"message": "The query failed while reading the lake.", "log": text}
    write(outgoing, message)
    return not ends


def _confine(memory: str) -> None:
    most = 2 * int(memory[:-2]) * _UNITS[memory[-2:]] + _BESIDE
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer queries until there are no more."""
    memory = sys.argv[1]
    _confine(memory)
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    be_silent()
    os.dup2(2, 1)  # whatever a library prints is not taken for an answer
    ready(outgoing)
    while (opened := read(incoming)) is not None:
        allow(opened["seconds"])
        if not answer(opened, incoming, outgoing, memory=memory):
            return


if __name__ == "__main__":
    main()
