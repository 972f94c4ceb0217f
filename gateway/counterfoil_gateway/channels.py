"""Channels to the services: as the chassis makes them, and such that a caller who leaves ends the work behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import orjson
from counterfoil_chassis.call import MESSAGE_OPTIONS
from counterfoil_chassis.tracing import is_traced
from opentelemetry.instrumentation.grpc import aio_client_interceptors

_RETRIES = {
    "name": [{}],
    "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [_RETRIES],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
_OPTIONS: Sequence[tuple[str, Any]] = (
    *MESSAGE_OPTIONS,
    ("grpc.service_config", orjson.dumps(_SERVICE_CONFIG).decode()),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


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


def connect(target: str) -> grpc.aio.Channel:
    """Open a channel: retries on UNAVAILABLE with a budget, keepalive, 8 MiB messages, traced. The caller closes it."""
    tracing = aio_client_interceptors(filter_=is_traced)  # type: ignore[no-untyped-call]  # ships no types
    interceptors = [*tracing, _CancelsUnary(), _CancelsUpload()]
    return grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=interceptors)
