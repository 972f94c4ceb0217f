"""Columns as JSON: the text of each value as a record holds it, made for a whole column at once.

The texts are those that `orjson.dumps` writes. Beside them stand the values themselves as one Arrow array, so that a
contract can be held against a column without parsing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = Any  # a pyarrow.Array of any kind: the stubs have a class for each
Mask: TypeAlias = npt.NDArray[np.bool_]

_ESCAPED = r'["\\\x00-\x1f]'  # what JSON writes otherwise within a string; orjson leaves everything else as it is


@dataclass(frozen=True, slots=True)
class JsonColumn:
    """One property of consecutive rows.

    `texts` (string) is null where a row has no value. `values` are the same values as integers, float64, booleans or
    strings; where `odd`, or when there are no `values`, only the text tells what it is.
    """

    texts: Array
    values: Array | None
    odd: Mask | None = None

    def take(self, indices: Array) -> JsonColumn:
        """Return the rows at these indexes; a null index makes a row without a value."""
        odd = None if self.odd is None else pa.array(self.odd).take(indices).fill_null(False)
        values = None if self.values is None else self.values.take(indices)
        return JsonColumn(self.texts.take(indices), values, None if odd is None else mask_of(odd))


def mask_of(booleans: Array) -> Mask:
    """Return a boolean array without nulls as numpy has it."""
    mask: Mask = booleans.to_numpy(zero_copy_only=False)
    return mask


def integers(values: Array) -> JsonColumn:
    """Return integers of any width."""
    return JsonColumn(values.cast(pa.string()), values)


def booleans(values: Array) -> JsonColumn:
    """Return true and false."""
    return JsonColumn(values.cast(pa.string()), values)


def strings(values: Array) -> JsonColumn:
    """Return texts; raise pa.ArrowInvalid when one is not UTF-8."""
    values.validate(full=True)
    return JsonColumn(quoted(values), values)


def floats(values: Array) -> JsonColumn:
    """Return float64; NaN is no value, infinity (which JSON lacks) a text."""
    numbers = values.fill_null(0.0).to_numpy()
    finite = np.isfinite(numbers)
    if finite.all():
        return JsonColumn(_only_where(values, float_texts(numbers)), values)
    values = pc.if_else(pa.array(np.isnan(numbers)), None, values)
    infinite = np.isinf(numbers)
    named = pc.if_else(pa.array(numbers > 0), '"inf"', '"-inf"')
    texts = pc.if_else(pa.array(infinite), named, float_texts(np.where(finite, numbers, 0.0)))
    return JsonColumn(_only_where(values, texts), values, infinite)


def float_texts(numbers: npt.NDArray[np.float64]) -> Array:
    """Return finite floats as JSON writes them."""
    dumped = np.frombuffer(orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)
    inner = dumped[1:-1]
    commas = inner == ord(",")
    ends = np.flatnonzero(commas)
    offsets = np.zeros(len(numbers) + 1, np.int32)
    if len(numbers):
        offsets[1:-1] = ends - np.arange(len(ends))
        offsets[-1] = len(inner) - len(ends)
    return pa.Array.from_buffers(
        pa.string(), len(numbers), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(inner[~commas].tobytes())]
    )


def quoted(texts: Array) -> Array:
    """Return texts as JSON strings."""
    plain = pc.binary_join_element_wise('"', texts, '"', "")
    escaped: Array = pc.match_substring_regex(texts, _ESCAPED)
    if pc.any(escaped).as_py() is not True:
        return plain
    escaped = escaped.fill_null(False)
    written = [orjson.dumps(each).decode() for each in texts.filter(escaped).to_pylist()]
    return pc.replace_with_mask(plain, escaped, pa.array(written, pa.string()))


def parsed(values: Iterable[Any], default: Callable[[Any], Any] | None = None) -> JsonColumn:
    """Return values of any kind, None where there is none; `default` makes JSON of what is no JSON."""
    texts = [None if value is None else orjson.dumps(value, default=default).decode() for value in values]
    return JsonColumn(pa.array(texts, pa.string()), None)


def either(fits: Array, fitting: JsonColumn, texts: Array) -> JsonColumn:
    """Return a column that has `fitting` values where `fits`, and strings elsewhere; a null text is no value."""
    present = texts.is_valid()
    if pc.all(pc.or_(fits, pc.invert(present))).as_py() is not False:
        values = None if fitting.values is None else _only_where(texts, fitting.values)
        return JsonColumn(_only_where(texts, fitting.texts), values)
    mixed = pc.if_else(fits, fitting.texts, quoted(texts))
    return JsonColumn(mixed, fitting.values, mask_of(pc.and_(pc.invert(fits), present)))


def lines(columns: Mapping[str, JsonColumn], count: int, *, spaced: bool = False) -> list[bytes]:
    """Return rows as JSON objects, each in one line; a value that is not there is left out.

    They are as orjson writes them or, `spaced`, as Python's `json` does.
    """
    comma, colon = (", ", ": ") if spaced else (",", ":")
    pieces: list[Any] = []
    optional = any(column.texts.null_count for column in columns.values())
    for name, column in columns.items():
        key = orjson.dumps(name).decode() + colon
        if not optional:
            pieces += [(comma if pieces else "{") + key, column.texts]
        elif column.texts.null_count:
            pieces.append(pc.binary_join_element_wise(comma + key, column.texts, ""))
        else:
            pieces += [comma + key, column.texts]
    if not pieces:
        return [b"{}"] * count
    if not optional:
        return _bytes_of(pc.binary_join_element_wise(*pieces, "}", ""))
    joined = pc.binary_join_element_wise(*pieces, "", null_handling="replace", null_replacement="")
    # Every piece begins with a comma; which of them comes first differs from row to row.
    opened = pc.binary_replace_slice(joined, start=0, stop=len(comma), replacement="{")
    return _bytes_of(pc.binary_join_element_wise(opened, "}", ""))


def _bytes_of(texts: Array) -> list[bytes]:
    plain: list[bytes] = texts.cast(pa.binary()).to_numpy(zero_copy_only=False).tolist()
    return plain


def _only_where(present: Array, values: Array) -> Array:
    """Return values without those at the nulls of another array."""
    return pc.if_else(present.is_valid(), values, None) if present.null_count else values
