"""`/schema-registry`: the API of Kafka's schema registries, so that their clients work here with nothing but a URL.

It differs from our own paths in what real clients need: an API key as the password of Basic authentication, subjects
that hold an encoded slash or a colon, slashes at the end, booleans in any case, error bodies of an `error_code` and a
`message`. Each operation is one method of `contracts.v1.SchemaService`, called with the caller's token.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from counterfoil.contracts.v1.schemas_pb2 import Schema
from counterfoil_chassis.call import enter_deadline
from google.protobuf.message import Message

from counterfoil_gateway.api import Api, Method
from counterfoil_gateway.asgi import App, Receive, Reply, Scope, Send
from counterfoil_gateway.bodies import parse, read_body, refuse_encoding
from counterfoil_gateway.calls import Calls, Metadata
from counterfoil_gateway.deadlines import left, timeout_of
from counterfoil_gateway.metrics import REFUSALS
from counterfoil_gateway.problems import C, Problem
from counterfoil_gateway.reads import Readable
from counterfoil_gateway.registry_operations import ALL, OPERATIONS, Asked, Operation, schema_json, schema_request
from counterfoil_gateway.routes import Routes
from counterfoil_gateway.serve import Identify, answered, named, problem_of

PREFIX: Final = "/schema-registry"
SERVICE: Final = "/counterfoil.contracts.v1.SchemaService/"
MEDIA_TYPES: Final = (
    "application/vnd.schemaregistry.v1+json",
    "application/vnd.schemaregistry+json",
    "application/json",
)
"""What answers may be; the first unless the caller prefers another."""
_MOST: Final = 10_000
"""Items of one answer of contracts."""
_ERRORS: Final[Mapping[str, tuple[int, int]]] = {
    "PATH_NOT_FOUND": (404, 404),
    "SUBJECT_NOT_FOUND": (404, 40401),
    "SCHEMA_VERSION_NOT_FOUND": (404, 40402),
    "SCHEMA_NOT_FOUND": (404, 40403),
    "SUBJECT_SOFT_DELETED": (404, 40404),
    "SUBJECT_NOT_SOFT_DELETED": (404, 40405),
    "SCHEMA_VERSION_SOFT_DELETED": (404, 40406),
    "SCHEMA_VERSION_NOT_SOFT_DELETED": (404, 40407),
    "SUBJECT_CONFIG_NOT_FOUND": (404, 40408),
    "SUBJECT_MODE_NOT_FOUND": (404, 40409),
    "SCHEMA_INCOMPATIBLE": (409, 40901),
    "SCHEMA_INVALID": (422, 42201),
    "SCHEMA_TYPE_UNSUPPORTED": (422, 42201),
    "SCHEMA_METADATA_INVALID": (422, 42201),
    "SCHEMA_VERSION_INVALID": (422, 42202),
    "COMPATIBILITY_LEVEL_INVALID": (422, 42203),
    "SUBJECT_MODE_INVALID": (422, 42204),
    "SUBJECT_NOT_WRITABLE": (422, 42205),
    "SCHEMA_REFERENCED": (422, 42206),
    "SCHEMA_ID_TAKEN": (422, 42207),
    "SUBJECT_INVALID": (422, 42208),
    "SCHEMA_TOO_LARGE": (422, 42209),
    "BODY_TOO_LARGE": (422, 42209),
    "SCHEMA_RULE_SET_INVALID": (422, 42210),
    "BAD_FIELD": (422, 422),
    "BAD_JSON": (422, 422),
    "SCOPE_MISSING": (403, 40301),
    "INTERNAL": (500, 50001),
}
"""HTTP status and error code by reason; whatever is not named here has its HTTP status as its code."""


class SchemaRegistry:
    """Serves the operations, and passes every request for another path on."""

    def __init__(self, api: Api, calls: Calls, identify: Identify) -> None:
        self.then: App
        """What serves other paths."""
        self._calls = calls
        self._identify = identify
        self._methods = {each.rpc: api.named(SERVICE + each.rpc) for each in OPERATIONS}
        self._routes: Routes[Operation] = Routes()
        for operation in OPERATIONS:
            self._routes.add(operation)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        rest = path.removeprefix(PREFIX.encode())
        if scope["type"] != "http" or rest == path or rest[:1] not in (b"", b"/"):
            await self.then(scope, receive, send)
            return
        headers = with_key(dict(scope["headers"]))
        try:
            reply = await self._answer(scope, receive, headers, rest)
        except Exception as error:  # noqa: BLE001 - every failure becomes an error body
            reply = refusal(error, scope, headers)
        if reply is not None:
            await reply.to(send)

    async def _answer(
        self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], rest: bytes
    ) -> Reply | None:
        operation, found = self._routes.find(scope["method"], rest.rstrip(b"/").replace(b":", b"%3A") or b"/")
        method = self._methods[operation.rpc]
        named(scope, operation.verb, PREFIX + operation.path)
        enter_deadline(timeout_of(headers, method))
        metadata = await self._identify(scope, headers, method)
        body: Any = {}
        if operation.has_body:
            refuse_encoding(headers)
            body = parse(await read_body(receive, headers))
            if not isinstance(body, dict):
                raise Problem(C.INVALID_ARGUMENT, "the body is not a JSON object", "BAD_JSON")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = Asked(found, query, body)
        answer = await self._called(operation, method, asked, headers=headers, metadata=metadata, receive=receive)
        return None if answer is None else written(operation.answer(answer, asked), headers)

    async def _called(
        self,
        operation: Operation,
        method: Method,
        asked: Asked,
        *,
        headers: Mapping[bytes, bytes],
        metadata: Metadata,
        receive: Receive,
    ) -> Message | None:
        """Return the method's answer, all parts of a list put together; None when the caller has left."""
        if operation.request is None:
            return method.output()
        request: Any = operation.request(asked)
        offset, limit = (asked.number("offset", 0), asked.number("limit", ALL)) if operation.pages else (0, ALL)
        whole = method.output()
        while True:
            if operation.pages:
                request.offset, request.limit = max(offset, 0), _MOST if limit < 0 else min(limit, _MOST)
                if not request.limit:
                    return whole
            call = self._calls.unary(method)(
                request.SerializeToString(), timeout=left(headers, method), metadata=metadata
            )
            raw = await answered(call, receive)
            if raw is None:
                return None
            part = method.output.FromString(raw)
            whole.MergeFrom(part)
            taken = sum(len(values) for descriptor, values in part.ListFields() if descriptor.is_repeated)
            offset, limit = offset + taken, limit - taken if limit > 0 else limit
            if not operation.pages or taken < request.limit or not limit:
                return whole


