"""Legal holds on persons: whom they name is found by hashes, said to ingest, and looked at before anybody is erased."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import grpc
from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.clock import Clock, to_micros
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.status import cause_of

from counterfoil_graph.entities import Hold, Member, Name
from counterfoil_graph.store import ErasureOffices, Stores

_AGAIN_SECONDS: Final = 600.0  # by then persons have other identifiers
_VALUE_CHARACTERS: Final = 500  # what ingest takes; a longer identifier is none that anybody has
_logger = logging.getLogger(__name__)


class Holding:
    """Keeps the holds on persons as governance tells them, and ingest told of every identifier they mean."""

    def __init__(self, stores: Stores, offices: ErasureOffices, clock: Clock) -> None:
        self._stores = stores
        self._offices = offices
        self._clock = clock
        self._holds: dict[str, Hold] = {}
        self._changed = asyncio.Event()
        self._cause = ""
        self._watcher = offices.hold_watcher(self._put, self._delete)

    async def run(self) -> None:
        """Follow the holds for the process's life; tell ingest when they change, and from time to time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            await self._watcher.current()
            with HEALTH.checking("legal holds", lambda: self._cause):
                await self._tell_for_ever()

    async def on(self, workspace: str, names: Collection[Name], hashes: Collection[bytes]) -> list[str]:
        """Return the ids of the holds on whom some names or hashes of names mean, as governance has them now.

        What is followed may be a moment behind: too late for who is about to erase.
        """
        return sorted(
            hold.legal_hold_id
            for hold in self._active(await self._offices.holds())
            if hold.workspace == workspace
            and (
                not hold.identifier_hashes.isdisjoint(hashes)
                or any(_digest(each, hold.hash_key) in hold.identifier_hashes for each in names)
            )
        )

    async def _tell_for_ever(self) -> None:
        backoff = Backoff(first=0.5, longest=60.0)
        while True:
            self._changed.clear()
            try:
                await self._tell()
            except (grpc.aio.AioRpcError, CounterfoilError) as error:
                cause = cause_of(error) if isinstance(error, grpc.aio.AioRpcError) else error.message
                self._cause = f"ingest is not told whom legal holds name ({cause}); tried again"
                _logger.warning("ingest is not told whom legal holds name", extra={"cause": cause})
                await backoff.pause()
                continue
            self._cause = ""
            backoff.reset()
            try:
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue  # it may be others by now

    async def _tell(self) -> None:
        active = self._active(self._holds.values())
        for workspace in sorted({hold.workspace for hold in active}):
            holds = [hold for hold in active if hold.workspace == workspace]
            values = sorted({each.name.value[:_VALUE_CHARACTERS] for each in await self._members(workspace, holds)})
            await self._offices.hold_persons(workspace, [each.legal_hold_id for each in holds], values)

    async def _members(self, workspace: str, holds: Sequence[Hold]) -> list[Member]:
        """Return every identifier of everybody whom the holds name, and those that they name and nobody owns alone."""
        found, after = list[Member](), -1
        async with self._stores.read() as transaction:
            store = transaction.erasures(workspace)
            while page := await store.identifiers(after=after):
                for hold in holds:
                    found += await asyncio.to_thread(meant, page, key=hold.hash_key, hashes=hold.identifier_hashes)
                after = page[-1].place
            return [*found, *await store.persons_identifiers([each.place for each in found if not each.shared])]

    def _active(self, holds: Iterable[Hold]) -> list[Hold]:
        now = to_micros(self._clock.now())
        return [each for each in holds if each.expires_us is None or now < each.expires_us]

    def _put(self, key: str, hold: Hold) -> None:
        self._holds[key] = hold
        self._changed.set()

    def _delete(self, key: str) -> None:
        self._holds.pop(key, None)
        self._changed.set()


def meant(members: Sequence[Member], *, key: bytes, hashes: Collection[bytes]) -> list[Member]:
    """Return the identifiers that have one of some keyed hashes."""
    return [each for each in members if _digest(each.name, key) in hashes]


def _digest(name: Name, key: bytes) -> bytes:
    return hmac.digest(key, f"{name.type}\0{name.value}".encode(), "sha256")
