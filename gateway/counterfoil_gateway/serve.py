"""The REST door: one ASGI application that finds the route, signs the caller in, calls, and writes the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc
from counterfoil_chassis.call import enter_deadline
from counterfoil_chassis.errors import CounterfoilError
from opentelemetry import trace

from counterfoil_gateway.admission import PLACE
from counterfoil_gateway.api import Api, Binding, Method
from counterfoil_gateway.asgi import CallerLeftError, Receive, Reply, Scope, Send
from counterfoil_gateway.bodies import read_body, refuse_encoding
from counterfoil_gateway.calls import Calls, Metadata, UnaryCall
from counterfoil_gateway.deadlines import left, timeout_of
from counterfoil_gateway.metrics import COUNTED, REFUSALS, REQUESTS
from counterfoil_gateway.problems import Problem, from_failure, from_rpc, internal
from counterfoil_gateway.read import Reader
from counterfoil_gateway.routes import Routes
from counterfoil_gateway.streams import Following, stream, until_gone
from counterfoil_gateway.transcode import Arrived, Transcoder
from counterfoil_gateway.write import Writers

log = logging.getLogger(__name__)
WATCH_AFTER = 0.25
"""Seconds before a call is worth a task that watches whether its caller is still there; most are over by then."""
Identify: TypeAlias = Callable[[Scope, Mapping[bytes, bytes], Method], Awaitable[Metadata]]
"""A request, its headers and the method it is for, to the metadata of the call onwards; raises Problem."""


@dataclass(frozen=True)
class Exchange:
    """One request under way, its caller signed in."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[bytes, bytes]
    found: Mapping[str, str]
    metadata: Metadata


class Endpoint(Protocol):
    """What serves one verb and path."""

    @property
    def binding(self) -> Binding:
        """Return the verb and path."""

    @property
    def method(self) -> Method:
        """Return the RPC that it reaches."""

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Return the answer, or None when it was sent or nobody waits for it; raise Problem or AioRpcError."""


class Transcoded:
    """An endpoint made from an annotation."""

    def __init__(self, transcoder: Transcoder, calls: Calls, following: Following) -> None:
        self.transcoder = transcoder
        self.binding = transcoder.binding
        self.method = transcoder.method
        self._calls = calls
        self._following = following

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Read the request, call, write the answer."""
        headers = exchange.headers
        body = b""
        if self.binding.body:
            refuse_encoding(headers)
            body = await read_body(exchange.receive, headers)
        arrived = Arrived(exchange.found, exchange.scope["query_string"], body, headers)
        request = self.transcoder.request(arrived)
        timeout = left(headers, self.method)
        if self.method.server_streaming:
            exchange.scope[PLACE].streams()
            call = self._calls.stream(self.method)(request, timeout=timeout, metadata=exchange.metadata)
            kept = self._following if self.method.follows else Following()
            await stream(call, self.transcoder, headers, receive=exchange.receive, send=exchange.send, following=kept)
            return None
        unary = self._calls.unary(self.method)(request, timeout=timeout, metadata=exchange.metadata)
        raw = await answered(unary, exchange.receive)
        return None if raw is None else self.transcoder.reply(raw, headers)


@dataclass(frozen=True)
class _End:
    """A place in the trie."""

    endpoint: Endpoint
    verb: str
    path: str
    segments: tuple[str, ...]
    action: str


class Rest:
    """Every REST path, as one ASGI application."""

    def __init__(
        self,
        api: Api,
        calls: Calls,
        identify: Identify,
        *,
        following: Following,
        extra: Sequence[Endpoint] = (),
    ) -> None:
        self._identify = identify
        self._routes: Routes[_End] = Routes()
        reader, writers = Reader(), Writers()
        self.transcoded = [
            Transcoded(Transcoder(method, binding, reader=reader, writers=writers), calls, following)
            for method in api.methods
            for binding in method.bindings
        ]
        by_hand = {each.binding for each in extra}
        generated = [each for each in self.transcoded if each.binding not in by_hand]
        for endpoint in (*generated, *extra):
            b = endpoint.binding
            self._routes.add(_End(endpoint, b.verb, b.path, b.segments, b.action))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Whatever goes wrong before the answer began is a problem document."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = ""
        try:
            end, found = self._routes.find(scope["method"], scope.get("raw_path") or scope["path"].encode())
            endpoint = end.endpoint
            body = endpoint.binding.body
            scope["route"] = endpoint.binding
            named(scope, endpoint.binding.verb, endpoint.binding.path)
            enter_deadline(timeout_of(headers, endpoint.method))
            metadata = await self._identify(scope, headers, endpoint.method)
            exchange = Exchange(scope, receive, send, headers, found, metadata)
            reply = await endpoint.answer(exchange)
        except Exception as error:  # noqa: BLE001 - every failure becomes a problem document
            reply = refused(error, scope, body)
        if reply is not None:
            await reply.to(send)


def refused(error: Exception, scope: Scope, body: str = "") -> Reply | None:
    """Return the answer to a request that failed, None when nobody waits for one; `body` is the field sent as body."""
    problem = problem_of(error, scope, body)
    return None if problem is None else refusal(problem)


def problem_of(error: Exception, scope: Scope, body: str = "") -> Problem | None:
    """Return what a request failed with means to its caller, None when he left; `body` is the field sent as body."""
    match error:
        case grpc.aio.AioRpcError():
            return from_rpc(error, body)
        case CounterfoilError():
            return from_failure(error)
        case Problem():
            return error
        case CallerLeftError():
            return None
        case _:
            log.error("request failed", exc_info=error, extra={"verb": scope["method"], "path": scope["path"]})
            return internal()


def refusal(problem: Problem) -> Reply:
    """Return the answer that carries a problem document, and count it."""
    REFUSALS.labels(problem.reason).inc()
    return Reply(problem.status, problem.json(), problem.fields())


def named(scope: Scope, verb: str, path: str) -> None:
    """Name the request's span and its metrics by the template of its path, never by the ids in it."""
    span = trace.get_current_span()
    name = f"{verb} {path}"
    span.update_name(name)
    if counted := scope.get(COUNTED):
        counted.move(REQUESTS.of(name))
    span.set_attribute("http.route", path)


async def answered(call: UnaryCall, receive: Receive) -> bytes | None:
    """Return the answer, or None when the caller left first; then the backend's work is cancelled."""
    watching: list[asyncio.Future[None]] = []

    def watch() -> None:
        watching.append(asyncio.ensure_future(until_gone(receive, call)))

    timer = asyncio.get_running_loop().call_later(WATCH_AFTER, watch)
    try:
        return await call
    except asyncio.CancelledError:
        if watching and watching[0].done():
            return None
        raise
    finally:
        timer.cancel()
        for task in watching:
            task.cancel()
        call.cancel()
