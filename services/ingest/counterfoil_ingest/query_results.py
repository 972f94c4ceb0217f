"""Results of queries as bytes: JSON, Arrow or CSV, and the hash by which a receipt knows them."""

from __future__ import annotations

import enum
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa
from counterfoil_chassis.canonical import canonical_json, rounded

from counterfoil_ingest.arrow import Chunk, chunks
from counterfoil_ingest.json_rows import plain, rows_json, values_of

_PIECE: Final = 1 << 20
_EXACT: Final = range(-(1 << 53) + 1, 1 << 53)  # the integers that RFC 8785 takes


class Form(enum.StrEnum):
    """How the rows of a result are written."""

    JSON = "json"
    CHUNKS = "chunks"
    ARROW = "arrow"
    CSV = "csv"


def chunk_pieces(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[Chunk]:
    """Yield rows as complete Arrow streams, each compressed as a whole."""
    return chunks((pa.Table.from_batches([batch]) for batch in batches), schema)


def arrow_pieces(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[Chunk]:
    """Yield the pieces of one Arrow stream."""
    held = io.BytesIO()
    writer = pa.ipc.new_stream(held, schema)
    rows = 0
    for batch in batches:
        writer.write_batch(batch)
        rows += batch.num_rows
        if held.tell() >= _PIECE:
            yield from _cut(held, rows)
            rows = 0
    writer.close()
    yield from _cut(held, rows)


def csv_pieces(batches: Iterable[pa.RecordBatch], schema: pa.Schema, types: Sequence[str]) -> Iterator[Chunk]:
    """Yield the pieces of one CSV text (RFC 4180) with a header: values as in JSON, NULL is empty, an empty text ""."""
    held = io.BytesIO()
    held.write((",".join(_csv_value(name) for name in schema.names) + "\r\n").encode())
    rows = 0
    for batch in batches:
        columns = [map(_csv_value, each) for each in values_of(pa.Table.from_batches([batch]), types)]
        for row in zip(*columns, strict=True):
            held.write((",".join(row) + "\r\n").encode())
        rows += batch.num_rows
        if held.tell() >= _PIECE:
            yield from _cut(held, rows)
            rows = 0
    yield from _cut(held, rows)


class Digest:
    """SHA-256 of a result as canonical JSON: its columns, and its rows in their order."""

    def __init__(self, columns: Sequence[tuple[str, str]]) -> None:
        head = canonical_json({"columns": [list(each) for each in columns], "rows": []})
        self._hash = hashlib.sha256(head.removesuffix(b"]}"))
        self._types = [kind for _, kind in columns]
        self._empty = True

    def add(self, table: pa.Table) -> None:
        """Take rows in."""
        rows = orjson.loads(rows_json(table, self._types))
        if rows:
            self._hash.update((b"" if self._empty else b",") + canonical_json(_exact(rounded(rows)))[1:-1])
            self._empty = False

    def sha256(self) -> str:
        """Return the hash of all that was taken in, lower-case hex."""
        whole = self._hash.copy()
        whole.update(b"]}")
        return whole.hexdigest()


def _exact(value: Any) -> Any:
    """Return a JSON value whose integers are none that RFC 8785 would round: larger ones are texts."""
    if isinstance(value, list):
        return [_exact(each) for each in value]
    if isinstance(value, dict):
        return {name: _exact(each) for name, each in value.items()}
    return str(value) if isinstance(value, int) and value not in _EXACT else value


def _csv_value(value: Any) -> str:
    text = value if isinstance(value, str) else _written(value)
    if text is None:
        return ""
    return '"' + text.replace('"', '""') + '"' if not text or any(sign in text for sign in ',"\r\n') else text


def _written(value: Any) -> str | None:
    """Return a value as JSON has it; None is NULL, which NaN and infinity are there."""
    text = orjson.dumps(value, default=plain, option=orjson.OPT_UTC_Z).decode()
    if text == "null":
        return None
    return str(orjson.loads(text)) if text.startswith('"') else text


def _cut(held: io.BytesIO, rows: int) -> Iterator[Chunk]:
    data = held.getvalue()
    held.seek(0)
    held.truncate()
    for start in range(0, max(1, len(data)), _PIECE):
        yield Chunk(data[start : start + _PIECE], rows if start == 0 else 0)
