"""Turn the texts of a CSV column into the JSON of its contract column, a column at a time.

A text that does not convert stays a text, so that validation quarantines its row and says why.
"""

from __future__ import annotations

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_ingest import json_columns, validation
from counterfoil_ingest.json_columns import Array, JsonColumn
from counterfoil_ingest.registry import ColumnType

_INTEGER = r"^[+-]?[0-9]{1,18}$"  # 19 digits may exceed 64 bits: they stay a text
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SPACED = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2})"


def csv_column(texts: Array, wanted: ColumnType | None) -> JsonColumn:
    """Return the values of a column; an empty field is none."""
    if wanted is ColumnType.BIGINT:
        fits, digits = _matching(texts, _INTEGER)
        return json_columns.either(fits, json_columns.integers(digits.cast(pa.int64())), texts)
    if wanted is ColumnType.DOUBLE:
        fits, digits = _matching(texts, _NUMBER)
        numbers = digits.cast(pa.float64())
        finite = np.isfinite(numbers.to_numpy())
        if not finite.all():  # 1e999
            fits = pc.and_(fits, pa.array(finite))
        return json_columns.either(fits, json_columns.floats(numbers), texts)
    if wanted is ColumnType.BOOLEAN:
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
        true, false = (pc.equal(lowered, pa.scalar(word)).fill_null(False) for word in ("true", "false"))
        fits = pc.or_(true, false)
        return json_columns.either(fits, json_columns.booleans(true), texts)
    if wanted is ColumnType.TIMESTAMPTZ:  # `2017-01-01 11:53` is how databases and spreadsheets write it
        return json_columns.strings(pc.replace_substring_regex(texts, _SPACED, r"\1T\2"))
    if wanted is ColumnType.JSON:
        return _json_column(texts)
    return json_columns.strings(texts)


def _matching(texts: Array, pattern: str) -> tuple[Array, Array]:
    """Return which texts are of a pattern, and the texts, trimmed and without a plus sign; "0" for the others."""
    trimmed = pc.utf8_trim_whitespace(texts)
    fits = pc.match_substring_regex(trimmed, pattern).fill_null(False)
    return fits, pc.if_else(fits, pc.replace_substring_regex(trimmed, r"^\+", ""), "0")


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
