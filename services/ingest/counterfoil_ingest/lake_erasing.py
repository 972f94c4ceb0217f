"""Erases rows of a Delta table so that no file holds them any more, not even as the statistics in the table's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from counterfoil_ingest.lake_places import LakePlace

_AT_ONCE: Final = 1_000  # runs of offsets in one commit: a condition of many thousands takes minutes to evaluate
_ROWS: Final = 1 << 16  # whose offsets are read together

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of consecutive offsets, ascending: where each starts, and where it stops, which is not of it."""

    starts: Numbers
    stops: Numbers


def erase_rows(table: DeltaTable, place: LakePlace, dataset: str, records: Sequence[range]) -> int:
    """Delete the rows at ranges of offsets, then every file and log entry that held them; return how many are left: 0.

    Give all there are to erase at once: a file of nothing else is then dropped, while one that keeps rows is rewritten,
    which takes memory for them. Readers that began before may find files gone. Done again, it changes nothing.
    """
    wanted = _runs(records)
    low, high, _ = _held(table, place, dataset, wanted)
    held = np.flatnonzero(low <= high)
    for start in range(0, len(held), _AT_ONCE):
        some = held[start : start + _AT_ONCE]
        table.delete(_condition(low[some].tolist(), high[some].tolist()))
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    place.forget(dataset, but=[path for path, _, _ in _files(table)], older_than=0)
    _forget_log(table, place, dataset)
    _, _, left = _held(table, place, dataset, wanted)
    return left


def _runs(records: Sequence[range]) -> _Runs:
    found = np.array([(each.start, each.stop) for each in records if each], np.int64).reshape(-1, 2)
    found = found[np.argsort(found[:, 0])]
    apart = found[1:, 0] > found[:-1, 1]
    begins, ends = np.append(True, apart)[: len(found)], np.append(apart, True)[: len(found)]
    return _Runs(found[begins, 0], found[ends, 1])


def _files(table: DeltaTable) -> list[tuple[str, int, int]]:
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "min._offset", "max._offset"])
    return [(row["path"], row["min._offset"], row["max._offset"]) for row in actions.to_pylist()]


def _held(table: DeltaTable, place: LakePlace, dataset: str, wanted: _Runs) -> tuple[Numbers, Numbers, int]:
    """Return the least and greatest offset of each run that the table has a row of, and how many rows it has of all.

    Of a run that it has none of, the least is above the greatest.
    """
    low = np.full(len(wanted.starts), np.iinfo(np.int64).max, np.int64)
    high = np.full(len(wanted.starts), -1, np.int64)
    rows = 0
    for path, first, last in _files(table):
        if np.searchsorted(wanted.stops, first, "right") >= np.searchsorted(wanted.starts, last, "right"):
            continue
        with pq.ParquetFile(place.fetch(dataset, path)) as file:
            for batch in file.iter_batches(batch_size=_ROWS, columns=["_offset"]):
                column: Numbers = batch.column(0).to_numpy()
                runs = np.searchsorted(wanted.starts, column, "right") - 1
                within = (runs >= 0) & (column < wanted.stops[runs])
                np.minimum.at(low, runs[within], column[within])
                np.maximum.at(high, runs[within], column[within])
                rows += int(np.count_nonzero(within))
    return low, high, rows


def _condition(low: Sequence[int], high: Sequence[int]) -> str:
    """Return what finds the rows between each of some offsets and its like; both are among them."""
    places = list(zip(low, high, strict=True))
    singles = [str(first) for first, last in places if first == last]
    conditions = [f"(_offset >= {first} AND _offset <= {last})" for first, last in places if first < last]
    if singles:
        conditions.append(f"_offset IN ({', '.join(singles)})")
    return " OR ".join(conditions)


def _forget_log(table: DeltaTable, place: LakePlace, dataset: str) -> None:
    """Delete the entries before a new checkpoint: each says the least and greatest value of a file's columns."""
    entries = [name for name in place.log_entries(dataset) if name[:20].isdigit()]
    if any(int(name[:20]) < table.version() for name in entries):
        table.create_checkpoint()
    for name in entries:
        if int(name[:20]) < table.version():
            place.delete_log_entry(dataset, name)
