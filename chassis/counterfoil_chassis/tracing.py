"""Which RPCs get spans."""

from __future__ import annotations

from typing import Any


def is_traced(details: Any) -> bool:
    """Return whether a call, by its gRPC call details, gets a span: not health checks, nor streams without end."""
    method = details.method
    name = method.decode() if isinstance(method, bytes) else str(method)
    service, _, rpc = name.removeprefix("/").rpartition("/")
    return service != "grpc.health.v1.Health" and not rpc.startswith("Watch")
