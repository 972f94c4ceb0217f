"""What the writer, the reader and the document all ask of a field's descriptor."""

from __future__ import annotations

from typing import cast

from counterfoil.common.v1 import options_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

F = FieldDescriptor
JS_NUMBER = 2
"""`FieldOptions.JSType.JS_NUMBER`: this 64-bit integer is a JSON number, held to the range that survives as one."""
SAFE_INTEGER = 2**53 - 1
OUTPUT_ONLY = 3
REQUIRED = 2
"""`google.api.FieldBehavior` values (AIP-203)."""

WIDE = frozenset({F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_SINT64, F.TYPE_FIXED64, F.TYPE_SFIXED64})
_SIGNED_32, _SIGNED_64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
RANGES: dict[int, tuple[int, int]] = {
    F.TYPE_INT32: _SIGNED_32,
    F.TYPE_SINT32: _SIGNED_32,
    F.TYPE_SFIXED32: _SIGNED_32,
    F.TYPE_UINT32: (0, 2**32 - 1),
    F.TYPE_FIXED32: (0, 2**32 - 1),
    F.TYPE_INT64: _SIGNED_64,
    F.TYPE_SINT64: _SIGNED_64,
    F.TYPE_SFIXED64: _SIGNED_64,
    F.TYPE_UINT64: (0, 2**64 - 1),
    F.TYPE_FIXED64: (0, 2**64 - 1),
}


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """Return the entry type of a map field, None of any other."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def message_name(field: FieldDescriptor) -> str:
    """Return the full name of the field's message type, empty for a scalar or an enum."""
    return field.message_type.full_name if field.message_type is not None else ""


def is_json(field: FieldDescriptor) -> bool:
    """Say whether this `bytes` field holds one JSON text (option `counterfoil.common.v1.json`)."""
    return field.type == F.TYPE_BYTES and bool(field.GetOptions().Extensions[options_pb2.json])


def is_number(field: FieldDescriptor) -> bool:
    """Say whether a 64-bit integer travels as a JSON number rather than a string."""
    return int(field.GetOptions().jstype) == JS_NUMBER


def raw_media_types(field: FieldDescriptor) -> tuple[str, ...]:
    """Return the media types whose body is this field, byte for byte."""
    return tuple(field.GetOptions().Extensions[options_pb2.raw_media_types])


def raw_field(message: Descriptor) -> FieldDescriptor | None:
    """Return the field that can be a whole request body; a message has at most one."""
    return next((f for f in message.fields if raw_media_types(f)), None)


def behaves(field: FieldDescriptor, behavior: int) -> bool:
    """Say whether the field is annotated with a `google.api.field_behavior`."""
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def integer_range(field: FieldDescriptor) -> tuple[int, int]:
    """Return the least and greatest value an integer field takes in JSON."""
    low, high = RANGES[field.type]
    if field.type in WIDE and is_number(field):
        return max(low, -SAFE_INTEGER), min(high, SAFE_INTEGER)
    return low, high


def descriptor(message: Message | type[Message]) -> Descriptor:
    """Return a message's descriptor (of the C implementation, whose type differs in name only)."""
    return cast("Descriptor", message.DESCRIPTOR)


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the type of a message field; raise TypeError for any other."""
    if field.message_type is None:
        raise TypeError(field.full_name)
    return field.message_type


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """Return the type of an enum field; raise TypeError for any other."""
    if field.enum_type is None:
        raise TypeError(field.full_name)
    return field.enum_type
