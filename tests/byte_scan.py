"""What lies in the files and tables of an installation, read by nothing of the code that wrote them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import sqlite3
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import asyncpg
import orjson
import pyarrow.parquet as pq
import zstandard

_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"  # RFC 8878 section 3.1.1, RFC 1952 section 2.3.1


class _Wanted:
    """Some values, however they may be written: as text in any case, in UTF-16, in hexadecimal, in a URL, in base64."""

    def __init__(self, values: Iterable[str]) -> None:
        self._lowered: set[bytes] = set()
        self._exact: set[bytes] = set()
        for value in values:
            text = value.lower()
            quoted = urllib.parse.quote(text, safe="").lower()
            self._lowered |= {text.encode(), text.encode("utf-16-le"), text.encode().hex().encode(), quoted.encode()}
            for written in {value, text}:
                self._exact |= set(_base64(written.encode()))

    def within(self, data: bytes) -> bool:
        lowered = data.lower()
        return any(each in lowered for each in self._lowered) or any(each in data for each in self._exact)


def holding(folder: Path, *values: str) -> list[str]:
    """Return the places in a folder's files that hold any of some values.

    Every file is looked at as it lies there, free pages and write-ahead logs included; and unpacked: each value of each
    row of each SQLite database, the rows of each Parquet file, and what is compressed.
    """
    wanted = _Wanted(values)
    return [place for place, data in _texts(folder) if wanted.within(data)]


def holding_tables(urls: Iterable[str], *values: str) -> list[str]:
    """Return the tables of PostgreSQL databases that hold any of some values, unpacked as those of SQLite are."""
    wanted = _Wanted(values)
    return sorted({place for url in urls for place, data in asyncio.run(_tables(url)) if wanted.within(data)})


def _base64(data: bytes) -> Iterator[bytes]:
    """Yield what is the same wherever the data begins within a text in base64, in both alphabets."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data)
        inner = encoded[-(-shift * 4 // 3) : len(encoded) - (4 if (shift + len(data)) % 3 else 0)]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(folder))
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # a running installation takes files away
            continue
        yield name, data
        if path.suffix == ".parquet":
            yield f"{name} rows", orjson.dumps(pq.ParquetFile(BytesIO(data)).read().to_pylist(), default=str)
        elif path.suffix == ".db":
            yield from _rows(path, name)
        elif data.startswith((_ZSTD, _GZIP)):
            yield f"{name} unpacked", _unpacked(data)


def _rows(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with closing(sqlite3.connect(path)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for number, row in enumerate(database.execute(f'SELECT * FROM "{table}"')):
                for value in row:
                    yield f"{name} {table} {number}", _bytes(value)


async def _tables(url: str) -> list[tuple[str, bytes]]:
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [
            (f"{url.rsplit('/', 1)[-1]} {name}", _bytes(value))
            for (name,) in names
            for row in await connection.fetch(f'SELECT * FROM "{name}"')
            for value in row
        ]
    finally:
        await connection.close()


def _bytes(value: object) -> bytes:
    return _unpacked(value if isinstance(value, bytes) else str(value).encode())


def _unpacked(data: bytes) -> bytes:
    """Return what is compressed as it was; anything else as it is, also a digest that begins like a compressed file."""
    try:
        if data.startswith(_ZSTD):
            return zstandard.ZstdDecompressor().stream_reader(data).read()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (zstandard.ZstdError, gzip.BadGzipFile, EOFError, zlib.error):
        return data