def with_key(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the headers with the password of Basic authentication as what it is here: an API key."""
    scheme, _, encoded = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic" or b"x-api-key" in headers:
        return headers
    try:
        _, _, key = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        key = b""
    headers[b"x-api-key"] = key or b"none"
    return headers


def refusal(error: Exception, scope: Scope, headers: Mapping[bytes, bytes]) -> Reply | None:
    """Return the answer to a request that failed, as clients of registries know it; None when nobody waits for one."""
    problem = problem_of(error, scope)
    if problem is None:
        return None
    REFUSALS.labels(problem.reason).inc()
    status, code = _ERRORS.get(problem.reason, (problem.status, problem.status))
    message = problem.detail
    if problem.errors:
        message += " " + "; ".join(f"{each.code} at {each.field}: {each.detail}" for each in problem.errors)
    reply = written({"error_code": code, "message": message}, headers, status=status)
    challenge = {"www-authenticate": 'Basic realm="counterfoil"'} if status == 401 else {}
    more = {**problem.headers, **challenge}
    return Reply(status, reply.content, [*reply.fields, *((k.encode(), v.encode()) for k, v in more.items())])


def written(value: Any, headers: Mapping[bytes, bytes], *, status: int = 200) -> Reply:
    """Return a JSON value, or the bytes that are one, in the media type that the caller prefers."""
    accepted = headers.get(b"accept", b"").decode("latin-1")
    kind = next((each for each in MEDIA_TYPES if each in accepted), MEDIA_TYPES[0])
    content = value if isinstance(value, bytes) else orjson.dumps(value)
    return Reply(status, content, [(b"content-type", kind.encode())])


class SchemaById(Readable):
    """`GET /schemas/ids/{id}`, which every consumer asks for each schema that it meets; a query says nothing more."""

    takes_query = True

    def __init__(self, api: Api) -> None:
        super().__init__(api.named(SERVICE + "GetSchema"), f"{PREFIX}/schemas/ids/{{schema_id}}")

    def headers(self, scope: Scope) -> dict[bytes, bytes]:
        """Return the request's headers, the password of Basic authentication among them as an API key."""
        return with_key(super().headers(scope))

    def asked(self, found: str, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the method's request for an id; raise Problem when it is no number."""
        return schema_request(Asked({"schema_id": found}, (), {})).SerializeToString()

    def told(self, raw: bytes, headers: Mapping[bytes, bytes]) -> Reply:
        """Return the schema as clients of registries know it."""
        return written(schema_json(Schema.FromString(raw)), headers)

    def refused(self, error: Exception, scope: Scope, headers: Mapping[bytes, bytes]) -> Reply | None:
        """Return the error body of a read that failed."""
        return refusal(error, scope, headers)
