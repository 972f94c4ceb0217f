"""Rows that we commit to a Delta table are there as deltalake would have written them, once, or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest import delta, lake_commits
from counterfoil_ingest.arrow import DAY, schema_of
from counterfoil_ingest.lake_commits import STATISTICS, commit
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.byte_scan import holding
from tests.ingest.lake_rows import COLUMNS, SCHEMA, hostile_rows, plain, rows_of, statistics_of, table_of, tables_in

SECRET = "ada-lovelace-1815"


def names_in(folder: Path) -> list[Any]:
    return [row["name"] for row in rows_of(DeltaTable(folder / "people"))]


@settings(deadline=None)
@given(st.lists(hostile_rows, min_size=1, max_size=6))
def test_what_is_read_back_is_what_deltalake_would_have_written(rows: list[dict[str, Any]]) -> None:
    written = table_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (
            DeltaTable.create(f"{folder}/{name}", SCHEMA, partition_by=[DAY], configuration=delta._CONFIGURATION)
            for name in ("ours", "theirs")
        )
        commit(Path(folder) / "ours", 1, written, transaction=("app", 7), unlike=["tags"])
        transaction = CommitProperties(app_transactions=[Transaction("app", 7)])
        write_deltalake(theirs, written, mode="append", commit_properties=transaction)
        ours.update_incremental()
        assert ours.schema() == theirs.schema()
        assert rows_of(ours) == rows_of(theirs)
        assert ours.transaction_version("app") == theirs.transaction_version("app") == 7
        for mine, other in zip(statistics_of(ours), statistics_of(theirs), strict=True):
            least, greatest = (f"{bound}._contract_version" for bound in ("min", "max"))
            longest = max((len(mine[name] or "") for name in (least, greatest)), default=0)
            if longest > 20:  # deltalake cuts long texts off, so that they are bounds and no values
                assert other.pop(least) <= mine.pop(least)
                assert other.pop(greatest) >= mine.pop(greatest)
            assert mine == other
        files = pa.table(ours.get_add_actions(flatten=True)).to_pylist()
        assert [(Path(folder) / "ours" / each["path"]).stat().st_size for each in files] == [
            each["size_bytes"] for each in files
        ]


@given(st.lists(st.lists(hostile_rows, min_size=1, max_size=3), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_files_of_a_day_are_made_one_with_the_same_rows(commits: list[list[dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as small:
        small.setattr(delta, "_SMALL_FILES", 2)
        tables, until = tables_in(Path(folder)), 0
        for rows in commits:
            tables.append("people", table_of(rows, first=until), COLUMNS, until=until + len(rows))
            until += len(rows)
        before = rows_of(DeltaTable(f"{folder}/people"))
        tables.compact()
        assert rows_of(DeltaTable(f"{folder}/people")) == before
        assert len(before) == until


def test_a_version_that_is_there_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    first, second = tables_in(tmp_path), tables_in(tmp_path)
    first.append("people", table_of([plain(0)]), COLUMNS, until=1)
    late = tables_in(tmp_path)
    first.append("people", table_of([plain(1)], first=1), COLUMNS, until=2)
    with pytest.raises(FileExistsError):
        late.append("people", table_of([plain(1)], first=1), COLUMNS, until=2)
    assert second.done("people") == 0
    assert names_in(tmp_path) == ["n0", "n1"]
    assert list((tmp_path / "people/_delta_log").glob("*.new")) == []


def _breaking(work: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    def broken(*args: Any, **kwargs: Any) -> Any:
        if not before:
            work(*args, **kwargs)
        raise OSError("the power is gone")

    return broken


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("where", "name"), [(pq, "write_table"), (os, "fsync"), (Path, "hardlink_to"), (delta, "commit")]
)
def test_what_stops_a_commit_leaves_all_of_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, *, before: bool
) -> None:
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(0)]), COLUMNS, until=1)
    tables.advance(1)
    with monkeypatch.context() as broken:
        broken.setattr(where, name, _breaking(getattr(where, name), before=before))
        with pytest.raises(OSError, match="the power is gone"):
            tables.append("people", table_of([plain(1, name=SECRET)], first=1), COLUMNS, until=2)
    again = tables_in(tmp_path)
    committed = name in ("hardlink_to", "commit") and not before
    assert again.done("people") == (2 if committed else 1)
    if not committed:
        again.append("people", table_of([plain(1, name=SECRET)], first=1), COLUMNS, until=2)
    assert names_in(tmp_path) == ["n0", SECRET]


def test_what_a_crash_left_of_a_file_is_erased_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(0)]), COLUMNS, until=1)
    (first,) = tmp_path.glob("people/*/*.parquet")
    with monkeypatch.context() as broken:
        broken.setattr(lake_commits, "_publish", _breaking(lake_commits._publish, before=True))
        with pytest.raises(OSError, match="the power is gone"):
            tables.append("people", table_of([plain(1, name=SECRET)], first=1), COLUMNS, until=2)
    (whole,) = set(tmp_path.glob("people/*/*.parquet")) - {first}
    part = whole.with_name("part-00000.zstd.parquet#1")  # as deltalake leaves one when it is killed
    part.write_bytes(whole.read_bytes())
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(1, name=SECRET), plain(2)], first=1), COLUMNS, until=3)
    tables.vacuum()
    assert whole.exists()  # a reader of an hour ago may have it
    assert part.exists()
    assert tables.erase([range(1, 2)]) == 0
    assert holding(tmp_path, SECRET) == []
    assert names_in(tmp_path) == ["n0", "n2"]


def test_what_a_crash_left_is_gone_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(0)]), COLUMNS, until=1)
    (file,) = tmp_path.glob("people/*/*.parquet")
    entry = tmp_path / "people/_delta_log/00000000000000000002.a.new"
    left = [file.with_name("part-1.zstd.parquet"), file.with_name("part-2.zstd.parquet#1"), entry]
    for path in left:
        path.write_bytes(b"of a process that was killed")
        then = datetime.now(UTC) - timedelta(hours=2)
        os.utime(path, (then.timestamp(), then.timestamp()))
    tables.vacuum()
    assert [path.exists() for path in (file, *left)] == [True, False, False, False]


def test_checkpoints_are_made_and_a_table_opens_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "_CHECKPOINT_VERSIONS", 5)
    monkeypatch.setitem(delta._CONFIGURATION, "delta.checkpointInterval", "5")
    monkeypatch.setattr(delta, "_SMALL_FILES", 4)  # deltalake's commits come between ours
    tables = tables_in(tmp_path)
    for number in range(17):
        tables.append("people", table_of([plain(number)], first=number), COLUMNS, until=number + 1)
        tables.compact()
    log = tmp_path / "people/_delta_log"
    version = max(int(path.name[:20]) for path in log.glob("*.json"))
    made = sorted(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    assert made == list(range(4, version + 1, 5))
    for path in log.glob("*.json"):
        if int(path.name[:20]) < made[-1]:
            path.unlink()
    again = tables_in(tmp_path)
    assert again.done("people") == 17
    assert len(names_in(tmp_path)) == 17


def test_a_column_that_is_new_comes_before_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = [column for column in COLUMNS if column.name not in ("Größe", "at")]
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(0)]).select(schema_of(older).names), older, until=1)
    rows = table_of([plain(1, Größe=math.inf)], first=1)
    with monkeypatch.context() as broken:
        broken.setattr(delta, "commit", _breaking(commit, before=True))
        with pytest.raises(OSError, match="the power is gone"):
            tables.append("people", rows, COLUMNS, until=2)
    tables = tables_in(tmp_path)
    tables.append("people", rows, COLUMNS, until=2)
    tables.append("people", table_of([plain(2)], first=2).select(schema_of(older).names), older, until=3)
    table = DeltaTable(tmp_path / "people")
    fields: Any = table.schema().to_arrow()
    assert {field.name: field.type for field in pa.schema(fields)} == {field.name: field.type for field in SCHEMA}
    assert [row["Größe"] for row in rows_of(table)] == [None, math.inf, None]


def test_the_logs_entry_is_json_as_the_protocol_has_it(tmp_path: Path) -> None:
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(0), plain(1, **{DAY: date(2024, 3, 1)})]), COLUMNS, until=9)
    lines = (tmp_path / "people/_delta_log/00000000000000000001.json").read_bytes().splitlines()
    info, first, second, transaction = map(orjson.loads, lines)
    assert info["commitInfo"]["operation"] == "WRITE"
    assert [each["add"]["partitionValues"] for each in (first, second)] == [{DAY: "2024-02-29"}, {DAY: "2024-03-01"}]
    assert orjson.loads(second["add"]["stats"]) == {
        "numRecords": 1,
        "minValues": {"_partition": 0, "_offset": 1, "_contract_version": "1.0.0"},
        "maxValues": {"_partition": 0, "_offset": 1, "_contract_version": "1.0.0"},
        "nullCount": dict.fromkeys(STATISTICS, 0),
    }
    assert transaction == {"txn": {"appId": "log/a/0/0", "version": 9}}


@pytest.mark.parametrize("left", [b"", b"\0" * 300, b'{"commitInfo":{"time'], ids=["empty", "zeros", "half"])
@pytest.mark.parametrize("torn", [0, -1], ids=["first", "last"])
def test_a_log_that_a_power_cut_has_torn_is_written_anew(tmp_path: Path, torn: int, left: bytes) -> None:
    tables = tables_in(tmp_path)
    for until in (1, 2):
        tables.append("people", table_of([plain(until - 1)]), COLUMNS, until=until)
        tables.advance(until)
    entries = sorted((tmp_path / "people/_delta_log").glob("*.json"))
    entries[torn].write_bytes(left)
    again = tables_in(tmp_path)
    assert again.done("people") < 2
    for until in range(again.done("people") + 1, 3):
        again.append("people", table_of([plain(until - 1)]), COLUMNS, until=until)
        again.advance(until)
    assert len(rows_of(DeltaTable(tmp_path / "people"))) == 2


def test_a_table_that_cannot_be_read_for_another_reason_is_left_as_it_is(tmp_path: Path) -> None:
    tables = tables_in(tmp_path)
    tables.append("people", table_of([plain(0)]), COLUMNS, until=1)
    entry = tmp_path / "people/_delta_log/00000000000000000000.json"
    entry.write_bytes(entry.read_bytes().replace(b'"minReaderVersion":', b'"minReaderVersion":9'))
    with pytest.raises(DeltaError):
        tables_in(tmp_path)
    assert entry.exists()
