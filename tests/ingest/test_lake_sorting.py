"""A day of the lake becomes one file in the order of its events, with the same rows, however few are in memory."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest import lake_sorting
from counterfoil_ingest.arrow import schema_of
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.lake_rows import COLUMNS, hostile_rows, plain, rows_of, statistics_of, table_of, tables_in

YEAR_2030 = date(2030, 1, 1)
EARLIEST = datetime(1, 1, 1, tzinfo=UTC)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(hostile_rows, min_size=1, max_size=5), min_size=2, max_size=5), st.sampled_from([1, 400]))
def test_rows_stay_and_are_in_order(commits: list[list[dict[str, Any]]], at_once: int) -> None:
    older = [column for column in COLUMNS if column.name != "at"]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as little:
        little.setattr(lake_sorting, "_BYTES_AT_ONCE", at_once)
        little.setattr(lake_sorting, "_ROWS", 2)
        tables, until = tables_in(Path(folder)), 0
        for number, rows in enumerate(commits):
            columns = older if number == 0 else COLUMNS  # the first files lack the column
            new = table_of(rows, first=until).select(schema_of(columns).names)
            until += len(rows)
            tables.append("people", new, columns, until=until)
        before, days = DeltaTable(f"{folder}/people"), 0
        while tables.settle(lambda _: "at", before=YEAR_2030):
            days += 1
        after = DeltaTable(f"{folder}/people")
        assert rows_of(after) == rows_of(before)
        assert after.transaction_version("log/a/0/0") == until
        view = tables.view("people")
        assert view is not None
        over = [file.day for file in view.files if file.day < YEAR_2030]
        assert len(set(over)) == len(over)
        made = [file for file in view.files if not any(file.name in each for each in before.file_uris())]
        assert len(made) == days
        for file in made:
            times: Any = pq.read_table(file.path, partitioning=None)["at"].to_pylist()
            assert times == sorted(times, key=lambda each: (each is None, each or EARLIEST))
        for name in ("num_records", "null_count._contract_version", "null_count._offset"):
            assert sum(each[name] for each in statistics_of(after)) == sum(each[name] for each in statistics_of(before))
        for file in view.files:
            offsets: Any = pq.read_table(file.path, partitioning=None)["_offset"].to_pylist()
            assert (file.first_offset, file.last_offset, file.rows) == (min(offsets), max(offsets), len(offsets))


def test_equal_times_keep_the_order_of_the_log_and_only_some_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = tables_in(tmp_path)
    then = datetime(2024, 2, 29, tzinfo=UTC)
    for number in range(10):
        rows = [plain(n, at=then + timedelta(hours=n % 2)) for n in range(100 * number, 100 * number + 100)]
        tables.append("people", table_of(rows, first=100 * number), COLUMNS, until=100 * number + 100)
    view = tables.view("people")
    assert view is not None
    size = sum(lake_sorting._size(Path(file.path)) for file in view.files)
    monkeypatch.setattr(lake_sorting, "_BYTES_AT_ONCE", size // 8)
    assert tables.settle(lambda _: "at", before=YEAR_2030)
    settled = tables.view("people")
    assert settled is not None
    (file,) = settled.files
    read = pq.ParquetFile(file.path)
    assert read.num_row_groups >= 8
    assert read.read(["_offset"])["_offset"].to_pylist() == [*range(0, 1000, 2), *range(1, 1000, 2)]
    assert not tables.settle(lambda _: "at", before=YEAR_2030)


def test_what_stops_it_leaves_the_table_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_in(tmp_path)
    for number in range(2):
        tables.append("people", table_of([plain(number)], first=number), COLUMNS, until=number + 1)

    def full(*_: Any) -> pa.Table:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(lake_sorting, "_ranked", full)
        with pytest.raises(OSError, match="no space"):
            tables.settle(lambda _: "at", before=YEAR_2030)
    again = tables_in(tmp_path)
    assert [row["name"] for row in rows_of(DeltaTable(tmp_path / "people"))] == ["n0", "n1"]
    assert again.settle(lambda _: "at", before=YEAR_2030)
    assert [row["name"] for row in rows_of(DeltaTable(tmp_path / "people"))] == ["n0", "n1"]
    again.erase([range(5, 6)])
    assert len(list(tmp_path.glob("people/_received_day=*/*"))) == 1  # what it had begun to write is gone
