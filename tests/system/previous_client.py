"""A client that knows nothing but the previous release's protos, made from their image."""

from functools import cache
from pathlib import Path
from typing import Any

import grpc
from counterfoil_gateway import api
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from tests.system.doors import refusal, to_json

IMAGE = Path(__file__).parents[2] / "protos" / "released.binpb"


def ordered(image: bytes) -> descriptor_pb2.FileDescriptorSet:
    """Return an image's files, each after those it imports."""
    names = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(image).file}
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def put(name: str) -> None:
        if name not in found:
            for imported in names[name].dependency:
                put(imported)
            found[name] = names[name]

    for name in names:
        put(name)
    return descriptor_pb2.FileDescriptorSet(file=found.values())


def pool_of(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pool.DescriptorPool:
    """Return the descriptors of files, apart from those of this process's own messages."""
    made = descriptor_pool.DescriptorPool()
    for file in files.file:
        made.AddSerializedFile(file.SerializeToString())
    return made


@cache
def files() -> descriptor_pb2.FileDescriptorSet:
    """Return the previous release's protos."""
    return ordered(IMAGE.read_bytes())


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Return the previous release's descriptors."""
    return pool_of(files())


def message_class(name: str) -> type[Message]:
    """Return a class of that release by its full name; raise KeyError when it had none."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


@cache
def methods() -> dict[str, tuple[str, str]]:
    """Return every method of that release's services: `Service/Method` to its request's and its answer's class."""
    return {
        f"{service.name}/{method.name}": (method.input_type.removeprefix("."), method.output_type.removeprefix("."))
        for file in files().file
        for service in file.service
        for method in service.method
    }


class PreviousDoor:
    """The gRPC door as that release's client uses it; what is new since goes by the present protos."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.called: set[str] = set()
        """Methods of the previous release that were called with its messages."""

    def call(self, method: api.Method, request: Message, *, key: str | None) -> dict[str, Any]:
        """Return the answer as JSON; raise Refusal."""
        name = f"{method.service}/{method.rpc}"
        ours, theirs = (method.input, method.output), (method.input, method.output)
        if name in methods():
            theirs = tuple(message_class(each) for each in methods()[name])
            self.called.add(name)
        call = self._channel.unary_unary(
            method.name,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=theirs[1].FromString,
        )
        asked = theirs[0].FromString(request.SerializeToString())
        try:
            answer = call(asked, timeout=60, metadata=(("x-api-key", key),) if key else ())
        except grpc.RpcError as error:
            raise refusal(error) from None
        # What it does not know it has kept, and hands on.
        return to_json(ours[1].FromString(answer.SerializeToString()))
