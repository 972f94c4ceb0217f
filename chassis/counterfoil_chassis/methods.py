"""What a method's descriptor says about who may call it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from counterfoil.common.v1 import options_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from counterfoil_chassis.errors import PermissionDeniedError, StartError
from counterfoil_chassis.identity import Caller, require_scope


class ServiceNotAllowedError(PermissionDeniedError):
    """The method is not for services, or not for this one."""

    reason = "SERVICE_NOT_ALLOWED"


@dataclass(frozen=True)
class Method:
    """One RPC: `/package.Service/Name`, the scope a principal needs, the services that may call for themselves.

    A `point_read` returns one thing by its id, and may be carried by shared calls.
    """

    path: str
    scope: str
    services: frozenset[str]
    request: type[Message]
    point_read: bool = False

    def check(self, caller: Caller) -> None:
        """Raise PermissionDeniedError unless the caller may call it; with neither option nobody may."""
        if caller.service:
            if caller.service not in self.services:
                raise ServiceNotAllowedError(
                    f"the service {caller.service} may not call this for itself", metadata={"method": self.path}
                )
        elif self.scope:
            require_scope(caller, self.scope)
        else:
            raise ServiceNotAllowedError("only services call this", metadata={"method": self.path})


def methods_of(service: str) -> Iterator[Method]:
    """Yield the methods of a service by its full name; raise StartError when its protos are not imported."""
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise StartError(f"the service {service} is not in the imported protos") from None
    for method in descriptor.methods:
        yield _method(method)


def follows(path: str) -> bool:
    """Say whether a method's answers go on without end: a Watch, or one that is read from an offset on."""
    descriptor = _descriptor(path)
    asked = descriptor.input_type.fields_by_name if descriptor is not None else {}
    return descriptor is not None and ("after_revision" in asked or "from_offset" in asked)


def repeatable(image: bytes) -> list[tuple[str, str]]:
    """Return service and name of the methods that may be called again when nobody knows whether the first call did it.

    Reads change nothing. What only services call takes the same message twice, since outboxes deliver at least once.
    Some say it of themselves, by protobuf's own option. Anything else could happen twice: its caller repeats it, with a
    `request_id`.
    """
    return [
        (f"{file.package}.{service.name}", method.name)
        for file in FileDescriptorSet.FromString(image).file
        for service in file.service
        for method in service.method
        if file.package.startswith("counterfoil.") and _is_repeatable(method.options)
    ]


def _is_repeatable(options: MethodOptions) -> bool:
    if options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN:
        return True
    scope = options.Extensions[options_pb2.scope]
    return scope.endswith(".read") if scope else bool(options.Extensions[options_pb2.services])


def _descriptor(path: str) -> MethodDescriptor | None:
    try:
        return descriptor_pool.Default().FindMethodByName(path.removeprefix("/").replace("/", "."))
    except KeyError:
        return None


def _method(method: MethodDescriptor) -> Method:
    options = method.GetOptions()
    return Method(
        path=f"/{method.containing_service.full_name}/{method.name}",
        scope=options.Extensions[options_pb2.scope],
        services=frozenset(options.Extensions[options_pb2.services]),
        request=GetMessageClass(method.input_type),
        point_read=options.Extensions[options_pb2.point_read],
    )
