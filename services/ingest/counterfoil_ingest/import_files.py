"""Open the file of an import as what its format, its dialect and its mapping make of it."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from counterfoil_ingest.airbyte import AirbyteFile
from counterfoil_ingest.csv_dialect import detect
from counterfoil_ingest.files import Batches, CsvDialect, FileUnreadableError, Types, read_csv, read_jsonl, read_parquet
from counterfoil_ingest.import_jobs import Connection
from counterfoil_ingest.import_mappings import ImportMapping
from counterfoil_ingest.mapped_rows import Given, map_rows

_PARQUET: Final = b"PAR1\x15"
_KINDS: Final = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive: save its sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save its sheet as CSV",
    b"%PDF-": "a PDF: export the table as CSV",
    b"<!DOCTYPE": "a web page, as a site gives whose sign-in has ended: export it again",
    b"<!doctype": "a web page, as a site gives whose sign-in has ended: export it again",
    b"<html": "a web page, as a site gives whose sign-in has ended: export it again",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard: unpack it, or pack it by gzip",
    b"BZh91AY&SY": "packed by bzip2: unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz: unpack it, or pack it by gzip",
    b"\x1f\x8b": "packed by gzip twice: unpack it once",
    _PARQUET: "Parquet: say so as its format",
}
"""What files begin with that people send as another format."""
_UTF_16: Final = "text in UTF-16, as PowerShell writes it: save it as UTF-8"
_NO_LINES: Final = {b"\xff\xfe": _UTF_16, b"\xfe\xff": _UTF_16, b"{\0": _UTF_16, b"\0{": _UTF_16}
_JSON_LIST: Final = {b"[": "a JSON list: write one object in each line, as `jq -c '.[]'` does"}


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
    decimal: str = ""
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
    _refuse_another_kind(path, layout.kind)
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


def _refuse_another_kind(path: Path, kind: str) -> None:
    """Raise FileUnreadableError for what is no file of rows, or is one of another format than was said."""
    signs = dict(_KINDS)
    if kind == "PARQUET":
        del signs[_PARQUET]
    elif kind != "CSV":  # of which every line would be quarantined, or be taken for a log of Airbyte's source
        signs |= _NO_LINES | (_JSON_LIST if kind == "JSONL" else {})
    with path.open("rb") as stream:
        start = stream.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    for sign, what in signs.items():
        if start.startswith(sign):
            raise FileUnreadableError("FILE_UNREADABLE", f"The file is no {kind} but {what}.")


def _dialect(path: Path, layout: Layout) -> CsvDialect:
    mapping = layout.mapping
    known: Callable[[str], bool] = mapping.knows if mapping is not None else layout.types.__contains__
    if mapping is None and not layout.types:
        known = bool  # the contract declares nothing: the separator that makes most names is right
    found = detect(
        path,
        known,
        anywhere=mapping is not None,
        names=list(layout.types) if mapping is None else mapping.names,
        encoding=layout.encoding,
        delimiter=layout.delimiter,
    )
    return replace(found, decimal=layout.decimal)
