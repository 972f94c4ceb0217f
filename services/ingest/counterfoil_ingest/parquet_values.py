"""Turn the columns of a Parquet file into JSON, a column at a time."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_ingest import json_columns
from counterfoil_ingest.json_columns import Array, JsonColumn, Mask
from counterfoil_ingest.registry import ColumnType

_EXACT_DIGITS = 15  # so many decimal digits a float64 keeps, and 10 ** _EXACT_SCALE it holds exactly
_EXACT_SCALE = 22
_PLAIN_SCALE = 6  # smaller decimals may be written with an exponent
_YEARS = tuple(int(np.datetime64(f"{year}-01-01", "us").astype(np.int64)) for year in ("0001", "10000"))


def parquet_column(array: Array, wanted: ColumnType | None) -> JsonColumn:
    """Return a Parquet column as JSON, decimals with every digit; raise pa.ArrowInvalid on a text that is not UTF-8."""
    if pa.types.is_dictionary(array.type):
        if len(array.dictionary) <= len(array):  # each distinct value is converted once
            return parquet_column(array.dictionary, wanted).take(array.indices)
        array = array.dictionary_decode()
    convert = next((convert for fits, convert in _CONVERTERS if fits(array.type)), _anything)
    return convert(array, wanted)


def _integers(array: Array, _wanted: ColumnType | None) -> JsonColumn:
    return json_columns.integers(array)


def _booleans(array: Array, _wanted: ColumnType | None) -> JsonColumn:
    return json_columns.booleans(array)


def _texts(array: Array, _wanted: ColumnType | None) -> JsonColumn:
    return json_columns.strings(array.cast(pa.string()))


def _floats(array: Array, wanted: ColumnType | None) -> JsonColumn:
    """Return floats; where integers are wanted, whole ones are integers."""
    values = array.cast(pa.float64())
    if wanted is ColumnType.BIGINT:
        numbers = values.fill_null(0.0).to_numpy()
        with np.errstate(invalid="ignore"):
            whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < 2.0**63)
        integers = json_columns.integers(pa.array(np.where(whole, numbers, 0).astype(np.int64)))
        if (whole | np.isnan(numbers)).all():
            absent = pa.array(~whole | ~json_columns.mask_of(values.is_valid()))
            return JsonColumn(*(pc.if_else(absent, None, each) for each in (integers.texts, integers.values)))
        column = json_columns.floats(values)
        texts = pc.if_else(column.texts.is_valid(), pc.if_else(pa.array(whole), integers.texts, column.texts), None)
        return JsonColumn(texts, integers.values, ~whole)
    return json_columns.floats(values)


def _decimals(array: Array, wanted: ColumnType | None) -> JsonColumn:
    """Return decimals as numbers where a JSON number keeps every digit, else as texts."""
    kind = array.type
    if wanted is ColumnType.VARCHAR and 0 <= kind.scale <= _PLAIN_SCALE:
        texts = array.cast(pa.string())
        return JsonColumn(pc.binary_join_element_wise('"', texts, '"', ""), texts)
    short = pa.types.is_decimal128(kind) and kind.precision <= _EXACT_DIGITS and 0 <= kind.scale <= _EXACT_SCALE
    if short and wanted is not ColumnType.VARCHAR:
        return _short_decimals(array, wanted)
    return json_columns.parsed(None if value is None else _decimal(value, wanted) for value in array.to_pylist())


def _short_decimals(array: Array, wanted: ColumnType | None) -> JsonColumn:
    filled = array.fill_null(0)
    words = np.frombuffer(filled.buffers()[1], np.int64)[2 * filled.offset : 2 * (filled.offset + len(filled)) : 2]
    # Both sides of the division are exact, so that its result is the float nearest to the decimal.
    column = json_columns.floats(pa.array(words / 10.0**array.type.scale))
    whole = words % 10**array.type.scale == 0
    texts = column.texts
    if wanted is not ColumnType.DOUBLE and whole.any():
        integers = json_columns.integers(pa.array(words // 10**array.type.scale))
        if whole.all():
            column, texts = integers, integers.texts
        else:
            texts = pc.if_else(pa.array(whole), integers.texts, texts)
    if array.null_count:
        texts = pc.if_else(array.is_valid(), texts, None)
    return JsonColumn(texts, column.values)


def _moments(array: Array, wanted: ColumnType | None) -> JsonColumn:
    """Return timestamps in ISO 8601, zoneless ones without a zone, to the second where no fraction is lost."""
    zoned = array.type.tz is not None
    exact = array.cast(pa.timestamp("us", "UTC" if zoned else None), safe=array.type.unit != "ns")
    micros = exact.cast(pa.int64()).fill_null(0).to_numpy()
    strange = (micros < _YEARS[0]) | (micros >= _YEARS[1])
    usual = np.where(strange, 0, micros) if strange.any() else micros
    fractions = usual % 1_000_000 != 0
    texts = pa.array(usual // 1_000_000).cast(pa.timestamp("s")).cast(pa.string())
    if fractions.any():
        texts = pc.if_else(pa.array(fractions), pa.array(usual).cast(pa.timestamp("us")).cast(pa.string()), texts)
    texts = pc.binary_replace_slice(texts, start=10, stop=11, replacement="T")
    if zoned:
        texts = pc.binary_join_element_wise(texts, "Z", "")
    elif wanted is ColumnType.DATE:
        days = pc.binary_slice(texts.cast(pa.binary()), 0, 10).cast(pa.string())
        texts = pc.if_else(pa.array(usual % 86_400_000_000 == 0), days, texts)
    return _times(array, texts, strange, micros.view("datetime64[us]"))


def _days(array: Array, _wanted: ColumnType | None) -> JsonColumn:
    dates = array.cast(pa.date32())
    days = dates.cast(pa.int32()).fill_null(0).to_numpy()
    strange = (days < _YEARS[0] // 86_400_000_000) | (days >= _YEARS[1] // 86_400_000_000)
    return _times(array, dates.cast(pa.string()), strange, days.astype("datetime64[D]"))


def _times(array: Array, texts: Array, strange: Mask, exact: Any) -> JsonColumn:
    """Return times as JSON; those of a year without four digits are `strange`, and written by numpy."""
    if strange.any():
        written = pa.array(np.datetime_as_string(exact[strange]).tolist(), pa.string())
        texts = pc.replace_with_mask(texts, pa.array(strange), written)
    if array.null_count:
        texts = pc.if_else(array.is_valid(), texts, None)
    return JsonColumn(pc.binary_join_element_wise('"', texts, '"', ""), texts)


def _anything(array: Array, _wanted: ColumnType | None) -> JsonColumn:
    return json_columns.parsed(array.to_pylist(), default=_plain)


def _decimal(value: Any, wanted: ColumnType | None) -> Any:
    if wanted is ColumnType.VARCHAR:
        return str(value)
    if value == value.to_integral_value() and abs(value) < 1 << 63 and wanted is not ColumnType.DOUBLE:
        return int(value)
    return float(value) if len(value.as_tuple().digits) <= _EXACT_DIGITS else str(value)


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Array, ColumnType | None], JsonColumn]], ...] = (
    (pa.types.is_integer, _integers),
    (pa.types.is_floating, _floats),
    (pa.types.is_string, _texts),
    (pa.types.is_large_string, _texts),
    (pa.types.is_string_view, _texts),
    (pa.types.is_timestamp, _moments),
    (pa.types.is_boolean, _booleans),
    (pa.types.is_date, _days),
    (pa.types.is_decimal, _decimals),
)
