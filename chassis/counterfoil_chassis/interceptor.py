"""The server's one interceptor: token, permission, field rules, deadline, and errors as rich statuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry import trace

from counterfoil_chassis import telemetry
from counterfoil_chassis.call import enter_deadline
from counterfoil_chassis.errors import Code, CounterfoilError, DeadlineExceededError, InternalError, UnavailableError
from counterfoil_chassis.fields import check_fields
from counterfoil_chassis.identity import MissingTokenError, TokenVerifier, enter_call
from counterfoil_chassis.methods import Method, methods_of
from counterfoil_chassis.metrics import SERVER_CALLS, Counted
from counterfoil_chassis.shedding import Load
from counterfoil_chassis.status import DETAILS_KEY, code_of, status_of, to_status
from counterfoil_chassis.transport import require_peer

# The classes take parameters in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/"
_BEARER = "Bearer "
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
# Whoever is told when to come again is not to be asked sooner by gRPC's own retries.
_NO_RETRY = (("grpc-retry-pushback-ms", "-1"),)
_DRAINING = "the server is stopping; connect again and go on from the last message"
_logger = logging.getLogger(__name__)


class DrainingError(UnavailableError):
    """The process is stopping; connect again and go on."""

    reason = "DRAINING"


class Interceptor(grpc.aio.ServerInterceptor):
    """Guards every method of the registered services by what its descriptor says.

    Streams without a deadline are those that follow something without end: `end_followers` ends them when the process
    drains, so that they do not hold it up.
    """

    def __init__(self, verifier: TokenVerifier, load: Load, *, mutual: bool = False) -> None:
        """With `mutual` TLS a service's token counts only from whoever shows a certificate with its name."""
        self._mutual = mutual
        self._verifier = verifier
        self._load = load
        self._methods: dict[str, Method] = {}
        self._handlers: dict[str, Handler] = {}
        self._followers: set[asyncio.Task[Any]] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._draining = False

    def serve(self, service: str) -> list[Method]:
        """Let calls to a service through, by its full name, and return its methods."""
        methods = list(methods_of(service))
        self._methods.update({method.path: method for method in methods})
        return methods

    def end_followers(self) -> None:
        """End the streams without a deadline now, with UNAVAILABLE; later ones end at once."""
        self._draining = True
        for task in self._followers:
            task.cancel()

    async def ended(self, seconds: float) -> None:
        """Wait until every call has cleaned up after itself, at most so long.

        The server does not wait for the calls that it cancels; what they hold, such as a database's connection, has to
        be given back before its owner is closed.
        """
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the guarded handler of a method, made once; None for an unknown one (gRPC answers UNIMPLEMENTED)."""
        path = handler_call_details.method
        if path not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[path] = self._guarded(path, handler)
        return self._handlers[path]

    def _guarded(self, path: str, handler: Handler) -> Handler:
        # gRPC's own kinds differ only in which attribute holds the behaviour.
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        guarded: Any
        if path.startswith(HEALTH):
            guarded = self._unending(path, behaviour) if handler.response_streaming else behaviour
        elif path.startswith(REFLECTION):
            guarded = behaviour  # it tells what this project publishes anyway
        elif handler.response_streaming:
            guarded = self._many(self._methods[path], behaviour)
        else:
            guarded = self._one(self._methods[path], behaviour)
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _one(self, method: Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        series = SERVER_CALLS.of(method.path.removeprefix("/"))

        async def answer(request: Any, context: Context) -> Any:
            with self._runs(), series.counted("CANCELLED") as counted:
                try:
                    with self._load:
                        found = await behaviour(self._enter(method, request, context), context)
                except Exception as error:  # noqa: BLE001 - every failure becomes a status
                    await _fail(method.path, error, context, counted=counted)
                counted.outcome = "OK"
                return found

        return answer

    def _many(self, method: Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        series = SERVER_CALLS.of(method.path.removeprefix("/"))

        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            follows = _remaining(context) is None
            with series.counted("CANCELLED") as counted:
                try:
                    with self._runs(), self._follower() if follows else self._load:
                        async for message in behaviour(self._enter(method, request, context), context):
                            yield message
                except asyncio.CancelledError:
                    if not (follows and self._draining and _uncancelled()):
                        raise
                    await _fail(method.path, DrainingError(_DRAINING), context, counted=counted)
                except Exception as error:  # noqa: BLE001 - every failure becomes a status
                    await _fail(method.path, error, context, counted=counted)
                counted.outcome = "OK"

        return answer

    @contextmanager
    def _runs(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            yield
            return
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    @contextmanager
    def _follower(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            yield
            return
        if self._draining:
            raise DrainingError(_DRAINING)
        self._followers.add(task)
        try:
            yield
        finally:
            self._followers.discard(task)

    def _unending(self, path: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the health service's Watch, which writes by itself and never ends."""

        async def answer(request: Any, context: Context) -> None:
            try:
                with self._follower():
                    await behaviour(request, context)
            except asyncio.CancelledError:
                # gRPC sends nothing for a task that was cancelled by anybody but the client.
                if not (self._draining and _uncancelled()):
                    raise
                await _fail(path, DrainingError(_DRAINING), context)
            except DrainingError as error:
                await _fail(path, error, context)

        return answer

    def _enter(self, method: Method, request: Any, context: Context) -> Any:
        """Check one call and set what the handler may ask for; return the request, its messages checked."""
        remaining = _remaining(context)
        if remaining is not None and remaining <= 0:
            raise DeadlineExceededError("the call arrived after its deadline")
        enter_deadline(remaining)
        token = _token(context)
        caller = self._verifier.verify(token)
        if self._mutual and caller.service:
            require_peer(caller.service, context)
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes(
                {telemetry.ATTRIBUTE_WORKSPACE: caller.workspace, telemetry.ATTRIBUTE_PRINCIPAL: caller.principal}
            )
        method.check(caller)
        enter_call(caller, token)
        if isinstance(request, Message):
            check_fields(request)
            return request
        return _checked(request)


