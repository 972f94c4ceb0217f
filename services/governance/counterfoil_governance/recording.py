"""On whose behalf governance acts, and its own entries in the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from counterfoil_chassis.clock import Clock, Ids

from counterfoil_governance import audit
from counterfoil_governance.store import Stores

SERVICE: Final = audit.SERVICE
ITSELF: Final = "service:governance"
"""The principal of what governance does for itself, at a start."""


@dataclass(frozen=True)
class Recorder:
    """Writes down what a principal of a workspace does; its entries commit with the deed."""

    workspace: str
    principal: str
    ids: Ids
    clock: Clock

    @property
    def now(self) -> datetime:
        """Return the moment of the deed."""
        return self.clock.now()

    async def record(self, stores: Stores, action: str, resource: str, *, workspace: str = "", **details: Any) -> None:
        """Append an entry to the log of the principal's workspace, or another; details hold no personal data."""
        await audit.record(
            stores,
            ids=self.ids,
            clock=self.clock,
            workspace=workspace or self.workspace,
            principal=self.principal,
            action=action,
            resource=resource,
            details=details,
        )
