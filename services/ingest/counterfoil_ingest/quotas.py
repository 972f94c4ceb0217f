"""How many records a workspace may bring in a day, and how much of the log and of quarantine it may fill.

A bound is looked at before a request is taken, and one that begins below it is taken whole, so a workspace may end a
little above. What is refused is told as something to send later; nothing is dropped. Services that append for
themselves are not bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from counterfoil_chassis.clock import Clock, to_micros

from counterfoil_ingest.errors import QuotaExceededError
from counterfoil_ingest.store import Log

PARTITION = 0
LONGEST_WAIT = timedelta(hours=1)
"""What a sender is told to wait at most: an administrator may raise the bound meanwhile."""
_SIZE_VALID_SECONDS = 60.0
_NO_SIZE = (0, float("-inf"))


@dataclass(frozen=True)
class Quota:
    """The bounds of one workspace, whose days are cut in `timezone`; 0 = none."""

    timezone: str
    records_per_day: int
    stored_bytes: int


@dataclass
class _Day:
    """A workspace's day: when it ends and the log's head at its beginning."""

    end: datetime
    first_offset: int


class Quotas:
    """The bounds that governance has set, and what was used of them."""

    def __init__(self, log: Log, clock: Clock, *, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._quotas: dict[str, Quota] = {}
        self._days: dict[str, _Day] = {}
        self._sizes: dict[str, tuple[int, float]] = {}

    def put(self, workspace: str, quota: Quota) -> None:
        """Let a workspace have these bounds from now on."""
        self._quotas[workspace] = quota
        self._days.pop(workspace, None)  # its timezone may be another
        self._sizes.pop(workspace, None)

    def delete(self, workspace: str) -> None:
        """Let a workspace have no bounds."""
        self._quotas.pop(workspace, None)

    def has_room(self, workspace: str) -> bool:
        """Tell whether it is sure, without looking anything up, that a workspace has not used up what it may."""
        quota = self._quotas.get(workspace)
        if quota is None:
            return True
        if quota.records_per_day:
            day = self._days.get(workspace)
            if day is None or self._clock.now() >= day.end or self._used(workspace, day) >= quota.records_per_day:
                return False
        size, at = self._sizes.get(workspace, _NO_SIZE)
        return not quota.stored_bytes or (self._monotonic() - at < _SIZE_VALID_SECONDS and size < quota.stored_bytes)

    async def require(self, workspace: str) -> None:
        """Raise QuotaExceededError when a workspace has used up what it may."""
        quota = self._quotas.get(workspace)
        if quota is None:
            return
        if quota.records_per_day:
            day = await self._day(workspace, quota)
            used = self._used(workspace, day)
            if used >= quota.records_per_day:
                raise QuotaExceededError(
                    f"The workspace has brought {used:,} records today and may bring {quota.records_per_day:,}. "
                    f"Send it again after {day.end.isoformat()}, or have the quota raised.",
                    retry_after=min(LONGEST_WAIT, max(timedelta(seconds=1), day.end - self._clock.now())),
                    metadata={"quota": "records_per_day"},
                )
        if quota.stored_bytes and (size := await self._size(workspace)) >= quota.stored_bytes:
            raise QuotaExceededError(
                f"The workspace fills {size:,} bytes of the log and of quarantine and may fill {quota.stored_bytes:,}. "
                "Have the quota raised, or what is kept shortened by retention.",
                retry_after=LONGEST_WAIT,
                metadata={"quota": "stored_bytes"},
            )

    def _used(self, workspace: str, day: _Day) -> int:
        return self._log.head(workspace, PARTITION) - day.first_offset

    async def _day(self, workspace: str, quota: Quota) -> _Day:
        now = self._clock.now()
        day = self._days.get(workspace)
        if day is None or now >= day.end:
            zone = ZoneInfo(quota.timezone)
            date = now.astimezone(zone).date()
            begin = datetime.combine(date, time(), zone).astimezone(UTC)
            end = datetime.combine(date + timedelta(days=1), time(), zone).astimezone(UTC)
            first = await asyncio.to_thread(first_offset_since, self._log, workspace, to_micros(begin))
            day = self._days[workspace] = _Day(end, first)
        return day

    async def _size(self, workspace: str) -> int:
        size, at = self._sizes.get(workspace, _NO_SIZE)
        if self._monotonic() - at >= _SIZE_VALID_SECONDS:
            size = await asyncio.to_thread(self._log.stored_bytes, workspace)
            self._sizes[workspace] = (size, self._monotonic())
        return size


def first_offset_since(log: Log, workspace: str, received_at: int) -> int:
    """Return where the first block begins that was received at a time (microseconds) or later; the head for none.

    Blocks lie in the order in which they were received, so halving finds it in as many reads as the head has bits.
    """
    low, high = 0, log.head(workspace, PARTITION)
    while low < high:
        middle = (low + high) // 2
        block = log.read(workspace, PARTITION, middle, max_bytes=1)[0]
        if max(header.received_at for header in block.headers) < received_at:
            low = block.next_offset
        else:
            high = min(block.first_offset, middle)
    return low
