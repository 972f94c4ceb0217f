"""The contracts that every workspace starts with."""

from __future__ import annotations

import functools
from datetime import datetime
from importlib.resources import files
from typing import Final

from counterfoil_chassis.clock import Clock

from counterfoil_contracts import contracts
from counterfoil_contracts.entities import CheckedDocument
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.store import Stores, Transactions

PLATFORM: Final = "platform"
EVENTS: Final = "events"


@functools.cache
def shipped_document() -> tuple[str, CheckedDocument]:
    """Return the contract `events` that comes with the platform, and what checking it gave."""
    document = (files("counterfoil_contracts") / "shipped" / "events.odcs.yaml").read_text("utf-8")
    return document, check_document(document)


async def ship(stores: Stores, *, workspace: str, now: datetime) -> None:
    """Give a workspace the active contract `events` unless it has a contract of that id already."""
    if await stores.contracts.exists(workspace, EVENTS):
        return
    document, checked = shipped_document()
    version = contracts.draft(document, checked, workspace=workspace, created_by=PLATFORM, now=now)
    await stores.contracts.add_version(version, shipped=True)
    await contracts.activate(stores, version, reason="", now=now)


class Shipping:
    """Sees to it, once per workspace and process, that a workspace has the shipped contracts."""

    def __init__(self, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock
        self._done: set[str] = set()

    async def ensure(self, workspace: str) -> None:
        """Ship what is missing in a transaction of its own; callers at the same time ship once."""
        if workspace in self._done:
            return
        async with self._transactions.read() as stores:
            missing = not await stores.contracts.exists(workspace, EVENTS)
        if missing:
            async with self._transactions.begin() as stores:
                await ship(stores, workspace=workspace, now=self._clock.now())
        self._done.add(workspace)
