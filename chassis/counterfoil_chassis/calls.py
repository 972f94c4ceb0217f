"""CallService: reads by id of several callers in one call, each with its own token, deadline, trace and status.

A hop costs some 300 us of processor time, whatever it carries. Carried are methods with the option `point_read`, whose
answers depend on the caller's workspace and the request alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from counterfoil.common.v1.calls_pb2 import CallItem, CallManyRequest, CallManyResponse, CallResult
from counterfoil.common.v1.calls_pb2_grpc import CallServiceServicer
from google.protobuf.message import DecodeError, Message

from counterfoil_chassis import telemetry
from counterfoil_chassis.call import enter_deadline
from counterfoil_chassis.errors import (
    AbortedError,
    CounterfoilError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnimplementedError,
)
from counterfoil_chassis.fields import check_fields
from counterfoil_chassis.identity import Caller, TokenVerifier, enter_call
from counterfoil_chassis.interceptor import Handler, failed
from counterfoil_chassis.kept import Kept
from counterfoil_chassis.methods import Method, ServiceNotAllowedError
from counterfoil_chassis.metrics import SERVER_CALLS, Series
from counterfoil_chassis.spans import HotSpan

PATIENCE_SECONDS = 0.5
"""How long the others of a call wait while none is answered; a read by id takes a thousandth of a second."""
AT_ONCE = 4
"""How many items of one call are read side by side: two calls then need as many connections as a database keeps."""

KEPT_BYTES = 16 << 20
Answers: TypeAlias = Kept[tuple[str, str, bytes], bytes]
"""Answers by workspace, method and request."""
_OK = 0


class TakesLongError(AbortedError):
    """It takes longer than what it came with in a shared call can wait; call it alone."""

    reason = "TAKES_LONG"


class NotCarriedError(UnimplementedError):
    """The method is not one that shared calls carry; call it itself."""

    reason = "NOT_CARRIED"


class RequestUnreadableError(InvalidArgumentError):
    """The bytes are not the method's request."""

    reason = "BAD_MESSAGE"


@dataclass(frozen=True)
class _Read:
    """One method that is carried."""

    method: Method
    behaviour: Callable[[Any, Any], Any]
    parse: Callable[[bytes], Message]
    serialize: Callable[[Any], bytes]
    unchanging: bool
    series: Series
    attributes: dict[str, str | int]


