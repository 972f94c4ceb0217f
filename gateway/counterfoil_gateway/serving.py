"""Which processes answer a method: those of its service, or those that serve models beside the one that trains."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

MODELS: Final = "models"
SERVING: Final = "models-serving"
"""The name of the processes that serve models, among the services."""
FAMILIES: Final = frozenset({"AttributionService", "ForecastService", "LiftService", "ReceiptProducerService"})
"""What they serve: whatever makes outputs, reads them, and makes them again."""


def home(owner: str, family: str, known: Collection[str]) -> str:
    """Return who of the known answers a family of methods of the service `owner`."""
    return SERVING if owner == MODELS and family in FAMILIES and SERVING in known else owner
