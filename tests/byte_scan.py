"""What lies in the files of an installation, read by nothing of the code that wrote them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import zstandard

_ZSTD = b"\x28\xb5\x2f\xfd"


def holding(folder: Path, *values: str) -> list[str]:
    """Return the places in a folder's files that hold any of some values, in upper or lower case.

    Every file is looked at as it lies there, free pages and write-ahead logs included; and unpacked: each value of each
    row of each SQLite database, and the rows of each Parquet file.
    """
    wanted = [each.lower().encode() for each in values]
    return [place for place, data in _texts(folder) if any(each in data.lower() for each in wanted)]


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(folder))
        yield name, path.read_bytes()
        if path.suffix == ".parquet":
            yield f"{name} rows", orjson.dumps(pq.ParquetFile(path).read().to_pylist(), default=str)
        elif path.suffix == ".db":
            yield from _rows(path, name)


def _rows(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with closing(sqlite3.connect(path)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for number, row in enumerate(database.execute(f'SELECT * FROM "{table}"')):
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    if data.startswith(_ZSTD):
                        data = zstandard.ZstdDecompressor().stream_reader(data).read()
                    yield f"{name} {table} {number}", data