async def _checked(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        check_fields(request)
        yield request


def _remaining(context: Context) -> float | None:
    """Return the seconds until the caller's deadline, None when it set none (the stubs forget that case)."""
    return context.time_remaining()


def _token(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            if value.startswith(_BEARER):
                return value.removeprefix(_BEARER)
            break
    raise MissingTokenError("send `authorization: Bearer <token>`")


def _uncancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.uncancel() == 0


async def _fail(path: str, error: Exception, context: Context, *, counted: Counted | None = None) -> NoReturn:
    """End the call with the status of a failure; what nobody expected is logged and told as INTERNAL."""
    if isinstance(error, grpc.aio.AbortError):
        if counted is not None:
            counted.outcome = context.code().name
        raise error
    status = _status(path, error)
    if counted is not None:
        counted.outcome = _CODES[status.code].name
    span = trace.get_current_span()
    if span.is_recording() and isinstance(error, CounterfoilError):
        span.set_attribute(telemetry.ATTRIBUTE_REASON, error.reason)
    trailers: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    if any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details):
        trailers += _NO_RETRY
    await context.abort(_CODES[status.code], status.message, trailing_metadata=trailers)


def failed(path: str, error: Exception) -> tuple[Status, str]:
    """Return a failure's status and its code's name; what nobody expected is logged and told as INTERNAL."""
    status = _status(path, error)
    return status, _CODES[status.code].name


def _status(path: str, error: Exception) -> Status:
    if isinstance(error, CounterfoilError):
        if error.code is Code.INTERNAL:
            _logger.error("call failed", exc_info=error, extra={"method": path, "reason": error.reason})
        return to_status(error)
    if isinstance(error, grpc.aio.AioRpcError):
        return _status_of_callee(path, error)
    _logger.error("call failed unexpectedly", exc_info=error, extra={"method": path})
    return to_status(_internal())


def _status_of_callee(path: str, error: grpc.aio.AioRpcError) -> Status:
    """Pass a callee's refusal on; a token of ours that it does not know, or its bug, is not the caller's fault."""
    code = code_of(error)
    if code in {Code.UNAUTHENTICATED, Code.INTERNAL, Code.UNKNOWN, Code.UNIMPLEMENTED}:
        _logger.error("call to another service failed", exc_info=error, extra={"method": path})
        return to_status(_internal())
    return status_of(error) or Status(code=int(code), message=error.details() or code.name)


def _internal() -> InternalError:
    trace_id = telemetry.current_trace_id()
    return InternalError("this failed on our side; report the trace id", metadata={"trace_id": trace_id})
