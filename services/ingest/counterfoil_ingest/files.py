"""Read files as rows of JSON: Parquet, CSV and JSON lines, converted a column at a time.

Every reader yields rows in the order of the file; their numbers begin at 1 and never depend on how a file is cut into
batches, since a row's record id is made of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from counterfoil_ingest import json_columns, validation
from counterfoil_ingest.csv_values import csv_column
from counterfoil_ingest.entities import MAX_DEPTH, MAX_RECORD_BYTES, Finding
from counterfoil_ingest.json_columns import Array, JsonColumn
from counterfoil_ingest.json_lines import FlatLines, flat_lines
from counterfoil_ingest.parquet_values import parquet_column
from counterfoil_ingest.registry import ColumnType

BATCH_ROWS = 10_000
_BATCH_BYTES = 16 << 20
_BATCH_CELLS = 1 << 20
_LARGE_BYTES = 256 << 20  # what decoding a batch may take at the worst
_CSV_BLOCK = 8 << 20  # of text; also the longest row that can be read
_BOM = b"\xef\xbb\xbf"

Types = Mapping[str, ColumnType]


class FileUnreadableError(Exception):
    """A file cannot be read any further; `reason` is stable, the message says what to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How the text of a CSV file is to be read; the header is in a line from 1 on."""

    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    header_line: int = 1
    decimal: str = ""
    """The sign before decimals, where numbers are as people write them; "" = as programs do."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a file, the first of them with the number `first`; indexes count from it.

    `datas` is each row as JSON text in one line, or its bytes when it is `broken`. A file of columns shows its rows
    by `columns` as well, one of JSON lines by their parsed `values`.
    """

    first: int
    datas: Sequence[bytes]
    broken: Mapping[int, Finding]
    columns: Mapping[str, JsonColumn] | None = None
    values: Sequence[Any] = ()
    apart: Sequence[int] = ()
    """The rows that `columns` do not show."""
    datasets: Sequence[str] = ()
    """Where each row goes; empty = all to the dataset of the import."""
    ids: Sequence[str] = ()
    """Each row's record id; empty = made of its number."""
    origins: Sequence[bytes] = ()
    """What each row was in the file, where a mapping made another of it."""


Batches = Iterator[Rows]
_RFC_4180 = CsvDialect()
_LEFT_OPEN = Finding(
    "CSV_QUOTE_OPEN", "$", "A quote is never closed, so the row took in the rest of the file: mend and import that."
)


def read_parquet(path: Path, types: Types, *, skip: int) -> Batches:
    """Yield the rows of a Parquet file after the first `skip`; raise FileUnreadableError."""
    try:
        parquet = pq.ParquetFile(path, read_dictionary=_repeating(path))
        _refuse_repeated(parquet.schema_arrow.names)
        number = 0
        for group in range(parquet.num_row_groups):
            metadata = parquet.metadata.row_group(group)
            if number + metadata.num_rows <= skip:
                number += metadata.num_rows
                continue
            for batch in parquet.iter_batches(batch_size=_rows_at_once(metadata), row_groups=[group]):
                fresh = batch.slice(max(0, min(batch.num_rows, skip - number)))
                number += batch.num_rows - fresh.num_rows
                for piece in _pieces(fresh):
                    names = piece.schema.names
                    columns = {
                        name: parquet_column(array, types.get(name))
                        for name, array in zip(names, piece.columns, strict=True)
                    }
                    yield Rows(number + 1, json_columns.lines(columns, piece.num_rows), {}, columns)
                    number += piece.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error, "Parquet") from error


