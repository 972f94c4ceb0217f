"""Turn the texts of a CSV column into the JSON of its contract column, a column at a time.

A text that does not convert stays a text, so that validation quarantines its row and says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_ingest import json_columns, validation
from counterfoil_ingest.json_columns import Array, JsonColumn
from counterfoil_ingest.registry import ColumnType

_INTEGER = r"^[+-]?[0-9]{1,18}$"  # 19 digits may exceed 64 bits: they stay a text
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_PLAIN_INTEGER = r"^-?[0-9]{1,18}$"
_PLAIN_NUMBER = r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$"
_SPACED = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2})"


def csv_column(texts: Array, wanted: ColumnType | None, decimal: str = "") -> JsonColumn:
    """Return the values of a column; an empty field is none.

    With a `decimal`, the sign before decimals, numbers are as people write them: with thousands apart, too.
    """
    if wanted is ColumnType.BIGINT:
        return _integers(texts, decimal)
    if wanted is ColumnType.DOUBLE:
        return _floats(texts, decimal)
    convert = _CONVERTERS.get(wanted, json_columns.strings) if wanted else json_columns.strings
    return convert(texts)


def _integers(texts: Array, decimal: str) -> JsonColumn:
    if not decimal and _all_match(texts, _PLAIN_INTEGER):
        return json_columns.integers(texts.cast(pa.int64()))
    fits, digits = _matching(texts, _INTEGER, decimal)
    return json_columns.either(fits, json_columns.integers(digits.cast(pa.int64())), texts)


def _floats(texts: Array, decimal: str) -> JsonColumn:
    if not decimal and _all_match(texts, _PLAIN_NUMBER):
        return json_columns.floats(texts.cast(pa.float64()))
    fits, digits = _matching(texts, _NUMBER, decimal)
    numbers = digits.cast(pa.float64())
    finite = np.isfinite(numbers.to_numpy())
    if not finite.all():  # 1e999
        fits = pc.and_(fits, pa.array(finite))
    return json_columns.either(fits, json_columns.floats(numbers), texts)


def _booleans(texts: Array) -> JsonColumn:
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    true, false = (pc.equal(lowered, pa.scalar(word)).fill_null(False) for word in ("true", "false"))
    return json_columns.either(pc.or_(true, false), json_columns.booleans(true), texts)


def _moments(texts: Array) -> JsonColumn:
    # `2017-01-01 11:53` is how databases and spreadsheets write it.
    return json_columns.strings(pc.replace_substring_regex(texts, _SPACED, r"\1T\2"))


def _all_match(texts: Array, pattern: str) -> bool:
    """Tell whether every text is of a pattern, nulls aside: most columns need no more."""
    return pc.all(pc.match_substring_regex(texts, pattern)).as_py() is not False


def _matching(texts: Array, pattern: str, decimal: str) -> tuple[Array, Array]:
    """Return which texts are of a pattern, and the texts, trimmed and without a plus sign; "0" for the others."""
    trimmed = pc.utf8_trim_whitespace(texts)
    if decimal:
        trimmed = _as_programs_write(trimmed, decimal)
    fits = pc.match_substring_regex(trimmed, pattern).fill_null(False)
    return fits, pc.if_else(fits, pc.replace_substring_regex(trimmed, r"^\+", ""), "0")


def _as_programs_write(texts: Array, decimal: str) -> Array:
    """Return `1.234,5` as `1234.5`; what does not fit the sign, such as `1234.5` with a comma, becomes empty."""
    apart = "." if decimal == "," else ","
    whole = rf"([0-9]{{1,3}}({re.escape(apart)}[0-9]{{3}})+|[0-9]*)"
    fits = pc.match_substring_regex(texts, rf"^[+-]?{whole}({re.escape(decimal)}[0-9]+)?([eE][+-]?[0-9]+)?$")
    written = pc.replace_substring(pc.replace_substring(texts, apart, ""), decimal, ".")
    return pc.if_else(fits, written, "")


def _json_column(texts: Array) -> JsonColumn:
    found = [_json(text) for text in texts.to_pylist()]
    whole = pa.array([value is not None for value in found])
    return json_columns.either(whole, JsonColumn(pa.array(found, pa.string()), None), texts)


def _json(text: str | None) -> str | None:
    """Return an object or array as it is stored; None when it is neither."""
    if not text or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return None if validation.nests_too_deep(text.encode(), value) else orjson.dumps(value).decode()


_CONVERTERS: Mapping[ColumnType, Callable[[Array], JsonColumn]] = {
    ColumnType.BOOLEAN: _booleans,
    ColumnType.TIMESTAMPTZ: _moments,
    ColumnType.JSON: _json_column,
}
