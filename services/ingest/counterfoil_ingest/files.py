"""Read files row by row as records: Parquet, CSV and JSON lines, converted a column at a time.

Every reader yields (row number, candidate) lists in the order of the file; numbers begin at 1 and never depend on how a
file is cut into batches, since a row's record id is made of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq

from counterfoil_ingest import validation
from counterfoil_ingest.csv_values import typed_values
from counterfoil_ingest.entities import MAX_RECORD_BYTES, Candidate, Finding
from counterfoil_ingest.parquet_values import Array, parquet_values
from counterfoil_ingest.registry import ColumnType

BATCH_ROWS = 5_000
_BATCH_BYTES = 16 << 20
_CSV_BLOCK = 8 << 20  # of text; also the longest row that can be read
_BOM = b"\xef\xbb\xbf"

Types = Mapping[str, ColumnType]


class FileUnreadableError(Exception):
    """A file cannot be read any further; `reason` is stable, the message says what to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FileSource:
    """One file on its way into a dataset; `types` are the contract's columns."""

    path: Path
    dataset: str
    sha256: str
    types: Types

    def candidate(self, number: int, row: dict[str, Any]) -> Candidate:
        """Return the record of a row."""
        return Candidate(f"{self.sha256}#{number}", self.dataset, orjson.dumps(row), row)

    def broken(self, number: int, raw: bytes, finding: Finding) -> Candidate:
        """Return what is left of a row that cannot be read."""
        return Candidate(f"{self.sha256}#{number}", self.dataset, raw, None, (finding,))


Batches = Iterator[list[Candidate]]


def read_parquet(file: FileSource, *, skip: int) -> Batches:
    """Yield the rows of a Parquet file after the first `skip`; raise FileUnreadableError."""
    try:
        parquet = pq.ParquetFile(file.path)
        _refuse_repeated(parquet.schema_arrow.names)
        number = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if number + rows <= skip:
                number += rows
                continue
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                fresh = batch.slice(max(0, min(batch.num_rows, skip - number)))
                first = number + batch.num_rows - fresh.num_rows + 1
                if fresh.num_rows:
                    rows_of = _rows(fresh, lambda array, name: parquet_values(array, file.types.get(name)))
                    yield [file.candidate(first + index, row) for index, row in enumerate(rows_of)]
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise FileUnreadableError(
            "FILE_UNREADABLE", f"The file is no readable Parquet file ({_first_line(error)}). Upload it again."
        ) from error


def read_csv(file: FileSource, *, skip: int) -> Batches:
    """Yield the rows of a CSV file after the first `skip`; a row of another width is quarantined on its own."""
    broken: dict[int, pv.InvalidRow] = {}

    def keep(row: pv.InvalidRow) -> Literal["skip"]:
        if row.number is not None:  # it is, without threads; the header is row 1
            broken[row.number - 1] = row
        return "skip"

    try:
        names = _csv_header(file.path)
        reader = pv.open_csv(
            file.path,
            read_options=pv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
            parse_options=pv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep),
            convert_options=pv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        next_number = 1
        for batch in itertools.chain(_slices(reader), [None]):
            rows = [] if batch is None else _rows(batch, lambda array, name: typed_values(array, file.types.get(name)))
            found: list[Candidate] = []
            for row in rows:
                while next_number in broken:
                    found.append(_broken_row(file, next_number, broken.pop(next_number)))
                    next_number += 1
                found.append(file.candidate(next_number, row))
                next_number += 1
            if batch is None:
                found.extend(_broken_row(file, number, broken[number]) for number in sorted(broken))
            found = found[max(0, skip - _number(found[0]) + 1) :] if found else found
            if found:
                yield found
    except (pa.ArrowException, OSError) as error:
        raise _csv_unreadable(error) from error


def read_jsonl(file: FileSource, *, skip: int) -> Batches:
    """Yield the lines of a JSONL file after the first `skip`; blank lines do not count, a bad one is quarantined."""
    found: list[Candidate] = []
    size = 0
    with file.path.open("rb") as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if number <= skip:
                continue
            text = line.removeprefix(_BOM) if number == 1 else line
            found.append(_json_candidate(file, number, text.strip()))
            size += len(text)
            if len(found) >= BATCH_ROWS or size >= _BATCH_BYTES:
                yield found
                found, size = [], 0
    if found:
        yield found


READERS: Mapping[str, Callable[..., Batches]] = {"PARQUET": read_parquet, "CSV": read_csv, "JSONL": read_jsonl}


def count_rows(path: Path, kind: str) -> int:
    """Return how many rows a file has: exactly for Parquet, by its lines for the others (quoted newlines count)."""
    if kind == "PARQUET":
        try:
            return int(pq.read_metadata(path).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise FileUnreadableError(
                "FILE_UNREADABLE", f"The file is no readable Parquet file ({_first_line(error)}). Upload it again."
            ) from error
    lines, last = 0, b""
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    lines += last not in (b"", b"\n")
    return max(0, lines - 1) if kind == "CSV" else lines


def _rows(batch: pa.RecordBatch, convert: Callable[[Array, str], list[Any]]) -> list[dict[str, Any]]:
    """Return rows as objects of their non-null values."""
    names = batch.schema.names
    columns = [convert(array, name) for array, name in zip(batch.columns, names, strict=True)]
    rows = zip(*columns, strict=True)
    if any(None in column for column in columns):
        return [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _slices(reader: pv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _csv_header(path: Path) -> list[str]:
    """Return the names of the header line; raise FileUnreadableError when it names a column twice."""
    options = pv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK)
    parsing = pv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
    with pv.open_csv(path, read_options=options, parse_options=parsing) as reader:
        names: list[str] = reader.schema.names
    _refuse_repeated(names)
    return names


def _refuse_repeated(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FileUnreadableError("COLUMN_REPEATED", f"The file names a column twice: {', '.join(repeated)}.")


def _broken_row(file: FileSource, number: int, row: pv.InvalidRow) -> Candidate:
    detail = f"The row has {row.actual_columns} fields, the header has {row.expected_columns}: look for a stray quote."
    return file.broken(number, row.text.encode(), Finding("CSV_ROW_WIDTH", "$", detail))


def _number(candidate: Candidate) -> int:
    return int(candidate.record_id.rpartition("#")[2])


def _csv_unreadable(error: Exception) -> FileUnreadableError:
    text = _first_line(error)
    if "UTF8" in text or "utf-8" in text:
        return FileUnreadableError("BAD_ENCODING", "The file is not UTF-8. Save it as UTF-8 and upload it again.")
    return FileUnreadableError("FILE_UNREADABLE", f"The file is no readable CSV file ({text}). Mend it and try again.")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines that are not blank; of one longer than a record may be only enough to see that."""
    limit = MAX_RECORD_BYTES + 1
    while line := stream.readline(limit):
        rest = line
        while len(rest) == limit and not rest.endswith(b"\n"):
            rest = stream.readline(limit)
        if line.strip(b" \t\r\n"):
            yield line


def _json_candidate(file: FileSource, number: int, text: bytes) -> Candidate:
    if len(text) > MAX_RECORD_BYTES:
        detail = f"A record is at most {MAX_RECORD_BYTES} bytes of JSON."
        return file.broken(number, text, Finding("TOO_LARGE", "$", detail))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return file.broken(number, text, validation.not_json())
    if validation.nests_too_deep(text, value):
        return file.broken(number, text, validation.too_deep())
    # Written anew, so that what is stored is what was checked: of a key that comes twice, readers differ on which wins.
    return Candidate(f"{file.sha256}#{number}", file.dataset, orjson.dumps(value), value)
