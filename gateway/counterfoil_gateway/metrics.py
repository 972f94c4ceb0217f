"""What the gateway measures of itself, beside what every process does."""

from __future__ import annotations

from typing import Final

from counterfoil_chassis.metrics import Calls
from prometheus_client import Counter

OTHER: Final = "other"
"""The route of a request for no path of ours."""
COUNTED: Final = "counterfoil.counted"
"""Where a request's scope holds what counts it."""
LEFT: Final = "499"
"""The status of a request whose caller left before it was answered."""

REQUESTS = Calls("counterfoil_gateway_requests", "HTTP requests", by="route", outcome="status")
REFUSALS = Counter(
    "counterfoil_gateway_refusals",
    "Requests and calls that were answered with a problem, at either door, by its reason: keys that are none "
    "(CREDENTIAL_...), too many requests (RATE_LIMITED), too much at once (OVERLOADED) and all others.",
    ["reason"],
)
