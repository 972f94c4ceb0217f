"""A channel whose calls have an end, a turn among others, and a callee that is not known to be down, nor moved.

It wraps gRPC's own channel instead of joining its interceptors: an interceptor costs a task per call, this a few
microseconds.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Self

import grpc

from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.methods import follows
from counterfoil_chassis.metrics import CLIENT_CALLS, Series

_HEALTH = "/grpc.health.v1.Health/"
_UNCONNECTED_SECONDS = 3.0
_OLD_CALLS_SECONDS = 30.0


class UnboundedCallError(RuntimeError):
    """A call without a timeout, of a method that does not go on without end: a bug of the caller."""


class GuardedChannel(grpc.aio.Channel):
    """Another channel, with the calls through it guarded. Health checks are not: they are to say how things are.

    A channel to a name is replaced while it finds no connection: gRPC looks again for a name that it could not resolve
    after pauses that grow to two minutes, and only a new channel begins without one.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel], dependency: Dependency, *, is_named: bool) -> None:
        """Take what opens the channel, and whether its target is a name rather than an address."""
        self.dependency = dependency
        self._open_channel = open_channel
        self._is_named = is_named
        self._channel = open_channel()
        self._unconnected_since: float | None = None
        self._methods: weakref.WeakSet[_Method] = weakref.WeakSet()
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel, its calls within the grace."""
        await self._channel.close(grace)
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def lost(self) -> None:
        """Note that a call found nobody; where no connection was found for a while, look for the name anew."""
        if not self._is_named:
            return
        now = time.monotonic()
        if self._channel.get_state() is grpc.ChannelConnectivity.READY:
            self._unconnected_since = None
        elif self._unconnected_since is None:
            self._unconnected_since = now
        elif now - self._unconnected_since > _UNCONNECTED_SECONDS:
            self._unconnected_since = now
            closing = asyncio.create_task(self._channel.close(_OLD_CALLS_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._channel = self._open_channel()
            for method in self._methods:
                method.bind(self._channel)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return whether it is connected."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until it is not in this state any more."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until it is connected."""
        await self._channel.channel_ready()

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Return what calls a method that takes one message and answers one."""
        return self._guarded(method, lambda channel: channel.unary_unary(method, *args, **options), _Unary)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Return what calls a method that takes many messages and answers one."""
        return self._guarded(method, lambda channel: channel.stream_unary(method, *args, **options), _Unary)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Return what calls a method that takes one message and answers many."""
        return self._guarded(method, lambda channel: channel.unary_stream(method, *args, **options), _Stream)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Return what calls a method that takes many messages and answers many."""
        return self._guarded(method, lambda channel: channel.stream_stream(method, *args, **options), _Stream)

    def _guarded(self, method: str, of: Callable[[grpc.aio.Channel], Any], kind: type[_Unary | _Stream]) -> Any:
        made = _Method(of) if method.startswith(_HEALTH) else _Guarded(method, of, kind, self)
        made.bind(self._channel)
        self._methods.add(made)
        return made


class _Method:
    """One method of whatever channel there is, to be called."""

    def __init__(self, of: Callable[[grpc.aio.Channel], Any]) -> None:
        self._of = of
        self._start: Any = None

    def bind(self, channel: grpc.aio.Channel) -> None:
        """Make calls by this channel from now on."""
        self._start = self._of(channel)

    def __call__(self, request: Any, **options: Any) -> Any:
        """Start a call."""
        return self._start(request, **options)


class _Guarded(_Method):
    """One that is guarded."""

    def __init__(
        self,
        method: str,
        of: Callable[[grpc.aio.Channel], Any],
        kind: type[_Unary | _Stream],
        channel: GuardedChannel,
    ) -> None:
        super().__init__(of)
        self._method = method
        self._kind = kind
        self._lost = channel.lost
        self._dependency = channel.dependency
        self._follows = kind is _Stream and follows(method)
        self._series = CLIENT_CALLS.of(method.removeprefix("/"))

    def __call__(self, request: Any, *, timeout: float | None = None, **options: Any) -> Any:
        """Start a call; raise AioRpcError when it is not to be made, UnboundedCallError without a timeout."""
        if self._follows:  # who follows without end tries again by himself, with pauses, and takes nobody's turn
            call = self._start(request, timeout=timeout, **options)
            return _Stream(call, None, self._dependency, self._series, self._lost)
        if timeout is None:
            raise UnboundedCallError(f"{self._method} is called without a timeout")
        dependency = self._dependency
        dependency.require()
        if dependency.is_full:
            return _Queued(dependency, lambda left: self._begin(request, left, options), timeout)
        dependency.running += 1
        return self._begin(request, timeout, options)

    def _begin(self, request: Any, timeout: float, options: dict[str, Any]) -> _Unary | _Stream:
        try:
            call = self._start(request, timeout=timeout, **options)
        except BaseException:
            self._dependency.release()
            raise
        return self._kind(call, timeout, self._dependency, self._series, self._lost)


