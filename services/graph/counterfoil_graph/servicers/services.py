"""What the servicers of the graph need from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from counterfoil_chassis import audit
from counterfoil_chassis.call import budget
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.worker import Worker

from counterfoil_graph.following import Followers
from counterfoil_graph.store import Stores, Transaction

_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class GraphServices:
    """What every servicer needs.

    `told` wakes the relay of audit entries, `reads_changed` has contracts know what a workspace's mappings read.
    """

    stores: Stores
    followers: Followers
    worker: Worker
    pager: Pager
    idempotency: Idempotency
    clock: Clock
    ids: Ids
    told: Callable[[], None]
    reads_changed: Callable[[str], None]

    async def caller(self) -> Caller:
        """Return the caller once its workspace has a graph."""
        caller = current_caller()
        await self.followers.wait(caller.workspace, seconds=budget(_WAIT_SECONDS))
        return caller

    async def tell(
        self, transaction: Transaction, caller: Caller, action: str, resource: str, details: Mapping[str, Any]
    ) -> None:
        """Write an audit entry with the deed; the relay is woken after the commit."""
        await audit.record(
            transaction.connection,
            ids=self.ids,
            clock=self.clock,
            workspace=caller.workspace,
            principal=caller.principal,
            action=action,
            resource=resource,
            details=details,
        )
        transaction.after_commit(self.told)
