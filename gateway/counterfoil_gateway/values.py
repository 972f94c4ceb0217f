"""One JSON value or one piece of text to one protobuf value, strictly: what Python would let pass is refused here."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from counterfoil_gateway.fields import RANGES, F, enum_of, integer_range, is_json

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity")
_MASK = re.compile(r"([A-Za-z0-9_.]+(,[A-Za-z0-9_.]+)*)?")
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a request."""

    field: str
    """Path as the caller wrote it, e.g. `series[2].name`."""
    code: str
    detail: str


@dataclass
class Faults:
    """Everything wrong with a request, in the order it was found."""

    found: list[Fault] = field(default_factory=list)

    def add(self, path: str, code: str, detail: str) -> None:
        """Keep one fault."""
        self.found.append(Fault(path, code, detail))


def kind_of(value: Any) -> str:
    """Return what a JSON value is, with its article."""
    return _KINDS.get(type(value), "a number")


class RefusedError(Exception):
    """This value cannot be the field's."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def scalar(field: FieldDescriptor, value: Any, path: str, faults: Faults, *, text: bool = False) -> Any:
    """Return the value of a scalar or enum field, or None with a fault.

    `text` says that it comes from a path, a query or a map key, where everything is a string.
    """
    try:
        if text and field.type == F.TYPE_BOOL:
            value = {"true": True, "false": False}.get(value, value)
        elif text and is_json(field):
            value = _parsed(value)
        return _READERS[field.type](field, value)
    except RefusedError as refused:
        faults.add(path, refused.code, str(refused))
        return None


def _string(_field: FieldDescriptor, value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError("type", f"must be a string, not {kind_of(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedError("type", "must be valid UTF-8") from None
    return value


def _boolean(_field: FieldDescriptor, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise RefusedError("type", f"must be true or false, not {kind_of(value)}")


def _integer(field: FieldDescriptor, value: Any) -> int:
    spelled = isinstance(value, str) and _INTEGER.fullmatch(value)
    if spelled or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise RefusedError("type", f"must be a whole number, not {kind_of(value)}")
    low, high = integer_range(field)
    if not low <= number <= high:
        raise RefusedError("range", f"must be from {low} to {high}")
    return number


def _number(field: FieldDescriptor, value: Any) -> float:
    spelled = isinstance(value, str) and _FLOAT.fullmatch(value)
    if isinstance(value, bool) or not (spelled or isinstance(value, int | float)):
        raise RefusedError("type", f"must be a number, not {kind_of(value)}")
    number = float(value)
    if math.isinf(number) and not (spelled and value.endswith("Infinity")):
        raise RefusedError("range", "too large for a 64-bit float")
    if field.type == F.TYPE_FLOAT and math.isfinite(number):
        try:
            struct.pack("<f", number)
        except OverflowError:
            raise RefusedError("range", "too large for a 32-bit float") from None
    return number


def _enum(field: FieldDescriptor, value: Any) -> int:
    names = enum_of(field).values_by_name
    if isinstance(value, str) and value in names:
        return names[value].number
    raise RefusedError("enum", "must be one of " + ", ".join(names))


def _bytes(field: FieldDescriptor, value: Any) -> bytes:
    if is_json(field):  # any value; null is what an empty field is written as
        return b"" if value is None else orjson.dumps(value)
    if not isinstance(value, str):
        raise RefusedError("type", f"must be a string, not {kind_of(value)}")
    try:
        standard = value.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError:  # binascii.Error, or a letter outside ASCII
        raise RefusedError("type", "must be base64") from None


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        raise RefusedError("format", "must be JSON") from None


_READERS: dict[int, Callable[[FieldDescriptor, Any], Any]] = {
    **dict.fromkeys(RANGES, _integer),
    F.TYPE_STRING: _string,
    F.TYPE_BOOL: _boolean,
    F.TYPE_DOUBLE: _number,
    F.TYPE_FLOAT: _number,
    F.TYPE_ENUM: _enum,
    F.TYPE_BYTES: _bytes,
}


def _time(into: Any, value: Any, path: str, faults: Faults) -> None:
    what = "an RFC 3339 time such as 2026-01-31T09:30:00Z" if isinstance(into, Timestamp) else "seconds such as 3.5s"
    try:
        into.FromJsonString(value)
        into.ToJsonString()  # raises when the parts parsed but are out of range
    except (ValueError, TypeError, AttributeError, OverflowError):
        into.Clear()
        faults.add(path, "format", f"must be {what}")


def _mask(into: Any, value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, str):
        faults.add(path, "type", "must be names joined by commas")
    elif not _MASK.fullmatch(value):
        faults.add(path, "format", "must be names joined by commas")
    else:
        into.paths.extend(snake_case(p) for p in value.split(",") if p)


def snake_case(name: str) -> str:
    """Return `displayName` as `display_name`; a snake_case name stays as it is."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _any(into: Any, value: Any, path: str, faults: Faults) -> None:
    if value is None:
        into.null_value = 0
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = float(value)
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, list):
        into.list_value.SetInParent()
        _list(into.list_value, value, path, faults)
    else:
        into.struct_value.SetInParent()
        _struct(into.struct_value, value, path, faults)


def _struct(into: Any, value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict):
        faults.add(path, "type", f"must be an object, not {kind_of(value)}")
        return
    for k, v in value.items():
        _any(into.fields[k], v, f"{path}.{k}", faults)


def _list(into: Any, value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list):
        faults.add(path, "type", f"must be a list, not {kind_of(value)}")
        return
    for i, v in enumerate(value):
        _any(into.values.add(), v, f"{path}[{i}]", faults)


SPECIAL: dict[str, Callable[[Any, Any, str, Faults], None]] = {
    "google.protobuf.Timestamp": _time,
    "google.protobuf.Duration": _time,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.Value": _any,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
}
"""Well-known types with a JSON form of their own."""
AS_TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})
"""Those that can be a query parameter."""
