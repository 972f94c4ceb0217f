"""Turn the columns of a Parquet file into JSON values, a column at a time."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from counterfoil_ingest.registry import ColumnType

Array: TypeAlias = Any  # a pyarrow.Array of any kind: the stubs have a class for each


def parquet_values(array: Array, wanted: ColumnType | None) -> list[Any]:
    """Return a Parquet column as JSON values, None where there is none; decimals keep every digit."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    convert = next((convert for fits, convert in _CONVERTERS if fits(array.type)), _anything)
    return convert(array, wanted)


def _integers(array: Array, _wanted: ColumnType | None) -> list[Any]:
    return _with_nulls(array, array.fill_null(0))


def _booleans(array: Array, _wanted: ColumnType | None) -> list[Any]:
    return _with_nulls(array, array.fill_null(False))


def _texts(array: Array, _wanted: ColumnType | None) -> list[Any]:
    texts: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
    return texts


def _decimals(array: Array, wanted: ColumnType | None) -> list[Any]:
    return [None if value is None else _decimal(value, wanted) for value in array.to_pylist()]


def _anything(array: Array, _wanted: ColumnType | None) -> list[Any]:
    plain: list[Any] = orjson.loads(orjson.dumps(array.to_pylist(), default=_plain))
    return plain


def _with_nulls(array: Array, values: Any) -> list[Any]:
    plain: list[Any] = (values if isinstance(values, np.ndarray) else values.to_numpy(zero_copy_only=False)).tolist()
    if array.null_count:
        for index in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)):
            plain[index] = None
    return plain


def _floats(array: Array, wanted: ColumnType | None) -> list[Any]:
    """Return floats; NaN is no value, infinity (which JSON lacks) a text; whole ones are integers where wanted."""
    values = array.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    plain: list[Any] = values.tolist()
    if not np.isfinite(values).all():
        for index in np.flatnonzero(~np.isfinite(values)):
            plain[index] = None if np.isnan(values[index]) else str(plain[index])
    if wanted is ColumnType.BIGINT:
        plain = [int(value) if isinstance(value, float) and value.is_integer() else value for value in plain]
    return plain


def _moments(array: Array, wanted: ColumnType | None) -> list[Any]:
    """Return timestamps in ISO 8601, zoneless ones without a zone, to the second where no fraction is lost."""
    zoned = array.type.tz is not None
    moments = array.cast(pa.timestamp("us", "UTC" if zoned else None), safe=False)
    exact = moments.cast(pa.int64()).fill_null(0).to_numpy().view("datetime64[us]")
    if wanted is ColumnType.DATE and not zoned and (exact == exact.astype("datetime64[D]")).all():
        return _with_nulls(array, np.datetime_as_string(exact.astype("datetime64[D]")))
    seconds = exact.astype("datetime64[s]")
    texts = np.datetime_as_string(seconds if (exact == seconds).all() else exact)
    return _with_nulls(array, np.char.add(texts, "Z") if zoned else texts)


def _days(array: Array, _wanted: ColumnType | None) -> list[Any]:
    days = array.cast(pa.date32()).cast(pa.int32()).fill_null(0).to_numpy().astype("datetime64[D]")
    return _with_nulls(array, np.datetime_as_string(days))


def _decimal(value: Any, wanted: ColumnType | None) -> Any:
    """Return a decimal as a number where a JSON number keeps every digit of it, else as text."""
    if wanted is ColumnType.VARCHAR:
        return str(value)
    if value == value.to_integral_value() and abs(value) < 1 << 63 and wanted is not ColumnType.DOUBLE:
        return int(value)
    return float(value) if len(value.as_tuple().digits) <= 15 else str(value)


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Array, ColumnType | None], list[Any]]], ...] = (
    (pa.types.is_integer, _integers),
    (pa.types.is_floating, _floats),
    (pa.types.is_string, _texts),
    (pa.types.is_large_string, _texts),
    (pa.types.is_timestamp, _moments),
    (pa.types.is_boolean, _booleans),
    (pa.types.is_date, _days),
    (pa.types.is_decimal, _decimals),
)
