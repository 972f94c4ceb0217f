"""Audit entries of what is done to contracts, written in the transaction that does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterfoil_chassis.audit import AuditTrail
from sqlalchemy.ext.asyncio import AsyncConnection


class SqlAudit:
    """The audit entries of one open connection."""

    def __init__(self, connection: AsyncConnection, trail: AuditTrail) -> None:
        self._connection = connection
        self._trail = trail

    async def record(
        self, *, workspace: str, principal: str, action: str, resource: str, details: Mapping[str, Any]
    ) -> None:
        """Write an entry of what a principal did to a resource; the details are JSON without personal data."""
        await self._trail.record(
            self._connection,
            workspace=workspace,
            principal=principal,
            action=action,
            resource=resource,
            details=details,
        )
