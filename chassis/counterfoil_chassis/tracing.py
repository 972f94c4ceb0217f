"""Which RPCs get spans."""

from __future__ import annotations

from functools import cache
from typing import Any

from counterfoil.common.v1 import options_pb2
from google.protobuf import descriptor_pool


def is_traced(details: Any) -> bool:
    """Return whether a call, by its details, gets a span: not health checks, streams without end, shared calls."""
    method = details.method
    return _is_traced(method.decode() if isinstance(method, bytes) else str(method))


@cache  # only methods that are served or called come here
def _is_traced(path: str) -> bool:
    service, _, rpc = path.removeprefix("/").rpartition("/")
    if service == "grpc.health.v1.Health" or rpc.startswith("Watch"):
        return False
    try:
        method = descriptor_pool.Default().FindMethodByName(f"{service}.{rpc}")
    except KeyError:
        return True
    return not method.GetOptions().Extensions[options_pb2.coalesced]
