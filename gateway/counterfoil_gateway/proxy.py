"""The gRPC door: bytes through, for public methods only. Metadata, deadline, cancellation and trailers are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from counterfoil_gateway.api import Api, Method
from counterfoil_gateway.calls import Calls, Metadata, kind_of
from counterfoil_gateway.deadlines import LONGEST
from counterfoil_gateway.problems import Problem, told

_OURS = frozenset(
    {"authorization", "x-api-key", "cookie", "traceparent", "tracestate", "te", "user-agent", "content-type"}
)
"""Metadata that is not forwarded: of this hop, a secret, or for us alone to set."""
_RESERVED = ("grpc-", ":")
Identify: TypeAlias = Callable[[Mapping[str, str | bytes], Method], Awaitable[Metadata]]
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Proxy(grpc.GenericRpcHandler):
    """Answers for every public method; any other is UNIMPLEMENTED, whether or not it exists."""

    def __init__(self, api: Api, calls: Calls, identify: Identify) -> None:
        self._handlers = {m.name: _handler(m, calls, identify) for m in api.methods}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler, None when it is not public."""
        return self._handlers.get(handler_call_details.method)


def _handler(method: Method, calls: Calls, identify: Identify) -> Any:
    async def begin(request: Any, context: Context) -> Any:
        received = tuple(context.invocation_metadata() or ())
        try:
            mine = await identify(dict(received), method)
            kept = ((k, v) for k, v in received if k not in _OURS and not k.startswith(_RESERVED))
            call = calls.any(method)(request, timeout=_timeout(method, context), metadata=(*kept, *mine))
        except Problem as problem:
            await context.abort(problem.code, problem.detail, problem.trailers())
        else:
            return call

    async def one(request: Any, context: Context) -> bytes:
        call = await begin(request, context)
        try:
            answer: bytes = await call
            await context.send_initial_metadata(await call.initial_metadata())
            context.set_trailing_metadata(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            await _fail(context, error)
        else:
            return answer
        finally:
            call.cancel()

    async def many(request: Any, context: Context) -> AsyncIterator[bytes]:
        call = await begin(request, context)
        try:
            initial = await call.initial_metadata()
            if initial is None:  # what grpc makes of being cancelled while it waits for them
                raise asyncio.CancelledError
            await context.send_initial_metadata(initial)
            async for item in call:
                yield item
            context.set_trailing_metadata(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            await _fail(context, error)
        finally:
            call.cancel()

    return getattr(grpc, f"{kind_of(method)}_rpc_method_handler")(many if method.server_streaming else one)


def _timeout(method: Method, context: Context) -> float | None:
    """Return the caller's own deadline; without one only calls with one request and one answer get an end."""
    remaining: float | None = context.time_remaining()  # the stubs forget the None
    if remaining is not None:
        return max(remaining, 0.0)
    return None if method.server_streaming or method.client_streaming else LONGEST


async def _fail(context: Context, error: grpc.aio.AioRpcError) -> NoReturn:
    await context.abort(error.code(), told(error), tuple(error.trailing_metadata() or ()))
