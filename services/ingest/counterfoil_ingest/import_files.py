"""Open the file of an import as what its format, its dialect and its mapping make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from counterfoil_ingest.airbyte import AirbyteFile
from counterfoil_ingest.csv_dialect import detect
from counterfoil_ingest.files import Batches, CsvDialect, Types, read_csv, read_jsonl, read_parquet
from counterfoil_ingest.import_jobs import Connection
from counterfoil_ingest.import_mappings import ImportMapping
from counterfoil_ingest.mapped_rows import Given, map_rows


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of a file before its rows are read."""

    kind: str
    dataset: str
    types: Types
    mapping: ImportMapping | None
    given: Given | None
    encoding: str
    delimiter: str
    connection: Connection | None = None


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose rows can be read; `csv` is how its text is read, `airbyte` how the run of a source went."""

    batches: Batches
    csv: CsvDialect | None = None
    airbyte: AirbyteFile | None = None


def open_file(path: Path, layout: Layout, *, skip: int) -> OpenFile:
    """Open a file after its first `skip` rows; raise FileUnreadableError.

    A mapping leaves rows out, so what comes before it reads the file from its beginning.
    """
    mapping, given = layout.mapping, layout.given
    types: Types = layout.types if mapping is None else {}
    csv = airbyte = None
    read: Callable[[int], Batches]
    if layout.kind == "CSV":
        csv = dialect = _dialect(path, layout)
        read = lambda skip: read_csv(path, types, skip=skip, dialect=dialect)  # noqa: E731
    elif layout.kind == "AIRBYTE":
        airbyte = source = AirbyteFile(path, dataset=layout.dataset, connection=layout.connection)
        read = lambda skip: source.rows(skip=skip)  # noqa: E731
    else:
        reader = read_parquet if layout.kind == "PARQUET" else read_jsonl
        read = lambda skip: reader(path, types, skip=skip)  # noqa: E731
    if mapping is None or given is None:
        return OpenFile(read(skip), csv, airbyte)
    return OpenFile(map_rows(read(0), mapping, given, skip=skip), csv, airbyte)


def _dialect(path: Path, layout: Layout) -> CsvDialect:
    mapping = layout.mapping
    known: Callable[[str], bool] = mapping.knows if mapping is not None else layout.types.__contains__
    if mapping is None and not layout.types:
        known = bool  # the contract declares nothing: the separator that makes most names is right
    return detect(path, known, anywhere=mapping is not None, encoding=layout.encoding, delimiter=layout.delimiter)
