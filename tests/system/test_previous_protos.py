"""This release's messages and the previous one's, side by side: nothing is lost on the way through either."""

from collections.abc import Iterator
from functools import cache

import pytest
from counterfoil.common.v1 import options_pb2
from counterfoil_gateway import api
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.system import previous_client
from tests.system.doors import annotated_methods
from tests.system.previous_client import PreviousDoor
from tests.system.story import World

DEEPEST = 4
NEW_VALUE = 1000
"""A number that no enum has in either release."""

_NUMBERS = {
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 0.25,
    FieldDescriptor.TYPE_FLOAT: 0.25,
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: b"\x00bytes",
    FieldDescriptor.TYPE_ENUM: NEW_VALUE,
}


def _descriptors(pool: descriptor_pool.DescriptorPool, files: descriptor_pb2.FileDescriptorSet) -> Iterator[Descriptor]:
    for file in files.file:
        if file.package.startswith("counterfoil."):
            waiting = list(pool.FindFileByName(file.name).message_types_by_name.values())
            while waiting:
                found = waiting.pop()
                waiting += found.nested_types
                if not found.GetOptions().map_entry:
                    yield found


@cache
def present() -> dict[str, Descriptor]:
    """Return this release's messages by name."""
    files = previous_client.ordered(api.image())
    return {each.full_name: each for each in _descriptors(previous_client.pool_of(files), files)}


@cache
def previous() -> dict[str, Descriptor]:
    """Return the previous release's messages by name."""
    return {each.full_name: each for each in _descriptors(previous_client.pool(), previous_client.files())}


def filled(descriptor: Descriptor, *, choice: int, depth: int = 0) -> Message:
    """Return a message in which every field is set, of each oneof the one at `choice`; enums have a new value."""
    message = message_factory.GetMessageClass(descriptor)()
    chosen = {oneof.fields[choice % len(oneof.fields)].name for oneof in descriptor.oneofs}
    for field in descriptor.fields:
        if field.containing_oneof is not None and field.name not in chosen:
            continue
        entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
        if entry is not None:
            _fill_map(message, field, entry, choice=choice, depth=depth)
        elif field.message_type is not None:
            if depth < DEEPEST:
                inside = filled(field.message_type, choice=choice, depth=depth + 1)
                target = getattr(message, field.name)
                target.append(inside) if field.is_repeated else target.CopyFrom(inside)
        elif field.is_repeated:
            getattr(message, field.name).extend([_value(field), _value(field)])
        else:
            setattr(message, field.name, _value(field))
    return message


def _fill_map(message: Message, field: FieldDescriptor, entry: Descriptor, *, choice: int, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    target = getattr(message, field.name)
    if value.message_type is None:
        target[_value(key)] = _value(value)
    elif depth < DEEPEST:
        target[_value(key)].CopyFrom(filled(value.message_type, choice=choice, depth=depth + 1))


def _value(field: FieldDescriptor) -> object:
    return _NUMBERS.get(field.type, 7)


def _most_choices(descriptor: Descriptor) -> int:
    return max((len(oneof.fields) for oneof in descriptor.oneofs), default=1)


@pytest.mark.parametrize("name", sorted(previous()))
def test_a_message_loses_nothing_on_its_way_through_the_other_release(name: str):
    ours, theirs = present()[name], previous()[name]
    for sender, relay in ((ours, theirs), (theirs, ours)):
        for choice in range(_most_choices(sender)):
            sent = filled(sender, choice=choice)
            relayed = message_factory.GetMessageClass(relay).FromString(sent.SerializeToString())
            back = message_factory.GetMessageClass(sender).FromString(relayed.SerializeToString())
            assert back == sent
            assert back.ByteSize() == sent.ByteSize()


def test_every_public_method_of_the_previous_release_was_called_by_its_own_client(
    worlds: tuple[World, World], previous_door: PreviousDoor
):
    had = previous_client.methods().keys() & annotated_methods().keys()
    assert len(had) > 60
    assert previous_door.called == had
    assert worlds[1].answers.keys() >= had  # and its answers are compared with those of REST: see test_same_answers


def test_no_public_method_of_the_previous_release_is_gone():
    public = {
        f"{service.name}/{method.name}"
        for file in previous_client.files().file
        for service in file.service
        for method in service.method
        if _is_public(method)
    }
    assert public <= {f"{method.service}/{method.rpc}" for method in api.load(api.image()).methods}


def _is_public(method: descriptor_pb2.MethodDescriptorProto) -> bool:
    """Return whether it can be called from outside; the option is read as this release declares it."""
    options = descriptor_pb2.MethodOptions.FromString(method.options.SerializeToString())
    return bool(options.Extensions[options_pb2.public])
