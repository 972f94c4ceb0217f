"""Rows of a table of the lake with values of every kind, and how they are read back by deltalake."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from counterfoil_ingest.arrow import DAY, LakeColumn, schema_of
from counterfoil_ingest.delta import WorkspaceTables
from counterfoil_ingest.lake_commits import STATISTICS
from counterfoil_ingest.lake_places import FolderPlace
from counterfoil_ingest.registry import ColumnType
from deltalake import DeltaTable
from hypothesis import strategies as st

COLUMNS = [
    LakeColumn("name", ColumnType.VARCHAR),
    LakeColumn("count", ColumnType.BIGINT),
    LakeColumn("Größe", ColumnType.DOUBLE),
    LakeColumn("paid", ColumnType.BOOLEAN),
    LakeColumn("day", ColumnType.DATE),
    LakeColumn("at", ColumnType.TIMESTAMPTZ),
    LakeColumn("tags", ColumnType.JSON),
]
SCHEMA = schema_of(COLUMNS)
_EXTREMES = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["", "x" * 100, "é" * 40, "\U0010ffff" * 33, "\x00", "null", "%2F/=", "__HIVE_DEFAULT_PARTITION__"]
)
_int64 = st.integers(-(2**63), 2**63 - 1)
_days = st.dates() | st.sampled_from([date.min, date.max])
_values: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): _texts,
    pa.int64(): _int64,
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.date32(): _days,
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(UTC)) | st.sampled_from(_EXTREMES),
}
_received = st.sampled_from([date(1, 1, 1), date(999, 12, 31), date(2024, 2, 29), date(9999, 12, 31)])
hostile_rows = st.fixed_dictionaries(
    {field.name: st.none() | _values[field.type] for field in SCHEMA if field.name not in (*STATISTICS, DAY)}
    | {"_partition": st.just(0), "_contract_version": st.none() | _texts, DAY: _received}
)


def table_of(rows: list[dict[str, Any]], *, first: int = 0) -> pa.Table:
    """Return rows with offsets from `first` on."""
    found = [row | {"_offset": first + number} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(found, schema=SCHEMA)


def plain(number: int, **changes: Any) -> dict[str, Any]:
    """Return one row of nothing but a name, and changes."""
    row = dict.fromkeys(SCHEMA.names) | {"name": f"n{number}", "_partition": 0, "_contract_version": "1.0.0"}
    return row | {DAY: date(2024, 2, 29), "_received_at": datetime(2024, 2, 29, tzinfo=UTC)} | changes


def tables_in(folder: Path) -> WorkspaceTables:
    """Open the tables of a folder."""
    return WorkspaceTables(FolderPlace(folder), life="a/0")


def rows_of(table: DeltaTable) -> list[dict[str, Any]]:
    """Return a table's rows in the order of the log; what is not a number is said by its text, to be compared."""
    rows = table.to_pyarrow_table().select(SCHEMA.names).sort_by("_offset").to_pylist()
    return [{name: "nan" if _is_nan(value) else value for name, value in row.items()} for row in rows]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def statistics_of(table: DeltaTable) -> list[dict[str, Any]]:
    """Return what the log says of each file but for its name, size and time."""
    unlike = ("path", "size_bytes", "modification_time")
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    found = [{name: value for name, value in each.items() if name not in unlike} for each in actions]
    return sorted(found, key=lambda each: each["min._offset"])
