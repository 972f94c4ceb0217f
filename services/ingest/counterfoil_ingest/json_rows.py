"""Rows of a query as JSON: decimals are strings, times RFC 3339, bytes base64, NaN and infinity null."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

_WHOLE = frozenset({"HUGEINT", "UHUGEINT"})
_INT64 = range(-(1 << 63), 1 << 63)


def rows_json(table: pa.Table, types: Sequence[str]) -> bytes:
    """Return a JSON array of arrays; `types` are the columns' types in SQL.

    A HUGEINT, which is what SUM makes of integers, is a number as long as 64 bits hold it, else a string.
    """
    return orjson.dumps(list(zip(*values_of(table, types), strict=True)), default=plain, option=orjson.OPT_UTC_Z)


def values_of(table: pa.Table, types: Sequence[str]) -> list[list[Any]]:
    """Return the values of each column; `plain` writes those that JSON does not have."""
    return [_values(column, kind) for column, kind in zip(table.columns, types, strict=True)]


def _values(column: Any, kind: str) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # Python's times end at the microsecond; the zone's name must be one that JSON shows as Z.
        column = column.cast(pa.timestamp("us", "UTC" if column.type.tz else None), safe=False)
    values: list[Any] = column.to_pylist()
    if kind in _WHOLE:
        return [_whole(value) for value in values]
    return values


def _whole(value: Decimal | None) -> int | str | None:
    if value is None:
        return None
    return int(value) if int(value) in _INT64 else str(value)


def plain(value: Any) -> str:
    """Return as text what JSON does not have."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
