"""Judges a version outside of a transaction, since that takes seconds, and has the verdict hold inside of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from counterfoil_contracts import contracts
from counterfoil_contracts.contracts import Judged
from counterfoil_contracts.effects import compare_version
from counterfoil_contracts.entities import ContractVersion
from counterfoil_contracts.errors import ContractChangedError
from counterfoil_contracts.store import Stores, Transactions

Find = Callable[[Stores], Awaitable[ContractVersion]]

_TIMES = 3


async def judge(transactions: Transactions, find: Find, *, beside: str = "") -> Judged:
    """Return a version with what it was judged by, and the verdict, compared with what is in force or another version.

    Raises VersionNotFoundError, and what `find` raises.
    """
    async with transactions.read() as stores:
        version = await find(stores)
        situation = await (
            contracts.situation_beside(stores, version, beside) if beside else contracts.situation_of(stores, version)
        )
    return Judged(situation, await asyncio.to_thread(compare_version, situation))


async def still_so(stores: Stores, judged: Judged, find: Find) -> bool:
    """Tell whether a version would be judged by the same now."""
    return await contracts.situation_of(stores, await find(stores)) == judged.situation


@asynccontextmanager
async def judged(transactions: Transactions, find: Find) -> AsyncIterator[tuple[Stores, Judged]]:
    """Open a transaction that writes, in which the verdict on a version holds.

    Raises ContractChangedError when the contract or its consumers keep changing meanwhile, and what `find` raises.
    """
    for _ in range(_TIMES):
        found = await judge(transactions, find)
        async with transactions.begin() as stores:
            if await still_so(stores, found, find):
                yield stores, found
                return
    raise ContractChangedError("The contract or its consumers changed meanwhile. Try again.")
