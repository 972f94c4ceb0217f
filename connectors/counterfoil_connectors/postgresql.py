"""PostgreSQL: a table or the rows of a query, through ADBC, in Arrow batches as the server's COPY streams them.

With a cursor column, runs read what changed since; without one, every run reads all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import adbc_driver_manager
import orjson
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from counterfoil_connectors.connector import Connector, Parameter, Record, SourceError, Stream, name_of

_BATCH_BYTES = str(4 << 20)
_AGAIN = "interval '5 minutes'"  # a transaction commits later than its rows say


def _streams(given: Mapping[str, str]) -> Sequence[Stream]:
    if bool(given["table"]) == bool(given["query"]):
        raise SourceError("Say either `table` or `query`.")
    if bool(given["cursor"]) != bool(given["key"]):
        raise SourceError("`cursor` and `key` go together: rows that are read again are known by their key.")
    return [Stream(given["stream"], lambda cursor: _read(given, cursor))]


def _read(given: Mapping[str, str], cursor: Any) -> Iterator[Record]:
    try:
        with _connect(given["uri"]) as connection, connection.cursor() as statement:
            statement.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": _BATCH_BYTES})
            statement.execute("SET TRANSACTION READ ONLY")
            statement.execute(_select(given, cursor, statement))
            for batch in statement.fetch_record_batch():
                yield from _records(batch, given)
    except adbc_driver_manager.Error as error:
        raise SourceError(f"PostgreSQL refuses: {str(error).partition('Query was:')[0].strip()}") from error
    except (ValueError, OverflowError) as error:  # infinity, and years that no calendar has
        raise SourceError(f"A value cannot be read ({error}). Read it by a `query` that leaves it out.") from error


def _connect(uri: str) -> dbapi.Connection:
    try:
        return dbapi.connect(uri)
    except adbc_driver_manager.Error as error:  # libpq repeats parts of a URI that it cannot read
        _, server, why = str(error).partition("connection to server")
        said = f"{server}{why}".strip() or "`uri` is no connection URI, as in postgresql://user@host/database."
        raise SourceError(f"PostgreSQL does not answer: {said}") from error


def _select(given: Mapping[str, str], cursor: Any, statement: dbapi.Cursor) -> str:
    if given["table"]:
        rows = ".".join(map(_name, given["table"].split(".")))
    else:
        rows = f"({given['query'].rstrip().rstrip(';')}\n) AS rows_of_query"
    everything = f"SELECT * FROM {rows}"  # noqa: S608 - whoever gives the query holds the password
    if not given["cursor"]:
        return everything
    column = _name(given["cursor"])
    ordered = f" ORDER BY {column} NULLS FIRST"
    if cursor is None:
        return everything + ordered
    # A literal, since a statement with parameters cannot be a COPY, and would be held in memory as a whole.
    literal = "'" + str(cursor).replace("'", "''") + "'"
    statement.execute(f"SELECT {column} FROM {rows} LIMIT 0")  # noqa: S608
    kind = statement.fetch_record_batch().schema.field(0).type
    zoned = "timestamptz" if getattr(kind, "tz", None) else "timestamp"
    since = f"{literal}::{zoned} - {_AGAIN}" if pa.types.is_timestamp(kind) else literal
    return f"{everything} WHERE {column} >= {since} OR {column} IS NULL{ordered}"


def _records(batch: pa.RecordBatch, given: Mapping[str, str]) -> Iterator[Record]:
    names, column = batch.schema.names, given["cursor"]
    keys = given["key"].split(",") if given["key"] else []
    if missing := [each for each in (*keys, column) if each and each not in names]:
        raise SourceError(f"There is no column `{missing[0]}`. There are: {', '.join(names)}.")
    texts = [name for name in names if _is_json_text(batch.schema.field(name))]
    for row in batch.to_pylist():
        cursor = str(row[column]) if column and row[column] is not None else None
        record_id = name_of(*(row[key] for key in keys), cursor) if keys else None
        for name in texts:
            row[name] = None if row[name] in (None, "nan", "inf", "-inf") else orjson.Fragment(row[name])
        yield Record(row, record_id, cursor)


def _is_json_text(field: pa.Field[Any]) -> bool:
    """Tell whether the values of a column are JSON already: numbers with all their digits, and JSON itself."""
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if isinstance(kind, pa.OpaqueType) and (kind.type_name != "numeric" or kind is not field.type):
        raise SourceError(f"JSON has no `{kind.type_name}`: read `{field.name}` by a `query` that casts it to text.")
    if pa.types.is_interval(kind):
        raise SourceError(f"JSON has no interval: read `{field.name}` by a `query` that casts it to text.")
    return isinstance(field.type, pa.OpaqueType | pa.JsonType)


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


POSTGRESQL = Connector(
    (
        Parameter("uri", "How to connect: postgresql://user:password@host:port/database.", secret=True),
        Parameter("stream", "The dataset that the rows go to."),
        Parameter("table", "The table to read, with its schema or without.", ""),
        Parameter("query", "A SELECT to read instead of a table.", ""),
        Parameter("cursor", "The column that grows whenever a row changes; empty = read all rows each time.", ""),
        Parameter("key", "The columns that name a row, separated by commas; with `cursor` only.", ""),
    ),
    _streams,
)
