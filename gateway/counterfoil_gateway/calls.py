"""Methods as something to call with bytes: the service that implements it, or the gateway where it composes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import grpc

from counterfoil_gateway.api import Api, Method
from counterfoil_gateway.serving import home

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class Cancellable(Protocol):
    """Any call."""

    def cancel(self) -> bool:
        """Stop it; nothing happens when it is over."""


class Call(Cancellable, Protocol):
    """A call under way, with its metadata."""

    async def initial_metadata(self) -> Any:
        """Return what the backend sent first."""

    async def trailing_metadata(self) -> Any:
        """Return what the backend sent last."""


class UnaryCall(Call, Protocol):
    """A call with one answer."""

    def __await__(self) -> Generator[Any, None, bytes]:
        """Return the answer's bytes; raise AioRpcError."""


class StreamCall(Call, Protocol):
    """A call with many answers."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the answers' bytes in order; raise AioRpcError."""


class Unary(Protocol):
    """Something that starts a call with one answer."""

    def __call__(self, request: bytes, /, *, timeout: float | None, metadata: Metadata) -> UnaryCall:
        """Start it, within `timeout` seconds; raise Problem when there is nobody to call."""


class Stream(Protocol):
    """Something that starts a call with many answers."""

    def __call__(self, request: bytes, /, *, timeout: float | None, metadata: Metadata) -> StreamCall:
        """Start it, within `timeout` seconds."""


class Calls:
    """What every method that callers reach stands for."""

    def __init__(
        self, api: Api, channels: Mapping[str, grpc.aio.Channel], composed: Mapping[str, Unary] | None = None
    ) -> None:
        """Take one channel per service name, and the methods that the gateway answers itself, by wire name."""
        self._made: dict[str, Any] = {
            m.name: _multicallable(channels[home(m.owner, m.service, channels)], m)
            for m in (*api.methods, *api.foreign)
        }
        self._composed = frozenset(composed or {})
        self._made.update(composed or {})

    def composes(self, method: Method) -> bool:
        """Say whether the gateway answers a method itself, out of several calls."""
        return method.name in self._composed

    def any(self, method: Method) -> Any:
        """Return what calls a method of whichever kind."""
        return self._made[method.name]

    def unary(self, method: Method) -> Unary:
        """Return what calls a method that takes one message and answers one."""
        call: Unary = self._made[method.name]
        return call

    def stream(self, method: Method) -> Stream:
        """Return what calls a method that takes one message and answers many."""
        call: Stream = self._made[method.name]
        return call


def kind_of(method: Method) -> str:
    """Return grpc's word for the method's kind, e.g. `unary_stream`."""
    incoming = "stream" if method.client_streaming else "unary"
    return f"{incoming}_{'stream' if method.server_streaming else 'unary'}"


def _multicallable(channel: grpc.aio.Channel, method: Method) -> Any:
    return getattr(channel, kind_of(method))(method.name)  # bytes in, bytes out
