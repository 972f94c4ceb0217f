"""Reads by id: one bare ASGI application in front of the generated door, for the methods that say `point_read`.

What is read at the same time from one service travels in one call. The answers are those of the generated door, made
by the same transcoders; whatever is not the plain case (a query, an escaped id, another verb) is passed on to it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from counterfoil.common.v1.calls_pb2 import CallItem, CallManyRequest, CallManyResponse, CallResult
from counterfoil_chassis.call import enter_deadline, outgoing
from counterfoil_chassis.coalesce import Coalescer
from counterfoil_chassis.errors import Code
from counterfoil_chassis.guarded import GuardedChannel
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.kept import Kept
from counterfoil_chassis.metrics import Series
from counterfoil_chassis.spans import HotSpan
from counterfoil_chassis.status import DETAILS_KEY
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status

from counterfoil_gateway.api import Method
from counterfoil_gateway.asgi import SECURITY, App, Fields, Receive, Reply, Scope, Send
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.deadlines import timeout_of
from counterfoil_gateway.metrics import LEFT, REQUESTS
from counterfoil_gateway.problems import C
from counterfoil_gateway.serve import Identify, Transcoded, refused
from counterfoil_gateway.serving import home
from counterfoil_gateway.transcode import Arrived, Transcoder

CALL_MANY = "/counterfoil.common.v1.CallService/CallMany"
KEPT_BYTES = 8 << 20
"""Of each method's requests, and of its answers as JSON."""
_ALONE = frozenset({Code.ABORTED, Code.UNIMPLEMENTED})
"""What a service says that wants the method called itself: it takes long, or is of a release without shared calls."""
_CODES = {code.value[0]: code for code in C}


class SharedReads:
    """What is asked of one service, together."""

    def __init__(self, channel: GuardedChannel, *, signer: TokenSigner) -> None:
        """Take an untraced channel: each item carries its own trace."""
        self._call: Any = channel.unary_unary(
            CALL_MANY,
            request_serializer=CallManyRequest.SerializeToString,
            response_deserializer=CallManyResponse.FromString,
        )
        self._dependency = channel.dependency
        self._signer = signer
        self._items: Coalescer[CallItem, CallResult] = Coalescer(self._send, size_of=_size_of)

    async def ask(self, item: CallItem, *, seconds: float) -> CallResult:
        """Return an item's result; raise what the shared call failed with, or what its absence means."""
        item.timeout.CopyFrom(_duration(seconds))
        try:
            return await self._items.ask(item, timeout=seconds)
        except TimeoutError:
            raise self._dependency.late() from None

    async def _send(self, items: Sequence[CallItem], seconds: float) -> Sequence[CallResult]:
        call = outgoing(default=seconds, signer=self._signer)
        response: CallManyResponse = await self._call(CallManyRequest(items=items), **call)
        return response.results


@dataclass(frozen=True)
class Written:
    """An answer as it is sent."""

    fields: Fields
    content: bytes