class _Begun:
    """A call under way. It is over, and gives its turn back, when it ends, is cancelled, or is forgotten."""

    __slots__ = ("_begun", "_call", "_dependency", "_is_over", "_lost", "_series", "_timeout")

    def __init__(
        self, call: Any, timeout: float | None, dependency: Dependency, series: Series, lost: Callable[[], None]
    ) -> None:
        self._is_over = False
        self._lost = lost
        self._call = call
        self._timeout = timeout
        self._dependency = dependency
        self._series = series
        self._begun = series.begin()

    def __del__(self) -> None:
        self._end("CANCELLED")

    def _end(self, outcome: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._series.end(self._begun, outcome)
        if self._timeout is not None:
            self._dependency.release()

    def _failed(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Judge how it ended; return what the caller is told."""
        told = self._dependency.told(error, self._begun, self._timeout)
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._lost()
        self._end(error.code().name)
        return told

    def cancel(self) -> bool:
        """End it; nothing happens when it is over."""
        self._end("CANCELLED")
        ended: bool = self._call.cancel()
        return ended

    def cancelled(self) -> bool:
        """Say whether it was cancelled."""
        was: bool = self._call.cancelled()
        return was

    def done(self) -> bool:
        """Say whether it is over."""
        is_over: bool = self._call.done()
        return is_over

    async def initial_metadata(self) -> Any:
        """Return what the callee sent first."""
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Return what the callee sent last."""
        return await self._call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Return how it ended."""
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        """Return what was said of how it ended."""
        return str(await self._call.details())


class _Unary(_Begun):
    """A call with one answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the answer; raise AioRpcError."""
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            answer = await self._call
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        except BaseException:
            self._end("CANCELLED")
            raise
        if not self._is_over:
            self._dependency.breaker.answered()
            self._end("OK")
        return answer


class _Stream(_Begun):
    """A call with many answers."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the answers; raise AioRpcError."""
        answers = aiter(self._call)
        while (answer := await self._next(answers.__anext__)) is not grpc.aio.EOF:
            yield answer

    async def read(self) -> Any:
        """Return the next answer, `grpc.aio.EOF` after the last; raise AioRpcError."""
        return await self._next(self._call.read)

    async def _next(self, read: Callable[[], Any]) -> Any:
        try:
            answer = await read()
        except StopAsyncIteration:
            answer = grpc.aio.EOF
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        except BaseException:
            self._end("CANCELLED")
            raise
        self._dependency.breaker.answered()
        if answer is grpc.aio.EOF:
            self._end("OK")
        return answer


class _Queued:
    """A call that waits for its turn, and is then a call like any other."""

    def __init__(self, dependency: Dependency, begin: Callable[[float], _Unary | _Stream], timeout: float) -> None:
        async def turn() -> Any:
            return begin(max(0.0, timeout - await dependency.turn(timeout)))

        self._turn = asyncio.ensure_future(turn())
        self._turn.add_done_callback(_seen)

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the answer; raise AioRpcError."""
        return self._answer().__await__()

    async def _answer(self) -> Any:
        return await (await self._turn)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the answers; raise AioRpcError."""
        async for answer in await self._turn:
            yield answer

    async def read(self) -> Any:
        """Return the next answer, `grpc.aio.EOF` after the last; raise AioRpcError."""
        return await (await self._turn).read()

    def cancel(self) -> bool:
        """End it; nothing happens when it is over."""
        if not self._turn.done():
            return self._turn.cancel()
        if self._turn.cancelled() or self._turn.exception() is not None:
            return False
        ended: bool = self._turn.result().cancel()
        return ended

    async def initial_metadata(self) -> Any:
        """Return what the callee sent first."""
        return await (await self._turn).initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Return what the callee sent last."""
        return await (await self._turn).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Return how it ended."""
        code: grpc.StatusCode = await (await self._turn).code()
        return code


def _seen(turn: asyncio.Task[Any]) -> None:
    """Take note of a failure that nobody may be waiting for any more."""
    if not turn.cancelled():
        turn.exception()
