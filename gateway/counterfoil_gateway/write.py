"""Messages to JSON: one function per message type, compiled at start.

Names are snake_case; 64-bit integers are strings unless the field says `jstype = JS_NUMBER`; fields without presence
are always there, the others when they are set. What `orjson.dumps` of the result gives is what callers read.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from counterfoil_gateway.fields import WIDE, F, enum_of, is_json, is_number, map_entry, message_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NULL = orjson.Fragment(b"null")
Writer = Callable[[Any], Any]


class Writers:
    """The compiled writers, by message type."""

    def __init__(self) -> None:
        self._known: dict[str, Writer] = dict(SPECIAL)

    def of(self, message: Descriptor) -> Writer:
        """Return the function that turns one message of this type into what orjson takes."""
        name = message.full_name
        if name not in self._known:
            self._known[name] = self._later(name)  # a type may contain itself
            self._known[name] = self._compile(message)
        return self._known[name]

    def _later(self, name: str) -> Writer:
        def write(message: Any) -> Any:
            return self._known[name](message)

        return write

    def _compile(self, message: Descriptor) -> Writer:
        names: dict[str, Any] = {"INF": math.inf}
        always, present = [], []
        for i, field in enumerate(message.fields):
            call, names[f"f{i}"] = self._value(field, f"f{i}")
            expression = call(f"m.{field.name}")
            if field.has_presence:
                present.append(f"    if has({field.name!r}): out[{field.name!r}] = {expression}")
            else:
                always.append(f"{field.name!r}: {expression}")
        has = ["    has = m.HasField"] if present else []
        source = ["def write(m):", f"    out = {{{', '.join(always)}}}", *has, *present, "    return out"]
        exec("\n".join(source), names)  # noqa: S102 - the source holds our own descriptors' names only, as in dataclasses
        write: Writer = names["write"]
        return write

    def _value(self, field: FieldDescriptor, name: str) -> tuple[Callable[[str], str], Any]:
        entry = map_entry(field)
        if entry:
            key = _key(entry)
            call, used = self._singular(entry.fields_by_name["value"], name)
            return (lambda e: f"{{{key}: {call('v')} for k, v in {e}.items()}}"), used
        call, used = self._singular(field, name)
        if field.is_repeated:
            return (lambda e: f"[{call('v')} for v in {e}]"), used
        return call, used

    def _singular(self, field: FieldDescriptor, name: str) -> tuple[Callable[[str], str], Any]:
        """Return how one value is written: a piece of source around its expression, and what that source calls."""
        kind = field.type
        if kind == F.TYPE_ENUM:
            return (lambda e: f"{name}({e}, {e})"), {v.number: v.name for v in enum_of(field).values}.get
        if kind == F.TYPE_BYTES:
            return (lambda e: f"{name}({e})"), _json if is_json(field) else _base64
        if kind == F.TYPE_DOUBLE:
            return (lambda e: f"(x if -INF < (x := {e}) < INF else {name}(x))"), _unbounded
        if kind in WIDE and not is_number(field):
            return (lambda e: f"str({e})"), None
        if kind in (F.TYPE_FLOAT, F.TYPE_MESSAGE):
            return (lambda e: f"{name}({e})"), shortest if kind == F.TYPE_FLOAT else self.of(message_of(field))
        return (lambda e: e), None


def _key(entry: Descriptor) -> str:
    kind = entry.fields_by_name["key"].type
    if kind == F.TYPE_STRING:
        return "k"
    return "str(k).lower()" if kind == F.TYPE_BOOL else "str(k)"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _json(value: bytes) -> orjson.Fragment:
    return orjson.Fragment(value) if value else _NULL


def _unbounded(value: float) -> str:
    """Spell what JSON has no number for, as proto JSON does."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def shortest(value: float) -> float | str:
    """Return the float with the fewest digits that is the same 32-bit float; NaN and infinities are spelled."""
    if not math.isfinite(value):
        return _unbounded(value)
    wire = struct.pack("<f", value)
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= abs(value) * 2 and struct.pack("<f", short) == wire:
            return short
    return value


def _timestamp(message: Any) -> str:
    text = (_EPOCH + timedelta(seconds=message.seconds)).isoformat()[:19]
    nanos = message.nanos
    if not nanos:
        return text + "Z"
    if nanos % 1_000_000 == 0:
        return f"{text}.{nanos // 1_000_000:03d}Z"
    return f"{text}.{nanos // 1_000:06d}Z" if nanos % 1_000 == 0 else f"{text}.{nanos:09d}Z"


def _value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(message.struct_value)
    if kind == "list_value":
        return _list(message.list_value)
    if kind in ("null_value", None):
        return None
    value = getattr(message, kind)
    if kind != "number_value":
        return value
    whole = value.is_integer() and abs(value) < 2**53 and (value or math.copysign(1, value) > 0)
    return int(value) if whole else value


def _struct(message: Any) -> dict[str, Any]:
    return {k: _value(v) for k, v in message.fields.items()}


def _list(message: Any) -> list[Any]:
    return [_value(v) for v in message.values]


def _duration(message: Any) -> str:
    text: str = message.ToJsonString()
    return text


def _mask(message: Any) -> str:
    return ",".join(message.paths)


SPECIAL: dict[str, Writer] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.Value": _value,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
}