class Readable(ABC):
    """One path that ends with the id, and how it is spoken: what travels in between is the same for all."""

    takes_query = False
    """Whether it is served with a query, too."""

    def __init__(self, method: Method, path: str) -> None:
        self.method = method
        self.name = f"GET {path}"
        self.prefix = path.rpartition("/")[0]
        self.series: Series = REQUESTS.of(self.name)
        self.attributes = {"http.request.method": "GET", "http.route": path}
        self._requests: Kept[str, bytes] = Kept(KEPT_BYTES)
        self._answers: Kept[tuple[bytes, bytes], Written] = Kept(KEPT_BYTES)

    def headers(self, scope: Scope) -> dict[bytes, bytes]:
        """Return the request's headers as `request`, `answer` and `refused` take them."""
        return dict(scope["headers"])

    def request(self, found: str, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the request for an id; raise Problem when it breaks a rule."""
        known = self._requests.get(found)
        if known is None:
            known = self.asked(found, headers)
            self._requests.put(found, known, size=2 * len(found))
        return known

    def answer(self, raw: bytes, headers: Mapping[bytes, bytes]) -> tuple[int, Written]:
        """Return the status and what is sent for a message's bytes; the same bytes are written as JSON once."""
        key = (raw, headers.get(b"accept", b""))
        known = self._answers.get(key)
        if known is None:
            known = whole(self.told(raw, headers))
            self._answers.put(key, known, size=len(raw) + len(key[1]) + len(known.content))
        return 200, known

    @abstractmethod
    def asked(self, found: str, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the method's request for an id; raise Problem when it breaks a rule."""

    @abstractmethod
    def told(self, raw: bytes, headers: Mapping[bytes, bytes]) -> Reply:
        """Return the answer that is made of the method's; all that it depends on beside is what is accepted."""

    @abstractmethod
    def refused(self, error: Exception, scope: Scope, headers: Mapping[bytes, bytes]) -> Reply | None:
        """Return the answer to a read that failed; None when nobody waits for one."""


class _Transcoded(Readable):
    """A path of the generated door."""

    def __init__(self, transcoder: Transcoder) -> None:
        super().__init__(transcoder.method, transcoder.binding.path)
        self._variable = transcoder.binding.segments[-1][1:-1]
        self._transcoder = transcoder

    def asked(self, found: str, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the method's request for an id; raise Problem when it breaks a rule."""
        return self._transcoder.request(Arrived({self._variable: found}, b"", b"", headers))

    def answer(self, raw: bytes, headers: Mapping[bytes, bytes]) -> tuple[int, Written]:
        """Return the status and what is sent; nothing of it when the caller has it already."""
        if b"if-none-match" in headers:
            reply = self._transcoder.reply(raw, headers)
            return reply.status, whole(reply)
        return super().answer(raw, {})

    def told(self, raw: bytes, headers: Mapping[bytes, bytes]) -> Reply:
        """Return the answer that is made of the method's."""
        return self._transcoder.reply(raw, headers)

    def refused(self, error: Exception, scope: Scope, headers: Mapping[bytes, bytes]) -> Reply | None:
        """Return the problem document of a read that failed."""
        return refused(error, scope)


class _Read:
    """A readable with the way to who has it."""

    def __init__(self, readable: Readable, shared: SharedReads, calls: Calls) -> None:
        self.readable = readable
        self.method = readable.method
        self._shared = shared
        self._calls = calls

    async def read(self, request: bytes, *, token: str, traceparent: str, seconds: float) -> bytes:
        """Return the answer's bytes; raise AioRpcError as a call of its own does."""
        deadline = time.monotonic() + seconds
        item = CallItem(token=token, method=self.method.name, request=request, traceparent=traceparent)
        try:
            result = await self._shared.ask(item, seconds=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is not C.UNIMPLEMENTED:
                raise
        else:
            if not result.status:
                return result.response
            status = Status.FromString(result.status)
            if status.code not in _ALONE and not (status.code == Code.NOT_FOUND and self._calls.composes(self.method)):
                raise _error(_CODES[status.code], status.message, result.status)
        left = max(0.0, deadline - time.monotonic())
        metadata = (("authorization", f"Bearer {token}"),)
        return await self._calls.unary(self.method)(request, timeout=left, metadata=metadata)


class ReadDoor:
    """Serves reads by id and passes every other request on."""

    def __init__(
        self,
        endpoints: Sequence[Transcoded],
        calls: Calls,
        identify: Identify,
        channels: Mapping[str, GuardedChannel],
        *,
        signer: TokenSigner,
        foreign: Sequence[Readable] = (),
    ) -> None:
        """Take the generated door's endpoints, one untraced channel per service, and what foreign APIs read by id."""
        self.then: App = _nothing
        self._identify = identify
        shared = {name: SharedReads(channel, signer=signer) for name, channel in channels.items()}
        own = [_Transcoded(one.transcoder) for one in endpoints if one.method.point_read and _ends_with_id(one)]
        self._reads = {
            one.prefix: _Read(one, shared[home(one.method.owner, one.method.service, shared)], calls)
            for one in (*own, *foreign)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a read, or pass it on."""
        read, found = self._find(scope)
        if read is None:
            await self.then(scope, receive, send)
            return
        readable = read.readable
        headers = readable.headers(scope)
        traceparent = headers.get(b"traceparent", b"").decode("latin-1")
        with (
            readable.series.counted(LEFT) as counted,
            HotSpan(readable.name, traceparent=traceparent, attributes=readable.attributes) as span,
        ):
            try:
                status, answer = await self._answer(read, found, scope, headers, span=span)
            except Exception as error:  # noqa: BLE001 - every failure becomes an answer
                reply = readable.refused(error, scope, headers)
                if reply is None:
                    return
                status, answer = reply.status, whole(reply)
            span.set_attribute("http.response.status_code", status)
            counted.outcome = str(status)
            await send({"type": "http.response.start", "status": status, "headers": answer.fields})
            await send({"type": "http.response.body", "body": answer.content})

    async def _answer(
        self, read: _Read, found: str, scope: Scope, headers: Mapping[bytes, bytes], *, span: HotSpan
    ) -> tuple[int, Written]:
        seconds = timeout_of(headers, read.method)
        assert seconds is not None  # noqa: S101 - only streams have none
        enter_deadline(seconds)
        [(_, authorization)] = await self._identify(scope, headers, read.method)
        request = read.readable.request(found, headers)
        token = str(authorization).removeprefix("Bearer ")
        raw = await read.read(request, token=token, traceparent=span.traceparent, seconds=seconds)
        return read.readable.answer(raw, headers)

    def _find(self, scope: Scope) -> tuple[_Read | None, str]:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None, ""
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        prefix, _, last = path.decode("latin-1").rpartition("/")
        read = self._reads.get(prefix)
        if read is None or not last or ":" in last or "%" in last or not last.isascii():
            return None, ""
        if scope["query_string"] and not read.readable.takes_query:
            return None, ""
        return read, last


def _ends_with_id(endpoint: Transcoded) -> bool:
    """Say whether only the last segment of the path is a variable, and the read needs no more than it."""
    *literals, last = endpoint.binding.segments
    return last.startswith("{") and "." not in last and not any("{" in part for part in literals)


def whole(reply: Reply) -> Written:
    """Return an answer as it is sent at once."""
    length: Fields = [] if reply.status in (204, 304) else [(b"content-length", str(len(reply.content)).encode())]
    return Written([*reply.fields, *length, *SECURITY], reply.content)


def _error(code: grpc.StatusCode, message: str, status: bytes) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata((DETAILS_KEY, status))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details=message)


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _size_of(item: CallItem) -> int:
    return len(item.token) + len(item.request) + 200


async def _nothing(_scope: Scope, _receive: Receive, _send: Any) -> None:
    raise RuntimeError("nothing stands behind the reads")
