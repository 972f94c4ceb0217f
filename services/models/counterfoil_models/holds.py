"""Datasets that ingest holds: nothing new is made from them, what was made before stays readable and replays."""

import asyncio
from collections.abc import Collection
from datetime import date
from types import MappingProxyType
from typing import Final

from counterfoil_chassis.database import lasting

from counterfoil_models.entities import Gap, Hold
from counterfoil_models.errors import DataHeldError
from counterfoil_models.store import HoldSource, Stores

Key = tuple[str, str]

PROMISE_BROKEN: Final = "PROMISE_BROKEN"
"""What a receipt says of data that breaks its contract and was used all the same."""

REASONS: Final = MappingProxyType(
    {
        "freshness": "DATA_STALE",
        "volume": "VOLUME_UNUSUAL",
        "nullShare": "DATA_DRIFTED",
        "distribution": "DATA_DRIFTED",
        "schemaDrift": "DATA_DRIFTED",
        "delay": "DATA_STALE",
        "reconciliation": "TOTALS_DIFFER",
    }
)
"""The same by what is measured, where no contract says how data has to be."""


async def require_released(
    stores: Stores, workspace: str, datasets: Collection[str], *, days: tuple[date, date] | None = None
) -> tuple[Gap, ...]:
    """Return what outputs of some days have to say of datasets that are not as they should be without being held.

    Raises DataHeldError, which names the incident, when one of them is held.
    """
    async with stores.read() as transaction:
        known = await transaction.holds.of(workspace, datasets)
    held = [each for each in known if each.held]
    if not held:
        gaps = [each for each in known if each.concerns(days)]
        return tuple(Gap(REASONS.get(each.metric, PROMISE_BROKEN), _told(each), 0) for each in gaps)
    first = held[0]
    then = "It passes again: resume it," if first.recovered_at else "Mend the data and resume it,"
    raise DataHeldError(
        f"Dataset {first.dataset!r} is held by monitor {first.monitor_id!r} (incident {first.incident_id}): "
        f"{first.detail} {then} then ask again. What was made before can still be read.",
        metadata={
            "dataset": first.dataset,
            "monitor_id": first.monitor_id,
            "incident_id": first.incident_id,
            "datasets": ",".join(sorted({each.dataset for each in held})),
        },
    )


def _told(hold: Hold) -> str:
    why = f"incident {hold.incident_id}" if hold.incident_id else "which somebody has put up with"
    what = "is not as it should be" if hold.metric in REASONS else "breaks its contract"
    return f"Dataset {hold.dataset!r} {what} (monitor {hold.monitor_id!r}, {why}): {hold.detail}"


class Holds:
    """Keeps what is held as ingest says, for every process that makes outputs; without ingest the last state holds."""

    def __init__(self, stores: Stores, source: HoldSource) -> None:
        self._stores = stores
        self._watcher = source.watch(self._take, self._release)
        self._unconfirmed: set[Key] = set()
        self._changes: dict[Key, Hold | None] = {}  # not written yet; of each hold the newest, None = released
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow ingest for the process's life; what was kept and is held no more is released once that is known."""
        async with self._stores.read() as transaction:
            self._unconfirmed = {each.key for each in await transaction.holds.all()}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            group.create_task(lasting(self._keep))
            await self._watcher.current()
            for key in list(self._unconfirmed):
                self._release(key)

    def _take(self, hold: Hold) -> None:
        self._unconfirmed.discard(hold.key)
        self._change(hold.key, hold)

    def _release(self, key: Key) -> None:
        self._unconfirmed.discard(key)
        self._change(key, None)

    def _change(self, key: Key, change: Hold | None) -> None:
        self._changes[key] = change
        self._changed.set()

    async def _keep(self) -> None:
        while True:
            while self._changes:
                key, change = next(iter(self._changes.items()))
                async with self._stores.begin() as transaction:
                    if change is not None:
                        await transaction.holds.put(change)
                    else:
                        await transaction.holds.delete(*key)
                if self._changes[key] is change:  # else it has changed again meanwhile
                    del self._changes[key]
            self._changed.clear()
            await self._changed.wait()
