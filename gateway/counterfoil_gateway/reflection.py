"""gRPC reflection at the gRPC door: the public services, and of them the public methods alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from counterfoil.common.v1 import options_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection import aio

from counterfoil_gateway.problems import Problem

SignIn: TypeAlias = Callable[[Mapping[str, str | bytes], str], Awaitable[object]]
"""Metadata and the peer to who is signed in; raises Problem."""


def published(image: bytes) -> tuple[DescriptorPool, list[str]]:
    """Return the descriptors that may be shown, out of a `FileDescriptorSet`, and the names of the services in them."""
    pool, names = DescriptorPool(), []
    for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
        shown = [_public(service) for service in file.service]
        del file.service[:]
        file.service.extend(service for service in shown if service.method)
        file.ClearField("source_code_info")
        names += [f"{file.package}.{service.name}" for service in file.service]
        pool.AddSerializedFile(file.SerializeToString())
    health = health_pb2.DESCRIPTOR
    pool.AddSerializedFile(health.serialized_pb)
    return pool, [*names, *(service.full_name for service in health.services_by_name.values())]


def _public(service: descriptor_pb2.ServiceDescriptorProto) -> descriptor_pb2.ServiceDescriptorProto:
    methods = [each for each in service.method if each.options.Extensions[options_pb2.public]]
    del service.method[:]
    service.method.extend(methods)
    return service


class Reflection(aio.ReflectionServicer):
    """Answers whoever is signed in, or with no `sign_in` everybody."""

    def __init__(self, image: bytes, sign_in: SignIn | None) -> None:
        pool, names = published(image)
        super().__init__(service_names=names, pool=pool)
        self._sign_in = sign_in

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> Any:
        """Answer each question in its turn."""
        if self._sign_in is not None:
            try:
                await self._sign_in(dict(context.invocation_metadata() or ()), context.peer())
            except Problem as problem:
                await context.abort(problem.code, problem.detail, problem.trailers())
        answers: Any = super().ServerReflectionInfo(request_iterator, context)
        async for answer in answers:
            yield answer
