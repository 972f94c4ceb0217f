"""Read lines of JSON as columns, where a file is flat and written as programs usually write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_ingest import json_columns
from counterfoil_ingest.json_columns import JsonColumn, mask_of
from counterfoil_ingest.registry import ColumnType

_KINDS: Mapping[ColumnType, tuple[type, pa.DataType]] = {
    ColumnType.VARCHAR: (str, pa.string()),
    ColumnType.BIGINT: (int, pa.int64()),
    ColumnType.DOUBLE: (float, pa.float64()),
    ColumnType.BOOLEAN: (bool, pa.bool_()),
    ColumnType.DATE: (str, pa.string()),
    ColumnType.TIMESTAMPTZ: (str, pa.string()),
}


class FlatLines:
    """Lines that have the properties of a first one, in their order; `spaced` as Python's `json` writes them."""

    def __init__(self, names: Sequence[str], types: Mapping[str, ColumnType], *, spaced: bool) -> None:
        self.spaced = spaced
        self._kinds = {name: _KINDS[types[name]] for name in names}
        fields = {f"c{index}": name for index, name in enumerate(names)}
        row: Any = msgspec.defstruct(
            "Row",
            [(field, self._kinds[name][0] | None | msgspec.UnsetType, msgspec.UNSET) for field, name in fields.items()],
            rename=fields,
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(row)

    def columns(self, texts: Sequence[bytes]) -> dict[str, JsonColumn] | None:
        """Return lines as columns; None when one of them has another property or a value of another kind.

        What the columns are written as has to be compared with a line: only when it is the same, they show it.
        """
        try:
            rows = self._decoder.decode_lines(b"\n".join(texts))
            if len(rows) != len(texts):  # a value went over two lines
                return None
            return {
                name: _column(list(map(attrgetter(f"c{index}"), rows)), arrow)
                for index, (name, (_, arrow)) in enumerate(self._kinds.items())
            }
        except (msgspec.DecodeError, pa.ArrowException, OverflowError, UnicodeError):
            return None


def flat_lines(first: bytes, types: Mapping[str, ColumnType]) -> FlatLines | None:
    """Return how lines like the first one of a file are read; None when they are not flat or not all declared."""
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or not value or not all(types.get(name) in _KINDS for name in value):
        return None
    return FlatLines(list(value), types, spaced=orjson.dumps(value) != first)


def _column(values: list[Any], kind: pa.DataType) -> JsonColumn:
    nulls = [value is None for value in values] if None in values else []
    unset = msgspec.UNSET in values
    array: Any = pa.array([None if value is msgspec.UNSET else value for value in values] if unset else values, kind)
    if kind == pa.string():
        column = json_columns.strings(array)
    elif kind == pa.float64():
        column = json_columns.floats(array)
    else:
        column = json_columns.integers(array)
    if not nulls:
        return column
    null = pa.array(nulls)  # said to be null, which is not the same as not said
    return JsonColumn(pc.if_else(null, "null", column.texts), column.values, mask_of(null))
