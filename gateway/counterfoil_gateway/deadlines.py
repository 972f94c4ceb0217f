"""How long a caller waits: `Request-Timeout`, at most a minute, else the method's default."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil_chassis.call import budget

from counterfoil_gateway.api import Method
from counterfoil_gateway.problems import bad_request
from counterfoil_gateway.values import Fault

DEFAULT = 10.0
LONGEST = 60.0
STREAM = 6 * 3600.0
"""Seconds of an upload, an export or another stream that has an end: its size has no bound, but its connection does."""
LONGER: Mapping[str, float] = {
    "/counterfoil.governance.v1.ReceiptService/ReplayReceipt": 60.0,
    "/counterfoil.models.v1.ForecastService/CreateForecast": 60.0,
    "/counterfoil.ingest.v1.QueryService/RunQuery": 32.0,
    "/counterfoil.ingest.v1.MonitorService/EvaluateMonitor": 30.0,
    "/counterfoil.contracts.v1.LineageService/EmitLineage": 60.0,
    "/counterfoil.contracts.v1.SchemaService/CheckSchema": 60.0,
    "/counterfoil.contracts.v1.SchemaService/RegisterSchemaVersion": 60.0,
}
"""Default seconds of the methods that compute."""


def default_of(method: Method) -> float | None:
    """Return the seconds of a call whose caller named none; None for what is followed without end."""
    if method.follows:
        return None
    if method.server_streaming or method.client_streaming:
        return STREAM
    return LONGER.get(method.name, DEFAULT)


def timeout_of(headers: Mapping[bytes, bytes], method: Method) -> float | None:
    """Return the seconds a REST call may take; None for what is followed without end; raise Problem."""
    text = headers.get(b"request-timeout")
    if text is None:
        return default_of(method)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise bad_request([Fault("Request-Timeout", "format", "must be seconds such as 2.5")])
    return min(seconds, LONGEST)


def left(headers: Mapping[bytes, bytes], method: Method) -> float | None:
    """Return what is left of it since the request came, for the call onwards; raise DeadlineExceededError."""
    timeout = timeout_of(headers, method)
    return None if timeout is None else budget(timeout)
