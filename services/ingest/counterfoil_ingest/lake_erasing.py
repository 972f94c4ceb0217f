"""Erases rows of a Delta table so that no file holds them any more, not even as the statistics in the table's log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from counterfoil_ingest.lake_places import LakePlace

_AT_ONCE: Final = 1_000  # runs of offsets in one commit: a condition of many thousands takes minutes to evaluate

Offsets = npt.NDArray[np.int64]
_NONE: Final[Offsets] = np.empty(0, np.int64)


def erase_rows(table: DeltaTable, place: LakePlace, dataset: str, offsets: Sequence[int]) -> int:
    """Delete the rows at some offsets, then every file and log entry that held them; return how many are left: 0.

    Readers that began before may find files gone. Done again, it changes nothing.
    """
    if isinstance(offsets, range):  # which would become as many numbers of Python first
        wanted = np.arange(offsets.start, offsets.stop, offsets.step, dtype=np.int64)
    else:
        wanted = np.unique(np.asarray(offsets, np.int64))
    held = np.unique(np.concatenate([_NONE, *_held(table, place, dataset, wanted)]))
    runs = np.split(held, np.flatnonzero(np.diff(held) > 1) + 1) if len(held) else []
    for start in range(0, len(runs), _AT_ONCE):
        table.delete(_condition(runs[start : start + _AT_ONCE]))
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    place.forget(dataset, but=[path for path, _, _ in _files(table)], older_than=0)
    _forget_log(table, place, dataset)
    return sum(map(len, _held(table, place, dataset, wanted)))


def _files(table: DeltaTable) -> list[tuple[str, int, int]]:
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "min._offset", "max._offset"])
    return [(row["path"], row["min._offset"], row["max._offset"]) for row in actions.to_pylist()]


def _between(offsets: Offsets, low: int, high: int) -> Offsets:
    return offsets[np.searchsorted(offsets, low) : np.searchsorted(offsets, high, side="right")]


def _held(table: DeltaTable, place: LakePlace, dataset: str, wanted: Offsets) -> Iterator[Offsets]:
    """Yield for each file that may have some those of the offsets that it has rows of."""
    for path, low, high in _files(table):
        offsets = _between(wanted, low, high)
        if len(offsets):
            file = pq.ParquetFile(place.fetch(dataset, path))
            column: Offsets = file.read(["_offset"]).column("_offset").to_numpy()
            yield column[np.isin(column, offsets)]


def _condition(runs: Sequence[Offsets]) -> str:
    """Return what finds the rows of some runs of consecutive offsets."""
    singles = [str(each[0]) for each in runs if len(each) == 1]
    conditions = [f"(_offset >= {each[0]} AND _offset <= {each[-1]})" for each in runs if len(each) > 1]
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
