"""What checks need from storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.check_entities import Check, Wanted


class CheckStore(Protocol):
    """Checks of one transaction; the caller opens and commits it."""

    connection: AsyncConnection
    """For what else commits with it."""

    async def add(self, wanted: Wanted) -> None:
        """Keep a new check and have ingest told of it once the transaction commits."""

    async def get(self, workspace: str, check_id: str) -> Check:
        """Return one check with its result; raise CheckNotFoundError when absent or in another workspace."""

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[Check]:
        """Return at most `limit` checks with ids below `before` (empty = the newest), newest first, without results."""

    async def pending(self, workspace: str) -> int:
        """Return how many wait."""

    async def finish(self, check: Check) -> None:
        """Keep a check that is no longer pending; ingest hears that it need not run it."""

    async def forget_older(self, workspace: str, *, kept: int) -> None:
        """Forget all but the newest checks."""


class CheckTransactions(Protocol):
    """Opens transactions on checks."""

    def begin(self) -> AbstractAsyncContextManager[CheckStore]:
        """Open one that writes; it commits at exit and rolls back on an error."""

    def read(self) -> AbstractAsyncContextManager[CheckStore]:
        """Open one that reads one state."""
