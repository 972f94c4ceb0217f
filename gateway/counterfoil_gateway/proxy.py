"""The gRPC door: bytes through, for public methods only. Metadata, deadline, cancellation and trailers are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn, TypeAlias

import grpc
from counterfoil_chassis.metrics import SERVER_CALLS, Counted
from counterfoil_chassis.shedding import OverloadedError
from counterfoil_chassis.status import failure_of

from counterfoil_gateway.admission import Admission
from counterfoil_gateway.api import Api, Method
from counterfoil_gateway.calls import Calls, Metadata, kind_of
from counterfoil_gateway.deadlines import LONGEST, STREAM
from counterfoil_gateway.metrics import REFUSALS
from counterfoil_gateway.problems import C, Problem, from_failure
from counterfoil_gateway.streams import Following, is_being_cancelled

_OURS = frozenset(
    {"authorization", "x-api-key", "cookie", "traceparent", "tracestate", "te", "user-agent", "content-type"}
)
"""Metadata that is not forwarded: of this hop, a secret, or for us alone to set."""
_RESERVED = ("grpc-", ":")
_LEFT = C.CANCELLED.name  # how a call ends whose caller left
_DRAINING = Problem(C.UNAVAILABLE, "the gateway is about to stop; follow again", "DRAINING")
Identify: TypeAlias = Callable[[Mapping[str, str | bytes], Method, str], Awaitable[Metadata]]
"""Metadata, the method and the peer to the metadata of the call onwards; raises Problem."""
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Proxy(grpc.GenericRpcHandler):
    """Answers for every public method; any other is UNIMPLEMENTED, whether or not it exists."""

    def __init__(
        self, api: Api, calls: Calls, identify: Identify, *, following: Following, admission: Admission
    ) -> None:
        self._handlers = {
            method.name: _Passage(method, calls, identify, following=following, admission=admission).handler()
            for method in api.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler, None when it is not public."""
        return self._handlers.get(handler_call_details.method)


class _Passage:
    """One method's way through."""

    def __init__(
        self, method: Method, calls: Calls, identify: Identify, *, following: Following, admission: Admission
    ) -> None:
        self._method = method
        self._calls = calls
        self._identify = identify
        self._following = following
        self._admission = admission
        self._series = SERVER_CALLS.of(method.name.removeprefix("/"))

    def handler(self) -> Any:
        """Return it as gRPC takes it, bytes in and out."""
        behaviour = self._many if self._method.server_streaming else self._one
        return getattr(grpc, f"{kind_of(self._method)}_rpc_method_handler")(behaviour)

    async def _begin(self, request: Any, context: Context, counted: Counted) -> Any:
        received = tuple(context.invocation_metadata() or ())
        try:
            mine = await self._identify(dict(received), self._method, context.peer())
            kept = ((k, v) for k, v in received if k not in _OURS and not k.startswith(_RESERVED))
            timeout = _timeout(self._method, context)
            call = self._calls.any(self._method)(request, timeout=timeout, metadata=(*kept, *mine))
        except Problem as problem:
            await _refuse(context, problem, counted)
        except grpc.aio.AioRpcError as error:  # the call was not made
            await _fail(context, error, counted)
        else:
            return call

    async def _one(self, request: Any, context: Context) -> bytes:
        with self._series.counted(_LEFT) as counted:
            try:
                with self._place(request):
                    return await self._answer(request, context, counted)
            except OverloadedError as error:
                await _refuse(context, from_failure(error), counted)

    async def _many(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        with self._series.counted(_LEFT) as counted:
            try:
                with self._place(request):
                    async for item in self._answers(request, context, counted):
                        yield item
            except OverloadedError as error:
                await _refuse(context, from_failure(error), counted)

    @contextmanager
    def _place(self, request: Any) -> Iterator[None]:
        size = 0 if self._method.client_streaming else len(request)
        with self._admission.place(size) as place:
            if self._method.server_streaming or self._method.client_streaming:
                place.streams()
            yield

    async def _answer(self, request: Any, context: Context, counted: Counted) -> bytes:
        call = await self._begin(request, context, counted)
        try:
            answer: bytes = await call
            await context.send_initial_metadata(await call.initial_metadata())
            context.set_trailing_metadata(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            await _fail(context, error, counted)
        else:
            counted.outcome = "OK"
            return answer
        finally:
            call.cancel()

    async def _answers(self, request: Any, context: Context, counted: Counted) -> AsyncIterator[bytes]:
        call = await self._begin(request, context, counted)
        try:
            with self._following.holding(call) if self._method.follows else nullcontext():
                initial = await call.initial_metadata()
                if initial is None:  # what grpc makes of being cancelled while it waits for them
                    raise asyncio.CancelledError
                await context.send_initial_metadata(initial)
                async for item in call:
                    yield item
            context.set_trailing_metadata(await call.trailing_metadata())
            counted.outcome = "OK"
        except grpc.aio.AioRpcError as error:
            await _fail(context, error, counted)
        except asyncio.CancelledError:
            if not (self._method.follows and self._following.ended) or is_being_cancelled():
                raise
            await _refuse(context, _DRAINING, counted)
        finally:
            call.cancel()


def _timeout(method: Method, context: Context) -> float | None:
    """Return what is left of the caller's own time, or the most there is; None for what is followed without end."""
    most = STREAM if method.server_streaming or method.client_streaming else LONGEST
    remaining: float | None = context.time_remaining()  # the stubs forget the None
    if remaining is None:
        return None if method.follows else most
    return min(max(remaining, 0.0), most)


async def _fail(context: Context, error: grpc.aio.AioRpcError, counted: Counted) -> NoReturn:
    counted.outcome = error.code().name
    REFUSALS.labels(failure_of(error).reason).inc()
    await context.abort(error.code(), error.details() or error.code().name, tuple(error.trailing_metadata() or ()))


async def _refuse(context: Context, problem: Problem, counted: Counted) -> NoReturn:
    counted.outcome = problem.code.name
    REFUSALS.labels(problem.reason).inc()
    await context.abort(problem.code, problem.detail, problem.trailers())
