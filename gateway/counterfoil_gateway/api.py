"""The methods that callers reach, read from the descriptor image: names, HTTP bindings, comments, message classes."""

from __future__ import annotations

import importlib
import importlib.resources
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from counterfoil.common.v1 import options_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_LAST_SEGMENT = re.compile(r"(\{[^}]*\}|[^:{}]*)(:?)(\w*)")
_FIELD_PATH = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
_SHARED = "counterfoil.common."
"""The package of what several services implement."""
_UNPUBLISHED = ("buf:lint", "TODO")
"""Comment lines that speak to developers of the protos, not to callers."""


class UnusableAnnotationError(Exception):
    """An annotation this gateway cannot serve. Raised at start, never on a request."""


@dataclass(frozen=True)
class Binding:
    """One verb and path of a method."""

    verb: str
    path: str
    body: str
    """Empty, `*` or the name of the field that is the body."""
    segments: tuple[str, ...]
    """Literals and `{field.path}`."""
    action: str
    """What follows the colon, e.g. `activate`; empty for none."""


@dataclass(frozen=True)
class Method:
    """One RPC that callers reach."""

    name: str
    """As on the wire: `/counterfoil.ingest.v1.RecordService/ListRecords`."""
    package: str
    service: str
    rpc: str
    scope: str
    input: type[Message]
    output: type[Message]
    client_streaming: bool
    server_streaming: bool
    bindings: tuple[Binding, ...]
    doc: str
    deprecated: bool
    point_read: bool = False
    """Whether it returns one thing by its id, at once."""

    @property
    def follows(self) -> bool:
        """Say whether its answers go on without end, and can be taken up again at the offset that each one names."""
        answers, asked = self.output.DESCRIPTOR.fields_by_name, self.input.DESCRIPTOR.fields_by_name
        return self.server_streaming and "next_offset" in answers and "from_offset" in asked

    @property
    def owner(self) -> str:
        """Return the service that implements it: `ingest` for `counterfoil.ingest.v1`."""
        return self.package.split(".")[1]


@dataclass(frozen=True)
class Api:
    """Everything public, and what stands behind the foreign APIs."""

    methods: tuple[Method, ...]
    comments: dict[str, str]
    """Full name of anything to its comment."""
    foreign: tuple[Method, ...] = ()
    """Methods of the services with a scope that are not public: only routes written by hand reach them."""

    def named(self, name: str) -> Method:
        """Return the method of either kind with this wire name; raise LookupError when there is none."""
        for method in (*self.methods, *self.foreign):
            if method.name == name:
                return method
        raise LookupError(name)


def image() -> bytes:
    """Return the descriptor image that the generated code was made with."""
    return importlib.resources.files("counterfoil").joinpath("api.binpb").read_bytes()


def load(content: bytes) -> Api:
    """Read the methods that callers reach out of a `FileDescriptorSet`; raise UnusableAnnotationError."""
    comments: dict[str, str] = {}
    methods: list[Method] = []
    foreign: list[Method] = []
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        if not file.package.startswith("counterfoil."):
            continue
        comments.update(_comments(file))
        module = importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        for service in module.DESCRIPTOR.services_by_name.values():
            methods += [_method(m, comments) for m in service.methods if _is_public(m)]
            if not file.package.startswith(_SHARED):
                foreign += [_method(m, comments) for m in service.methods if _is_foreign(m)]
    return Api(tuple(methods), comments, tuple(foreign))


def _is_public(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().Extensions[options_pb2.public])


def _is_foreign(method: MethodDescriptor) -> bool:
    return not _is_public(method) and bool(method.GetOptions().Extensions[options_pb2.scope])


def _method(method: MethodDescriptor, comments: dict[str, str]) -> Method:
    options = method.GetOptions()
    bindings: tuple[Binding, ...] = ()
    if options.HasExtension(annotations_pb2.http):
        rule = options.Extensions[annotations_pb2.http]
        bindings = tuple(_binding(r, method) for r in (rule, *rule.additional_bindings))
    service = method.containing_service
    scope = options.Extensions[options_pb2.scope]
    if not scope:
        message = f"{method.full_name}: a public method needs a scope"
        raise UnusableAnnotationError(message)
    return Method(
        name=f"/{service.full_name}/{method.name}",
        package=service.file.package,
        service=service.name,
        rpc=method.name,
        scope=scope,
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        bindings=bindings,
        doc=comments.get(method.full_name, ""),
        deprecated=options.deprecated,
        point_read=options.Extensions[options_pb2.point_read],
    )


def _binding(rule: Any, method: MethodDescriptor) -> Binding:
    verb = rule.WhichOneof("pattern")
    if verb in (None, "custom"):
        message = f"{method.full_name}: no HTTP verb"
        raise UnusableAnnotationError(message)
    path: str = getattr(rule, verb)
    where = f"{method.full_name} {path}"
    if method.client_streaming:
        message = f"{where}: client streaming has no REST form"
        raise UnusableAnnotationError(message)
    if rule.response_body:
        message = f"{where}: response_body is not served"
        raise UnusableAnnotationError(message)
    segments, action = _segments(path, where)
    for name in variables(segments):
        field_at(method.input_type, name)
    if rule.body not in ("", "*"):
        field_at(method.input_type, rule.body)
    return Binding(verb.upper(), path, rule.body, segments, action)


def _segments(path: str, where: str) -> tuple[tuple[str, ...], str]:
    *head, last = path.removeprefix("/").split("/")
    match = _LAST_SEGMENT.fullmatch(last)
    if match is None or not path.startswith("/"):
        message = f"{where}: the path cannot be read"
        raise UnusableAnnotationError(message)
    segments = (*head, match[1])
    for segment in segments:
        if "{" in segment and not (segment.endswith("}") and _FIELD_PATH.fullmatch(segment[1:-1])):
            message = f"{where}: only {{field}} and {{field.path}} are served"
            raise UnusableAnnotationError(message)
    return segments, match[3]


def variables(segments: Sequence[str]) -> list[str]:
    """Return the field paths that a path names, in order."""
    return [s[1:-1] for s in segments if s.startswith("{")]


def field_at(message: Descriptor, dotted: str) -> FieldDescriptor:
    """Return the field at a dotted path; raise UnusableAnnotationError."""
    *parents, leaf = dotted.split(".")
    inside: Descriptor | None = message
    for name in parents:
        field = inside.fields_by_name.get(name) if inside else None
        inside = field.message_type if field else None
    if inside is None or leaf not in inside.fields_by_name:
        text = f"{message.full_name} has no field {dotted}"
        raise UnusableAnnotationError(text)
    return inside.fields_by_name[leaf]


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yield full names and comments: a source path such as (4, 0, 2, 1) is message 0, field 1."""
    for location in file.source_code_info.location:
        text = location.leading_comments or location.trailing_comments
        if text:
            yield _full_name(file, location.path), _clean(text)


def _full_name(file: descriptor_pb2.FileDescriptorProto, path: Sequence[int]) -> str:
    node: Any = file
    names = [file.package]
    for tag, index in zip(path[::2], path[1::2], strict=False):
        node = getattr(node, node.DESCRIPTOR.fields_by_number[tag].name)
        if not hasattr(node, "__getitem__"):
            break
        node = node[index]
        names.append(getattr(node, "name", ""))
    return ".".join(names)


def _clean(text: str) -> str:
    lines = [line.removeprefix(" ").rstrip() for line in text.strip("\n").split("\n")]
    return "\n".join(line for line in lines if not line.startswith(_UNPUBLISHED)).strip()
