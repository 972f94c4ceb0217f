"""Find out how the text of a CSV file is to be read: its encoding, what separates and quotes values, where it begins.

The names that are expected decide on the separator: that one is right with which the header names most of them.
"""

from __future__ import annotations

import codecs
import csv
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import charset_normalizer
import duckdb

from counterfoil_ingest.files import CsvDialect, FileUnreadableError
from counterfoil_ingest.import_mappings import is_encoding

DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 20
_SNIFFED_LINES: Final = 1_000
_NAMES_TOLD: Final = 10
_HEADER_LINES: Final = 20  # vendors put a title and a period above the header
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN: Final = "cp1252"
_CODE_PAGES: Final = (
    _WESTERN,
    *("cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
)
_MOST_ODD_BYTES: Final = 64 << 10  # of lines that are not ASCII, from which a code page is told
_AS_LIKELY: Final = 0.02  # of `chaos`, which charset-normalizer measures from 0 to 1


def detect(
    path: Path,
    known: Callable[[str], bool],
    *,
    anywhere: bool,
    names: Sequence[str] = (),
    encoding: str = "",
    delimiter: str = "",
) -> CsvDialect:
    """Return how a file is to be read; `known` tells the names that a header may have, `names` are some of them.

    The header is the first line or, `anywhere`, that of the first 20 which names most of the known. What is given is
    taken as it is. Raises FileUnreadableError.
    """
    encoding = _codec(encoding) if encoding else _encoding(path)
    lines = _sample(path, encoding)
    if not lines:
        return CsvDialect(encoding)
    candidates = (delimiter,) if delimiter else DELIMITERS
    best, found = 0, CsvDialect(encoding, candidates[0])
    for number, line in enumerate(lines[: _HEADER_LINES if anywhere else 1]):
        for each in candidates:
            count = sum(map(known, _names(line, each)))
            if count > best:
                best, found = count, CsvDialect(encoding, each, header_line=number + 1)
    if not best:
        where = f"one of its first {_HEADER_LINES} lines" if anywhere else "its first line"
        raise FileUnreadableError(
            "HEADER_UNKNOWN",
            f"The file has no header in {where}: no name in it is one that is expected there"
            f"{', such as ' if names else ''}{', '.join(names[:_NAMES_TOLD])}.",
        )
    return replace(found, quote=_quote(lines[found.header_line - 1 :], found.delimiter, folder=path.parent))


def _names(line: str, delimiter: str) -> set[str]:
    try:
        return {name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])}
    except csv.Error:  # a name longer than any is, 128 KiB
        return set()


def _codec(name: str) -> str:
    if not is_encoding(name):
        raise FileUnreadableError("ENCODING_UNKNOWN", "No encoding has the name that was given.")
    return codecs.lookup(name).name


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(4096)
    for bom, name in _BOMS:
        if start.startswith(bom):
            return name
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) * 5 > len(start) > 3:  # a fifth of all bytes: in UTF-16, what is ASCII has a zero beside it
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8" if _is_utf8(path) else _code_page(path)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                if not chunk.isascii() or decoder.getstate()[0]:
                    decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _code_page(path: Path) -> str:
    """Return the code page of a file that is not UTF-8; raise when it is a damaged file of UTF-8."""
    odd = _odd_lines(path)
    if sum(map(_decodes, odd)) * 2 >= len(odd):
        raise FileUnreadableError("BAD_ENCODING", "The file is UTF-8, but for some bytes. Save it anew and upload it.")
    matches = charset_normalizer.from_bytes(b"\n".join(odd), cp_isolation=list(_CODE_PAGES))
    likely = [each for each in matches if each.chaos <= matches[0].chaos + _AS_LIKELY]
    # On a few words no method tells the pages of European languages apart: the most common one is taken then.
    western = not likely or any(_WESTERN in each.could_be_from_charset for each in likely)
    chosen = _WESTERN if western else likely[0].encoding
    return chosen if _decodes_all(path, chosen) else "latin-1"


def _odd_lines(path: Path) -> list[bytes]:
    found: list[bytes] = []
    size = 0
    with path.open("rb") as stream:
        while size < _MOST_ODD_BYTES and (line := stream.readline(_MOST_ODD_BYTES)):
            if not line.isascii():
                found.append(line.rstrip())
                size += len(line)
    return found


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decodes_all(path: Path, encoding: str) -> bool:
    try:
        with path.open(encoding=encoding, newline="") as stream:
            while stream.read(_CHUNK):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _sample(path: Path, encoding: str) -> Sequence[str]:
    """Return the first lines of a file as text."""
    with path.open(encoding=encoding, errors="replace") as stream:
        text = stream.read(_SAMPLE_BYTES).removeprefix("\ufeff")
    return text.splitlines()


def _quote(lines: Sequence[str], delimiter: str, *, folder: Path) -> str:
    """Return what stands around values: DuckDB's sniffer knows whether it is the other one."""
    if not any("'" in line for line in lines[:_SNIFFED_LINES]):
        return '"'
    with (
        tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", dir=folder) as sample,
        duckdb.connect() as connection,
    ):
        sample.write("\n".join(lines[:_SNIFFED_LINES]))
        sample.flush()
        try:
            found = connection.execute(
                "SELECT Quote FROM sniff_csv(?, delim = ?, header = true, all_varchar = true, null_padding = true)",
                [sample.name, delimiter],
            ).fetchone()
        except duckdb.Error:  # it is no table of equal rows: reading it tells which rows are at fault
            return '"'
    return "'" if found is not None and found[0] == "'" else '"'
