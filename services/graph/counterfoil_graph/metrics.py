"""What the graph measures of itself."""

from __future__ import annotations

from typing import Final

from counterfoil_chassis.metrics import Sampled
from prometheus_client import Gauge

ERASURES_WAITING: Final = Gauge(
    "counterfoil_graph_erasures_waiting", "Erasures that are asked for and not carried out yet, over all workspaces."
)
ERASURE_AGE: Final = Sampled(
    "counterfoil_graph_erasure_age_seconds",
    "How long ago the oldest erasure was asked for that is not carried out yet; 0 = none.",
    by=(),
)
