"""Puts the rows of one day of a Delta table into one file, in the order of a column, with few of them in memory.

deltalake's z-order has all of them there, several times: 1.3 GB for 1.7 million events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from counterfoil_ingest.arrow import DAY
from counterfoil_ingest.lake_commits import STATISTICS, sync, writing
from counterfoil_ingest.lake_places import LakePlace

_BYTES_AT_ONCE: Final = 16 << 20  # of rows as Parquet encodes them, which is less than Arrow has
_ROWS: Final = 1 << 13  # that are read together

Ranks = npt.NDArray[np.int64]


def sort_day(table: DeltaTable, place: LakePlace, dataset: str, day: date, *, column: str, schema: pa.Schema) -> None:
    """Make one file of those of a day, in the order of a column, in one commit; rows that lack it come last.

    `schema` is the table's. What the table has to read does not change.
    """
    actions: Any = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    replaced = [each for each in actions if each[f"partition.{DAY}"] == day]
    replaced.sort(key=itemgetter("min._offset"))  # rows of one moment stay in the order of the log
    paths = [place.fetch(dataset, each["path"]) for each in replaced]
    name = f"{DAY}={day.isoformat()}/part-{uuid4()}.zstd.parquet"
    path = place.path(dataset, name)
    body = pa.schema([field for field in schema if field.name != DAY])
    with pq.ParquetWriter(path, body, **writing(body.names, ())) as writer:
        for rows in _sorted(paths, body, column):
            writer.write_table(rows)
    sync(path)
    place.store(dataset, name)
    where: dict[str, str | None] = {DAY: day.isoformat()}
    now = time.time_ns() // 1_000_000
    added = AddAction(name, path.stat().st_size, where, now, False, orjson.dumps(_statistics(replaced)).decode())
    removed = [RemoveAction(each["path"], False, now, each["size_bytes"], where) for each in replaced]
    table.create_write_transaction([added, *removed], "append", schema, [DAY])
    table.update_incremental()


def _sorted(paths: Sequence[Path], schema: pa.Schema, column: str) -> Iterator[pa.Table]:
    """Yield the rows of files in the order of a column, some at a time: those of each are looked for in every file."""
    ranks = _ranks([_column(path, schema.field(column)) for path in paths])
    size = sum(_size(path) for path in paths)
    step = max(1, int(len(ranks) * _BYTES_AT_ONCE / max(size, 1)))
    for start in range(0, len(ranks), step):
        yield _ranked(paths, schema, ranks - start, step)


def _ranked(paths: Sequence[Path], schema: pa.Schema, ranks: Ranks, stop: int) -> pa.Table:
    """Return the rows of files whose ranks are from 0 to less than `stop`, in order."""
    found: list[Ranks] = []
    parts: list[pa.Table] = []
    for rows, here in _batches(paths, ranks, stop):
        chosen = (here >= 0) & (here < stop)
        if chosen.any():
            found.append(here[chosen])
            parts.append(_conform(rows.filter(pa.array(chosen)), schema))
    return pa.concat_tables(parts).take(np.argsort(np.concatenate(found)))


def _batches(paths: Sequence[Path], ranks: Ranks, stop: int) -> Iterator[tuple[pa.Table, Ranks]]:
    """Yield the rows of files with their ranks, but for row groups that have none of those wanted."""
    at = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = at + file.metadata.row_group(group).num_rows
                if ((ranks[at:end] >= 0) & (ranks[at:end] < stop)).any():
                    for batch in file.iter_batches(_ROWS, row_groups=[group], use_threads=False):
                        yield pa.Table.from_batches([batch]), ranks[at : at + batch.num_rows]
                        at += batch.num_rows
                at = end


def _ranks(columns: Sequence[Any]) -> Ranks:
    """Return the place that each row has once they are in order."""
    keys = pa.chunked_array([chunk for each in columns for chunk in each.chunks], columns[0].type)
    order: Any = pc.sort_indices(keys).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _column(path: Path, field: pa.Field[Any]) -> Any:
    with pq.ParquetFile(path) as file:
        present = field.name in file.schema_arrow.names
        read = file.read([field.name]) if present else pa.table({field.name: pa.nulls(file.metadata.num_rows)})
    return read.column(0).cast(field.type)


def _size(path: Path) -> int:
    with pq.ParquetFile(path) as file:
        return sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns of a table, null where a file is older than a column."""
    columns = [rows[each.name] if each.name in rows.column_names else pa.nulls(len(rows), each.type) for each in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _statistics(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the statistics of a file that has the rows of some."""

    def known(bound: str, name: str) -> list[Any]:
        return [each[f"{bound}.{name}"] for each in files if each[f"{bound}.{name}"] is not None]

    return {
        "numRecords": sum(each["num_records"] for each in files),
        "minValues": {name: min(found) for name in STATISTICS if (found := known("min", name))},
        "maxValues": {name: max(found) for name in STATISTICS if (found := known("max", name))},
        "nullCount": {name: sum(each[f"null_count.{name}"] for each in files) for name in STATISTICS},
    }