class CallServicer(CallServiceServicer):
    """Carries the process's own reads by id."""

    def __init__(
        self, verifier: TokenVerifier, *, unchanging: Collection[str] = (), kept: Answers | None = None
    ) -> None:
        """Take the paths of reads whose answer, once there is one, stays the same until `kept` is cleared."""
        self._verifier = verifier
        self._unchanging = frozenset(unchanging)
        self._reads: dict[str, _Read] = {}
        self._kept: Answers = Kept(KEPT_BYTES) if kept is None else kept
        self._left: set[asyncio.Task[CallResult]] = set()

    def carry(self, method: Method, handler: Handler) -> None:
        """Carry a method from now on, if it is a read by id."""
        if method.point_read:
            service, _, name = method.path.removeprefix("/").rpartition("/")
            parts: Any = handler  # gRPC's stubs have them optional
            self._reads[method.path] = _Read(
                method=method,
                behaviour=parts.unary_unary,
                parse=parts.request_deserializer,
                serialize=parts.response_serializer,
                unchanging=method.path in self._unchanging,
                series=SERVER_CALLS.of(method.path.removeprefix("/")),
                attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
            )

    async def CallMany(self, request: CallManyRequest, context: Any) -> CallManyResponse:
        """Answer what is known at once, the rest side by side, and none later than the others can wait."""
        results = [self._at_once(item) for item in request.items]
        await self._answer_rest(request.items, results, context.time_remaining())
        items = zip(request.items, results, strict=True)
        return CallManyResponse(results=[result or _late(item.method) for item, result in items])

    async def _answer_rest(
        self, items: Sequence[CallItem], results: list[CallResult | None], remaining: float | None
    ) -> None:
        """Fill in what is missing, some at a time, while one after the other is answered; cancel the silent ones."""
        missing = deque(number for number, result in enumerate(results) if result is None)
        running: dict[asyncio.Task[CallResult], int] = {}
        try:
            while missing or running:
                while missing and len(running) < AT_ONCE:
                    number = missing.popleft()
                    running[asyncio.ensure_future(self._answer(items[number], remaining))] = number
                done, _ = await asyncio.wait(running, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    return
                for task in done:
                    results[running.pop(task)] = task.result()
        finally:
            for task in running:
                self._left.add(task)
                task.add_done_callback(self._left.discard)
                task.cancel()

    def _at_once(self, item: CallItem) -> CallResult | None:
        """Return the answer if it needs nobody."""
        read = self._reads.get(item.method)
        if read is None:
            return _failure(item.method, NotCarriedError(f"{item.method[:200]} is not carried by shared calls"))
        known = self._known(read, item) if read.unchanging else None
        if known is None:
            return None
        caller, response = known
        with (
            read.series.counted("OK"),
            HotSpan(read.method.path, traceparent=item.traceparent, attributes=read.attributes) as span,
        ):
            _describe(span, caller)
            span.set_attribute("rpc.grpc.status_code", _OK)
            return CallResult(response=response)

    def _known(self, read: _Read, item: CallItem) -> tuple[Caller, bytes] | None:
        """Return the answer that is kept, for a caller who may have it."""
        try:
            caller = self._admit(read, item)
        except CounterfoilError:
            return None  # whoever answers it says why
        response = self._kept.get((caller.workspace, item.method, item.request))
        return None if response is None else (caller, response)

    def _admit(self, read: _Read, item: CallItem) -> Caller:
        """Return whose call it is, if it may be made; raise what the interceptor would."""
        caller = self._verifier.verify(item.token)
        if caller.service:
            text = "a shared call carries what principals ask; a service calls the method itself"
            raise ServiceNotAllowedError(text, metadata={"method": item.method})
        read.method.check(caller)
        return caller

    async def _answer(self, item: CallItem, remaining: float | None) -> CallResult:
        read, generation = self._reads[item.method], self._kept.generation
        with (
            read.series.counted("CANCELLED") as counted,
            HotSpan(read.method.path, traceparent=item.traceparent, attributes=read.attributes) as span,
        ):
            try:
                enter_deadline(_seconds(item, remaining))
                caller = self._admit(read, item)
                _describe(span, caller)
                enter_call(caller, item.token)
                request = _parsed(read, item)
                check_fields(request)
                response = read.serialize(await read.behaviour(request, _ALONE))
            except Exception as error:  # noqa: BLE001 - every failure becomes a status
                return _failure(item.method, error, span=span, counted=counted)
            counted.outcome = "OK"
            span.set_attribute("rpc.grpc.status_code", _OK)
        if read.unchanging and generation == self._kept.generation:
            key = (caller.workspace, item.method, item.request)
            self._kept.put(key, response, size=len(item.request) + len(response))
        return CallResult(response=response)


def _describe(span: HotSpan, caller: Caller) -> None:
    span.set_attribute(telemetry.ATTRIBUTE_WORKSPACE, caller.workspace)
    span.set_attribute(telemetry.ATTRIBUTE_PRINCIPAL, caller.principal)


class _Alone:
    """Stands where a handler finds its context: a read by id does without one, and may not end those it came with."""


_ALONE = _Alone()


def _seconds(item: CallItem, remaining: float | None) -> float | None:
    """Return what is left for the item; raise DeadlineExceededError when nothing is."""
    if item.HasField("timeout"):
        own = item.timeout.seconds + item.timeout.nanos / 1e9
        remaining = own if remaining is None else min(own, remaining)
    if remaining is not None and remaining <= 0:
        raise DeadlineExceededError("the call arrived after its deadline")
    return remaining


def _parsed(read: _Read, item: CallItem) -> Message:
    try:
        return read.parse(item.request)
    except DecodeError:
        raise RequestUnreadableError("the request cannot be read") from None


def _late(method: str) -> CallResult:
    return _failure(method, TakesLongError("this takes longer than a shared call waits; call the method itself"))


def _failure(method: str, error: Exception, *, span: HotSpan | None = None, counted: Any = None) -> CallResult:
    status, outcome = failed(method, error)
    if counted is not None:
        counted.outcome = outcome
    if span is not None:
        span.set_attribute("rpc.grpc.status_code", status.code)
        if reason := getattr(error, "reason", ""):
            span.set_attribute(telemetry.ATTRIBUTE_REASON, reason)
    return CallResult(status=status.SerializeToString())
