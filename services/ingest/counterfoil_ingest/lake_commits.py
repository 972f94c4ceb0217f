"""Commits rows to a Delta table in a folder: a Parquet file for each day, and the entry of the table's log for them.

deltalake's writer takes as long for the rest of a commit as for the file, longer with every file that the table has,
and syncs nothing. The formats are those of the Delta protocol (PROTOCOL.md of delta-io/delta: Add File, Transaction
Identifiers, Per-file Statistics).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from counterfoil_ingest.arrow import DAY

STATISTICS: Final = ("_partition", "_offset", "_contract_version")
"""The columns whose least and greatest value the log has of every file."""


def commit(
    folder: Path, version: int, rows: pa.Table, *, transaction: tuple[str, int], unlike: Collection[str]
) -> None:
    """Make rows a version of a table, with the number that an application has come to; all of it or nothing.

    In the columns `unlike`, values differ from row to row. Raises FileExistsError when there is such a version.
    """
    added = [_write(folder, day, some, unlike) for day, some in _by_day(rows)]
    app_id, number = transaction
    how = {"mode": "Append", "partitionBy": f'["{DAY}"]'}
    info = {"timestamp": _now(), "operation": "WRITE", "operationParameters": how, "engineInfo": "counterfoil"}
    entry = [{"commitInfo": info}, *({"add": each} for each in added), {"txn": {"appId": app_id, "version": number}}]
    _publish(folder / "_delta_log", version, b"\n".join(map(orjson.dumps, entry)))


def writing(names: Collection[str], unlike: Collection[str]) -> dict[str, Any]:
    """Return how files with such columns are written."""
    # A dictionary of ids or objects is made in vain, and nobody looks for the least one.
    alike = [each for each in names if each not in unlike]
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": alike, "write_statistics": alike}


def sync(path: Path) -> None:
    """Have what a file holds outlast a loss of power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_torn(folder: Path) -> bool:
    """Tell whether the log of a table has a file that is not whole: deltalake, which makes some of them, syncs none."""
    log = folder / "_delta_log"
    return not all(map(_is_entry, log.glob("*.json"))) or not all(map(_is_parquet, log.glob("*.parquet")))


def _is_entry(path: Path) -> bool:
    try:
        list(map(orjson.loads, path.read_bytes().splitlines() or [b""]))
    except orjson.JSONDecodeError:
        return False
    return True


def _is_parquet(path: Path) -> bool:
    return path.read_bytes().endswith(b"PAR1")


def _by_day(rows: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """Yield the rows of each day of receipt, without it: the file's name has it."""
    received, body = rows[DAY], rows.drop_columns([DAY])
    days: list[Any] = received.unique().to_pylist()
    for day in days:
        yield day, body if len(days) == 1 else body.filter(pc.equal(received, day))


def _write(folder: Path, day: date, rows: pa.Table, unlike: Collection[str]) -> dict[str, Any]:
    """Write a file that outlasts a loss of power; return what the log says of it."""
    name = f"{DAY}={day.isoformat()}/part-{uuid4()}.zstd.parquet"
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(rows, path, **writing(rows.column_names, unlike))
    sync(path)
    return {
        "path": name,
        "partitionValues": {DAY: day.isoformat()},
        "size": path.stat().st_size,
        "modificationTime": _now(),
        "dataChange": True,
        "stats": orjson.dumps(_statistics(rows)).decode(),
    }


def _statistics(rows: pa.Table) -> dict[str, Any]:
    """Return the statistics of a file; a column of nulls has no least value and no greatest."""
    found: dict[str, Any] = {
        name: pc.min_max(rows[name]).as_py() for name in STATISTICS if rows[name].null_count < len(rows)
    }
    return {
        "numRecords": len(rows),
        "minValues": {name: each["min"] for name, each in found.items()},
        "maxValues": {name: each["max"] for name, each in found.items()},
        "nullCount": {name: rows[name].null_count for name in STATISTICS},
    }


def _publish(log: Path, version: int, entry: bytes) -> None:
    """Have an entry in a table's log, unless there is one of this version.

    Only what files hold is synced. Names are kept in the order they were made by the journals of file systems, so that
    an entry is never there without what it names; and one that is lost is made again.
    """
    fresh = log / f"{version:020}.{uuid4()}.new"
    try:
        with fresh.open("wb") as file:
            file.write(entry)
            file.flush()
            os.fsync(file.fileno())
        (log / f"{version:020}.json").hardlink_to(fresh)
    finally:
        fresh.unlink(missing_ok=True)


def _now() -> int:
    return time.time_ns() // 1_000_000
