"""The same request through either door: REST made from the annotation, gRPC as it is; answers as JSON by one writer."""

from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
import orjson
from counterfoil_gateway import api, fields
from counterfoil_gateway.write import Writers
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

_WRITERS = Writers()
_COMPILING = Lock()  # two stories are told at once, and writers are of one thread


@cache
def public_methods() -> dict[str, api.Method]:
    """Return every public method of the descriptor image by `Service/Method`."""
    return {f"{method.service}/{method.rpc}": method for method in api.load(api.image()).methods}


@cache
def annotated_methods() -> dict[str, api.Method]:
    """Return the public unary methods that have a REST form."""
    return {
        name: method
        for name, method in public_methods().items()
        if method.bindings and not method.client_streaming and not method.server_streaming
    }


@dataclass
class Refusal(Exception):  # noqa: N818 - an answer, not a fault of the test
    """What a door answers when it refuses."""

    code: str
    reason: str
    metadata: dict[str, str]
    http_status: int | None = None


class Door(Protocol):
    """One way in, with or without a key."""

    def call(self, method: api.Method, request: Message, *, key: str | None) -> dict[str, Any]:
        """Return the answer as JSON; raise Refusal."""


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as the gateway writes it."""
    with _COMPILING:
        write = _WRITERS.of(message.DESCRIPTOR)
    return orjson.loads(orjson.dumps(write(message)))


@dataclass(frozen=True)
class HttpRequest:
    """A message in its REST form."""

    verb: str
    path: str
    query: dict[str, Any]
    content: bytes | None
    headers: dict[str, str]


def to_http(method: api.Method, request: Message) -> HttpRequest:
    """Spell a request in the REST form that its first annotation gives it."""
    binding = method.bindings[0]
    values = {field.name: _plain(request, field) for field, _ in request.ListFields()}
    headers = {"Idempotency-Key": values.pop("request_id")} if "request_id" in values else {}
    segments = [
        quote(str(_take(values, segment[1:-1])), safe="") if segment.startswith("{") else segment
        for segment in binding.segments
    ]
    path = "/" + "/".join(segments) + (f":{binding.action}" if binding.action else "")
    raw = fields.raw_field(request.DESCRIPTOR) if binding.body == "*" else None
    if raw is not None and fields.is_json(raw):
        values.pop(raw.name)
        return HttpRequest(binding.verb, path, values, getattr(request, raw.name), headers | _JSON)
    if binding.body == "*":
        return HttpRequest(binding.verb, path, {}, orjson.dumps(values), headers | _JSON)
    if binding.body:
        return HttpRequest(binding.verb, path, values, orjson.dumps(values.pop(binding.body)), headers | _JSON)
    return HttpRequest(binding.verb, path, values, None, headers)


_JSON = {"Content-Type": "application/json"}


def _plain(request: Message, field: Any) -> Any:
    """Return one set field as JSON; of a message only what is set, as a caller would send it."""
    written = to_json(request)[field.name]
    if field.message_type is not None and not field.is_repeated and isinstance(written, dict):
        inside = getattr(request, field.name)
        return {child.name: _plain(inside, child) for child, _ in inside.ListFields()}
    return written


def _take(values: dict[str, Any], dotted: str) -> Any:
    *parents, leaf = dotted.split(".")
    for name in parents:
        values = values[name]
    return values.pop(leaf, "")


class RestDoor:
    """The REST door."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(self, method: api.Method, request: Message, *, key: str | None) -> dict[str, Any]:
        """Return the answer as JSON; raise Refusal."""
        http = to_http(method, request)
        answer = self._client.request(
            http.verb,
            http.path,
            params=http.query,
            content=http.content,
            headers=http.headers | {"Request-Timeout": "60"} | ({"X-Api-Key": key} if key else {}),
        )
        body = answer.json()
        if answer.status_code != 200:
            raise Refusal(body["code"], body["reason"], body["metadata"], answer.status_code)
        return body


class GrpcDoor:
    """The gRPC door."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, method: api.Method, request: Message, *, key: str | None) -> dict[str, Any]:
        """Return the answer as JSON; raise Refusal."""
        call = self._channel.unary_unary(
            method.name,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        try:
            return to_json(call(request, timeout=60, metadata=(("x-api-key", key),) if key else ()))
        except grpc.RpcError as error:
            raise refusal(error) from None


def refusal(error: grpc.RpcError) -> Refusal:
    """Read a gRPC failure with its ErrorInfo."""
    reason, metadata = "", {}
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                    reason, metadata = info.reason, dict(info.metadata)
    return Refusal(error.code().name, reason, metadata)
