"""Calls to other services: channels, explicit deadlines, and in whose name."""

from __future__ import annotations

import importlib.resources
import ipaddress
import time
from collections.abc import Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any

import grpc
import orjson
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.errors import DeadlineExceededError
from counterfoil_chassis.guarded import GuardedChannel
from counterfoil_chassis.identity import TokenSigner, current_token
from counterfoil_chassis.methods import repeatable
from counterfoil_chassis.tracing import is_traced
from counterfoil_chassis.transport import Certificate

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MARGIN_SECONDS = 0.05

MESSAGE_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],  # which a server that stops says of calls it did not take
}
# Ten failures in a row use up the retries; a hundred successes allow ten more.
_RETRY_THROTTLING = {"maxTokens": 20, "tokenRatio": 0.1}
# A connection that swallows what it is sent is given up 5 s after a ping, which goes along with a call's bytes if some
# were received lately, and else comes after 10 s to keep alive what runs. While the answer to the former is awaited, a
# minute by default, gRPC sends none of the latter.
_PATIENCE: Sequence[tuple[str, Any]] = (("grpc.http2.ping_timeout_ms", 5_000),)
_CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    *MESSAGE_OPTIONS,
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # and how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Calls go round the addresses of a name; gRPC asks for them anew whenever a connection ends, at most so often.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def enter_deadline(remaining: float | None) -> None:
    """Give the running task this many seconds; the server interceptor calls it for each RPC."""
    _deadline.set(None if remaining is None else time.monotonic() + remaining)


class _CancelsUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """Carries a cancellation through to the wire; it has to stand last.

    The tracing interceptor waits for a call's status, and when that waiting is cancelled the call itself goes on. The
    call's own `await` does end it.
    """

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Wait for the call here."""
        return await _waited(await continuation(client_call_details, request))


class _CancelsUpload(grpc.aio.StreamUnaryClientInterceptor):
    """The same for uploads."""

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Wait for the call here."""
        return await _waited(await continuation(client_call_details, request_iterator))


async def _waited(call: Any) -> Any:
    try:
        await call
    except grpc.aio.AioRpcError:
        return call  # which holds the failure, for whoever awaits it next
    return call


def connect(
    target: str,
    *,
    to: Dependency | None = None,
    traced: bool = True,
    tls: Certificate | None = None,
    certified: str = "",
) -> GuardedChannel:
    """Open a channel to a dependency, by default one named like the target. The caller closes it.

    Calls need a timeout, unless they follow something without end. A call that nobody answered is repeated within it
    where that is harmless, and as long as most calls succeed. A dependency that does not answer is not called, and no
    dependency gets more calls at once than it may: see `Dependency`. A caller who is cancelled ends the call. Without
    tracing a call costs half as much; that is for shared calls, whose items carry their own `traceparent`. With `tls`
    both sides show certificates, and the other one's has to name the dependency, or `certified` when that is given.
    """
    to = to or Dependency(target)
    options = [*_CHANNEL_OPTIONS, *_PATIENCE, ("grpc.service_config", _service_config())]
    interceptors: list[Any] = []
    if traced:
        tracing = aio_client_interceptors(filter_=is_traced)  # type: ignore[no-untyped-call]  # ships no types
        interceptors = [*tracing, _CancelsUnary(), _CancelsUpload()]
    credentials = tls.channel_credentials() if tls is not None else None
    if credentials is not None:
        options.append(("grpc.ssl_target_name_override", certified or to.name))

    def open_channel() -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors or None)
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors or None)

    return GuardedChannel(open_channel, to, is_named=_is_named(target))


def _is_named(target: str) -> bool:
    """Say whether a target's host is a name, which may be at another address tomorrow."""
    try:
        ipaddress.ip_address(target.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False


@cache
def _service_config() -> str:
    """Return what gRPC is told of retries; no timeouts, which it lets fire early and hides from the server."""
    image = importlib.resources.files("counterfoil").joinpath("api.binpb").read_bytes()
    names = [{"service": service, "method": method} for service, method in repeatable(image)]
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}],
        "retryThrottling": _RETRY_THROTTLING,
    }
    return orjson.dumps(config).decode()


def budget(default: float) -> float:
    """Return the seconds a call may take: the default, or less when the incoming call ends sooner (less 50 ms).

    Raise DeadlineExceededError when nothing is left.
    """
    deadline = _deadline.get()
    if deadline is None:
        return default
    left = deadline - time.monotonic() - MARGIN_SECONDS
    if left <= 0:
        raise DeadlineExceededError("no time is left for the calls this needs; allow more")
    return min(default, left)


def outgoing(*, default: float, signer: TokenSigner | None = None, token: str | None = None) -> dict[str, Any]:
    """Return `timeout` and `metadata` of a call: `await stub.X(request, **outgoing(default=5.0))`.

    The token is the given one, else the signer's service token, else the running RPC's own. `traceparent` is added
    by the channel. Raise DeadlineExceededError when the running RPC has no time left, LookupError when there is no
    token to use.
    """
    if token is None:
        token = signer.mint_service() if signer else current_token()
    return {"timeout": budget(default), "metadata": _authorization(token)}


def following(*, signer: TokenSigner) -> dict[str, Any]:
    """Return the `metadata` of a stream that is followed without end, in the service's own name."""
    return {"metadata": _authorization(signer.mint_service())}


def _authorization(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)
