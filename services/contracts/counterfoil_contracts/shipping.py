"""The contracts that every workspace starts with."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Final

from counterfoil_chassis.clock import Clock

from counterfoil_contracts import contracts
from counterfoil_contracts.effects import compare_version
from counterfoil_contracts.entities import CheckedDocument
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.store import Stores, Transactions

PLATFORM: Final = "platform"
PRINCIPAL: Final = "service:contracts"


@functools.cache
def shipped_documents() -> Mapping[str, tuple[str, CheckedDocument]]:
    """Return every contract that comes with the platform, by id, with what checking it gave."""
    folder = files("counterfoil_contracts") / "shipped"
    texts = [each.read_text("utf-8") for each in folder.iterdir() if each.name.endswith(".odcs.yaml")]
    checked = [(text, check_document(text)) for text in texts]
    return {document.contract_id: (text, document) for text, document in sorted(checked, key=lambda each: each[0])}


async def missing(stores: Stores, workspace: str) -> list[str]:
    """Return the ids of the shipped contracts that a workspace has no contract of."""
    return [each for each in shipped_documents() if not await stores.contracts.exists(workspace, each)]


async def ship(stores: Stores, *, workspace: str, now: datetime) -> None:
    """Give a workspace an active version of each shipped contract unless it has a contract of that id already."""
    for contract_id in await missing(stores, workspace):
        document, checked = shipped_documents()[contract_id]
        version = contracts.draft(document, checked, workspace=workspace, created_by=PLATFORM, now=now)
        await contracts.add_version(stores, version, shipped=True)
        situation = await contracts.situation_of(stores, version)
        judged = contracts.Judged(situation, compare_version(situation))  # at once: nothing is in force yet
        await contracts.activate(stores, judged, reason="", principal=PRINCIPAL, now=now)


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
            some_missing = await missing(stores, workspace)
        if some_missing:
            async with self._transactions.begin() as stores:
                await ship(stores, workspace=workspace, now=self._clock.now())
        self._done.add(workspace)