def read_csv(path: Path, types: Types, *, skip: int, dialect: CsvDialect = _RFC_4180) -> Batches:
    """Yield the rows of a CSV file after the first `skip`; a row of another width is quarantined on its own."""
    broken: dict[int, pv.InvalidRow] = {}

    def keep(row: pv.InvalidRow) -> Literal["skip"]:
        if row.number is not None:  # it is, without threads; the header is in a row as well
            broken[row.number - dialect.header_line] = row
        return "skip"

    try:
        names = _csv_header(path, dialect)
        reader = pv.open_csv(
            path,
            read_options=_read_options(dialect),
            parse_options=_parse_options(dialect, keep),
            convert_options=pv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        number = 1
        for batch in reader:
            for piece in _pieces(batch.rename_columns(list(map(str.strip, names)))):
                places = _places(number, piece.num_rows, broken)
                for start in range(0, len(places), BATCH_ROWS):
                    some = places[start : start + BATCH_ROWS]
                    left_out = max(0, min(len(some), skip + 1 - number))
                    if left_out < len(some):
                        rows = _csv_rows(piece, types, number + left_out, some[left_out:], broken, dialect=dialect)
                        if start + len(some) == len(places) and _ends_open(path, piece, dialect):
                            rows = replace(rows, broken={**rows.broken, len(rows.datas) - 1: _LEFT_OPEN})
                        yield rows
                    number += len(some)
                for done in [each for each in broken if each < number]:
                    del broken[done]
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise _unreadable(error, "CSV") from error


def read_jsonl(path: Path, types: Types, *, skip: int) -> Batches:
    """Yield the lines of a JSONL file after the first `skip`; blank lines do not count, a bad one is quarantined."""
    number = 1
    flat: FlatLines | None = None
    with path.open("rb") as stream:
        for texts in texts_of(stream):
            if number == 1:
                flat = flat_lines(texts[0], types)
            left_out = max(0, min(len(texts), skip + 1 - number))
            number += left_out
            for start in range(left_out, len(texts), BATCH_ROWS):
                some = texts[start : start + BATCH_ROWS]
                rows = _flat_rows(some, number, flat) if flat else None
                if rows is None:  # nor will the rest of the file be as its first line is
                    flat, rows = None, _json_rows(some, number)
                yield rows
                number += len(some)


def count_rows(path: Path, kind: str) -> int:
    """Return how many rows a file has: exactly for Parquet, by its lines for the others (quoted newlines count)."""
    if kind == "PARQUET":
        try:
            return int(pq.read_metadata(path).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(error, "Parquet") from error
    lines, last = 0, b""
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    lines += last not in (b"", b"\n")
    return max(0, lines - 1) if kind == "CSV" else lines


def _repeating(path: Path) -> list[str]:
    """Return the columns whose values a Parquet file keeps once, however often they occur, so that they are read so.

    A megabyte of a file that names one long text a million times would else need a terabyte of memory.
    """
    metadata = pq.read_metadata(path)
    found = []
    for column in range(metadata.num_columns):
        chunks = [metadata.row_group(group).column(column) for group in range(metadata.num_row_groups)]
        if any(
            each.physical_type == "BYTE_ARRAY"
            and each.has_dictionary_page
            and each.total_uncompressed_size * BATCH_ROWS > _LARGE_BYTES
            for each in chunks
        ):
            found.append(chunks[0].path_in_schema)
    return found


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """Return how many rows of a group are decoded together, so that neither long nor wide ones fill the memory."""
    by_size = _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
    return max(1, min(BATCH_ROWS, by_size, _BATCH_CELLS // max(1, group.num_columns)))


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch into pieces of a size that is worked on at once; one without rows stays one."""
    step = max(1, min(BATCH_ROWS, _BATCH_CELLS // max(1, batch.num_columns)))
    sizes = sum((_lengths(array) for array in batch.columns), start=np.zeros(batch.num_rows, np.int64))
    ends = np.cumsum(sizes)
    start = 0
    while start < batch.num_rows or batch.num_rows == 0:
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + _BATCH_BYTES, "right")) - start
        piece = batch.slice(start, max(1, min(step, fitting)))
        yield piece
        if batch.num_rows == 0:
            return
        start += piece.num_rows


def _lengths(array: Array) -> Any:
    """Return how long the texts of a column are; 0 for what has no length."""
    if pa.types.is_dictionary(array.type):
        return _lengths(array.dictionary)[array.indices.fill_null(0).to_numpy()] if len(array.dictionary) else 0
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_binary(array.type):
        lengths: Array = pc.binary_length(array)
        return lengths.fill_null(0).to_numpy()
    return np.zeros(len(array), np.int64)


def _places(number: int, good: int, broken: Mapping[int, pv.InvalidRow]) -> list[int]:
    """Return where the rows from `number` on come from: the index of a good row, or -1 for a broken one.

    The broken ones behind the last good one are among them.
    """
    if not broken:
        return list(range(good))
    places = []
    for index in range(good):
        while number in broken:
            places.append(-1)
            number += 1
        places.append(index)
        number += 1
    while number in broken:
        places.append(-1)
        number += 1
    return places


def _csv_rows(
    piece: pa.RecordBatch,
    types: Types,
    first: int,
    places: Sequence[int],
    broken: Mapping[int, pv.InvalidRow],
    *,
    dialect: CsvDialect,
) -> Rows:
    """Return the rows at some places of a piece, from the number `first` on."""
    if len(places) == piece.num_rows and -1 not in places:
        texts = piece.columns
    else:
        indices = pa.array([None if each < 0 else each for each in places], pa.int64())
        texts = [array.take(indices) for array in piece.columns]
    columns = {
        name: csv_column(array, types.get(name), dialect.decimal)
        for name, array in zip(piece.schema.names, texts, strict=True)
    }
    datas = json_columns.lines(columns, len(places))
    findings = {}
    for index in [index for index, place in enumerate(places) if place < 0]:
        row = broken[first + index]
        detail = (
            f"The row has {row.actual_columns} fields, the header has {row.expected_columns}: look for a stray quote."
        )
        findings[index] = Finding("CSV_ROW_WIDTH", "$", detail)
        datas[index] = row.text.encode()
    return Rows(first, datas, findings, columns)


def _csv_header(path: Path, dialect: CsvDialect) -> list[str]:
    """Return the names of the header line; raise FileUnreadableError when it names a column twice."""
    parsing = _parse_options(dialect, lambda _: "skip")
    with pv.open_csv(path, read_options=_read_options(dialect), parse_options=parsing) as reader:
        names: list[str] = reader.schema.names
    _refuse_repeated(list(map(str.strip, names)))
    return names


def _ends_open(path: Path, piece: pa.RecordBatch, dialect: CsvDialect) -> bool:
    """Tell whether the last value of a piece goes to the end of the file because nothing closes its quote."""
    text = piece.column(-1)[-1].as_py() if piece.num_rows else None
    if not text:
        return False
    written = dialect.quote + text.replace(dialect.quote, dialect.quote * 2)
    encodings = ("utf-16-le", "utf-16-be") if dialect.encoding == "utf-16" else (dialect.encoding,)
    ends = tuple(written.encode(each) for each in encodings)
    with path.open("rb") as stream:
        stream.seek(-min(path.stat().st_size, len(ends[0])), os.SEEK_END)
        return stream.read().endswith(ends)


def _read_options(dialect: CsvDialect) -> pv.ReadOptions:
    return pv.ReadOptions(
        use_threads=False, block_size=_CSV_BLOCK, skip_rows=dialect.header_line - 1, encoding=dialect.encoding
    )


def _parse_options(dialect: CsvDialect, keep: Callable[[pv.InvalidRow], Literal["skip", "error"]]) -> pv.ParseOptions:
    return pv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quote,
        newlines_in_values=True,
        invalid_row_handler=keep,
    )


def _refuse_repeated(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FileUnreadableError("COLUMN_REPEATED", f"The file names a column twice: {', '.join(repeated)}.")


def _unreadable(error: Exception, kind: str) -> FileUnreadableError:
    text = _first_line(error)
    if isinstance(error, UnicodeError) or "UTF8" in text or "codec can't decode" in text:
        return FileUnreadableError(
            "BAD_ENCODING", "The file is not in its encoding. Save it as UTF-8 and upload it again."
        )
    return FileUnreadableError(
        "FILE_UNREADABLE", f"The file is no readable {kind} file ({text}). Mend it and upload it again."
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def texts_of(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Yield lines that are not blank, trimmed; of one longer than a record may be only enough to see that."""
    if stream.read(len(_BOM)) != _BOM:
        stream.seek(0)
    rest = b""
    while chunk := stream.read(_BATCH_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_RECORD_BYTES:
            lines.append(rest[: MAX_RECORD_BYTES + 1])
            rest = _past_line(stream)
        texts = [text for line in lines if (text := line.strip())]
        if texts:
            yield texts
    if text := rest.strip():
        yield [text]


def _past_line(stream: BinaryIO) -> bytes:
    """Read to the end of a line; return what was read beyond it."""
    while chunk := stream.read(_BATCH_BYTES):
        _, end, rest = chunk.partition(b"\n")
        if end:
            return rest
    return b""


def _flat_rows(texts: list[bytes], first: int, flat: FlatLines) -> Rows | None:
    """Return lines by columns, but for those that are written otherwise; None when these are the most."""
    columns = flat.columns(texts) if max(map(len, texts)) <= MAX_RECORD_BYTES else None
    if columns is None:
        return None
    datas = json_columns.lines(columns, len(texts))
    alike = json_columns.lines(columns, len(texts), spaced=True) if flat.spaced else datas
    apart = [index for index, same in enumerate(map(eq, alike, texts)) if not same]
    if len(apart) > len(texts) // 2:
        return None
    broken = {}
    for index in apart:
        datas[index], _, finding = json_row(texts[index])
        if finding is not None:
            broken[index] = finding
    return Rows(first, datas, broken, columns, apart=apart)


def _json_rows(texts: list[bytes], first: int) -> Rows:
    """Return lines as they are stored, with their values."""
    try:
        if max(map(len, texts)) > MAX_RECORD_BYTES or _may_nest_too_deep(texts):
            raise ValueError("to be told line by line")
        values = list(map(orjson.loads, texts))
    except ValueError:
        rows = list(map(json_row, texts))
        broken = {index: finding for index, (_, _, finding) in enumerate(rows) if finding}
        return Rows(first, [row[0] for row in rows], broken, values=[row[1] for row in rows])
    # Written anew, so that what is stored is what was checked: of a key that comes twice, readers differ on which wins.
    return Rows(first, list(map(orjson.dumps, values)), {}, values=values)


def _may_nest_too_deep(texts: Sequence[bytes]) -> bool:
    return max(text.count(b"{") + text.count(b"[") for text in texts) > MAX_DEPTH


def json_row(text: bytes) -> tuple[bytes, Any, Finding | None]:
    """Return a line as it is stored, its value, and what keeps it from being a record."""
    if len(text) > MAX_RECORD_BYTES:
        return text[: MAX_RECORD_BYTES + 1], None, validation.too_large()
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text, None, validation.not_json()
    if validation.nests_too_deep(text, value):
        return text, None, validation.too_deep()
    return orjson.dumps(value), value, None
