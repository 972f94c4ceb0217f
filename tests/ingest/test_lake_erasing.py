"""Rows are erased by their offsets: those that were asked for and no other, whichever way the offsets are told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from counterfoil_ingest.lake_erasing import erase_rows
from counterfoil_ingest.lake_places import FolderPlace
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS = 60

gaps = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 12)), max_size=6)
"""Ranges as they follow one another: how many offsets lie before each, and how many it has."""


def ranges_of(gaps: list[tuple[int, int]]) -> list[range]:
    found, at = [], 0
    for gap, length in gaps:
        found.append(range(at + gap, at + gap + length))
        at = found[-1].stop
    return found


@settings(max_examples=25, deadline=None)
@given(
    gaps, st.lists(st.integers(1, ROWS - 1), max_size=4, unique=True), st.sets(st.integers(0, ROWS - 1), max_size=30)
)
def test_what_is_asked_for_goes_and_nothing_else(
    gaps: list[tuple[int, int]], cuts: list[int], absent: set[int]
) -> None:
    """The table has several files, and not each offset: other datasets' records lie between its own."""
    ranges = ranges_of(gaps)
    wanted = {number for each in ranges for number in each}
    one_by_one = [range(each, each + 1) for each in sorted(wanted, reverse=True)]
    for records in (ranges, one_by_one):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events"
            for part in np.split(np.arange(ROWS), sorted(cuts)):
                rows = [number for number in part.tolist() if number not in absent]
                write_deltalake(path, pa.table({"_offset": pa.array(rows, pa.int64())}), mode="append")
            before = set(_offsets(path))
            assert erase_rows(DeltaTable(path), FolderPlace(Path(folder)), "events", records) == 0
            assert sorted(before - wanted) == _offsets(path)
            there = [number for file in path.glob("*.parquet") for number in pq.read_table(file)["_offset"].to_pylist()]
            assert sorted(there) == sorted(before - wanted)


def _offsets(path: Path) -> list[int]:
    return sorted(DeltaTable(path).to_pyarrow_table()["_offset"].to_pylist())
