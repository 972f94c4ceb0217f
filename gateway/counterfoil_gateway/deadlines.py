"""How long a caller waits: `Request-Timeout`, else the method's default, never more than a minute."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil_gateway.api import Method
from counterfoil_gateway.problems import bad_request
from counterfoil_gateway.values import Fault

DEFAULT = 10.0
LONGEST = 60.0
LONGER: Mapping[str, float] = {
    "/counterfoil.governance.v1.ReceiptService/ReplayReceipt": 60.0,
    "/counterfoil.models.v1.ForecastService/CreateForecast": 60.0,
    "/counterfoil.ingest.v1.QueryService/RunQuery": 30.0,
}
"""Default seconds of the methods that compute."""


def timeout_of(headers: Mapping[bytes, bytes], method: Method) -> float | None:
    """Return the seconds a REST call may take; None for a stream whose caller named none; raise Problem."""
    text = headers.get(b"request-timeout")
    if text is None:
        return None if method.server_streaming else LONGER.get(method.name, DEFAULT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise bad_request([Fault("Request-Timeout", "format", "must be seconds such as 2.5")])
    return min(seconds, LONGEST)
