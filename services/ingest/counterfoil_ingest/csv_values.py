"""Turn the texts of a CSV column into the values of its contract column, a column at a time.

A text that does not convert stays a text, so that validation quarantines its row and says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_ingest import validation
from counterfoil_ingest.parquet_values import Array
from counterfoil_ingest.registry import ColumnType

_INTEGER = r"^[+-]?[0-9]{1,18}$"  # 19 digits may exceed 64 bits: they stay a text
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SPACED = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2})"


def typed_values(texts: Array, wanted: ColumnType | None) -> list[Any]:
    """Return the values of a column, None where the field was empty."""
    if wanted is ColumnType.BIGINT:
        return _matching(texts, _INTEGER, pa.int64())
    if wanted is ColumnType.DOUBLE:
        return _matching(texts, _NUMBER, pa.float64())
    if wanted is ColumnType.BOOLEAN:
        return [_boolean(text) for text in _plain(texts)]
    if wanted is ColumnType.TIMESTAMPTZ:  # `2017-01-01 11:53` is how databases and spreadsheets write it
        return _plain(pc.replace_substring_regex(texts, _SPACED, r"\1T\2"))
    if wanted is ColumnType.JSON:
        return [_json(text) for text in _plain(texts)]
    return _plain(texts)


def _plain(texts: Array) -> list[Any]:
    values: list[Any] = texts.to_numpy(zero_copy_only=False).tolist()
    return values


def _matching(texts: Array, pattern: str, target: pa.DataType) -> list[Any]:
    """Convert the texts of a pattern; leave the others as they are."""
    trimmed = pc.utf8_trim_whitespace(texts)
    fits = pc.match_substring_regex(trimmed, pattern).fill_null(False)
    unsigned = pc.replace_substring_regex(trimmed, r"^\+", "")
    numbers = pc.if_else(fits, unsigned, "0").cast(target).to_numpy(zero_copy_only=False)
    values: list[Any] = numbers.tolist()
    left = np.flatnonzero(~fits.to_numpy(zero_copy_only=False))
    if target == pa.float64():
        left = np.union1d(left, np.flatnonzero(~np.isfinite(numbers)))  # 1e999
    if left.size:
        plain = _plain(texts)
        for index in left:
            values[index] = plain[index]
    return values


def _boolean(text: str | None) -> Any:
    lowered = text.strip().lower() if text else None
    return lowered == "true" if lowered in ("true", "false") else text


def _json(text: str | None) -> Any:
    if not text or text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return text if validation.nests_too_deep(text.encode(), value) else value
