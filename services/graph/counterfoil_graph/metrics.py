"""What the graph measures of itself."""

from __future__ import annotations

from typing import Final

from prometheus_client import Gauge

ERASURES_WAITING: Final = Gauge(
    "counterfoil_graph_erasures_waiting", "Erasures that are asked for and not carried out yet, over all workspaces."
)
