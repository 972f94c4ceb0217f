"""Retention: once a day, and when policies or holds change, records whose days are over are erased, and it is proven.

What a legal hold keeps stays. Nothing goes while it is not known what holds keep.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Protocol

from counterfoil_chassis.clock import Clock, to_micros
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.texts import WholeTexts

from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Block
from counterfoil_ingest.erasing import Eraser
from counterfoil_ingest.holds import Holds
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.placing import PARTITION
from counterfoil_ingest.store import Log

_AT_ONCE: Final = 500_000  # offsets erased in one go: the lake is rewritten once for them
_READ_BYTES: Final = 4 << 20
_OUT_OF_ORDER: Final = timedelta(days=1)
"""Records lie in the order they were received, but for clocks that were set back: by less than this."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """For how many whole days the records of a dataset are kept after the day (UTC) they were received."""

    workspace: str
    dataset: str
    days: int


@dataclass(frozen=True, slots=True)
class Done:
    """What was done for a policy; `waiting_for` says why nothing could be, empty = it is done."""

    policy: Policy
    received_before: datetime
    records: int = 0
    quarantined: int = 0
    held: int = 0
    remaining: int = 0
    waiting_for: str = ""


class ExpiredQuarantine(Protocol):
    """Quarantined records that are old."""

    async def received_before(self, workspace: str, dataset: str, before_us: int) -> Sequence[str]:
        """Return the ids of those of a dataset that were received before a time, microseconds UTC."""
        ...

    async def holding(self, workspace: str, texts: WholeTexts) -> Sequence[str]:
        """Return the ids of those that hold any of some texts."""
        ...


@dataclass(slots=True)
class _Found:
    """Expired records of the log by offset, ascending; how many of each dataset, and how many of each are held."""

    offsets: list[int]
    records: Counter[str]
    held: Counter[str]
    next_offset: int | None


class Retention:
    """Carries out the retention policies of every workspace, one workspace after the other."""

    def __init__(
        self,
        eraser: Eraser,
        *,
        log: Log,
        lake: Lake,
        quarantine: ExpiredQuarantine,
        holds: Holds,
        report: Callable[[Done], Awaitable[None]],
        clock: Clock,
        period: timedelta,
    ) -> None:
        """Take also `period`: how often it is looked whether a day is over, and what failed is tried again."""
        self._eraser = eraser
        self._log = log
        self._lake = lake
        self._quarantine = quarantine
        self._holds = holds
        self._report = report
        self._clock = clock
        self._period = period.total_seconds()
        self._policies: dict[str, Policy] = {}
        self._seen: dict[str, object] = {}
        self._failures: dict[str, str] = {}
        self._changed = asyncio.Event()
        holds.changed = self._changed.set

    def put(self, key: str, policy: Policy) -> None:
        """Keep a policy under the key that governance tells of it by."""
        self._policies[key] = policy
        self._changed.set()

    def delete(self, key: str) -> None:
        """Forget a policy."""
        self._policies.pop(key, None)
        self._changed.set()

    async def run(self, known: Callable[[], Awaitable[None]]) -> None:
        """Carry out policies for the process's life, once `known` says that every policy and hold is."""
        await known()
        self._holds.known = True
        with HEALTH.checking("retention", self._problem):
            while True:
                self._changed.clear()
                for workspace in sorted({each.workspace for each in self._policies.values()}):
                    await self.visit(workspace)
                try:
                    async with asyncio.timeout(self._period):
                        await self._changed.wait()
                except TimeoutError:
                    continue  # a day may be over

    async def visit(self, workspace: str) -> None:
        """Carry out the policies of a workspace, unless nothing has changed since that was done today."""
        today = self._clock.now().astimezone(UTC).date()
        policies = sorted(
            (each for each in self._policies.values() if each.workspace == workspace), key=lambda each: each.dataset
        )
        state = (today, tuple(policies), self._holds.active(workspace))
        if self._seen.get(workspace) == state:
            return
        try:
            done = await self._carry_out(workspace, policies, today=today)
            for each in done:
                await self._report(each)
        except CounterfoilError as error:
            self._failures[workspace] = error.reason
            fields = {"workspace": workspace, "reason": error.reason, "cause": error.message}
            _logger.warning("retention failed and is tried again", extra=fields)
            return
        self._failures.pop(workspace, None)
        if not any(each.waiting_for for each in done):
            self._seen[workspace] = state

    def _problem(self) -> str:
        if not self._failures:
            return ""
        workspace, reason = next(iter(self._failures.items()))
        return f"{len(self._failures)} workspaces keep expired records, {workspace} because of {reason}; tried again"

    async def _carry_out(self, workspace: str, policies: Sequence[Policy], *, today: date) -> list[Done]:
        free, waiting = list[Policy](), dict[str, str]()
        texts: WholeTexts | None = None
        try:
            texts = self._holds.persons(workspace)
        except CounterfoilError as error:
            waiting = {each.dataset: error.message for each in policies}
        for policy in policies:
            if holds := self._holds.on_dataset(workspace, policy.dataset):
                waiting[policy.dataset] = f"The dataset is held: {', '.join(holds)}."
            elif policy.dataset not in waiting:
                free.append(policy)
        cuts = {each.dataset: _cut(each, today) for each in policies}
        freed = {each.dataset: to_micros(cuts[each.dataset]) for each in free}
        records = await self._expire_log(workspace, freed, texts)
        left, held = await self._search_log(workspace, freed, texts)
        done = []
        for policy in policies:
            cut, dataset = cuts[policy.dataset], policy.dataset
            if dataset in waiting:
                done.append(Done(policy, cut, waiting_for=waiting[dataset]))
                continue
            some = Done(policy, cut, records=records[dataset], held=held[dataset], remaining=left[dataset])
            done.append(await self._finish(some, texts))
        return done

    async def _expire_log(self, workspace: str, cuts: Mapping[str, int], texts: WholeTexts | None) -> Counter[str]:
        """Erase the expired records of the log and the lake; return how many of each dataset."""
        erased = Counter[str]()
        async for found in self._expired(workspace, cuts, texts):
            if found.offsets:
                await self._eraser.expire(workspace, found.offsets, datasets=found.records, quarantined=())
            erased += found.records
        return erased

    async def _search_log(
        self, workspace: str, cuts: Mapping[str, int], texts: WholeTexts | None
    ) -> tuple[Counter[str], Counter[str]]:
        """Count what the log has of each dataset that should have gone, and what it has because it is held."""
        left, held = Counter[str](), Counter[str]()
        async for found in self._expired(workspace, cuts, texts):
            left += found.records
            held += found.held
        return left, held

    async def _expired(
        self, workspace: str, cuts: Mapping[str, int], texts: WholeTexts | None
    ) -> AsyncIterator[_Found]:
        """Yield the expired records that the log has, as many at once as are erased in one go."""
        offset: int | None = 0 if cuts else None
        while offset is not None:
            found = await asyncio.to_thread(self._find, workspace, cuts, texts, offset)
            yield found
            offset = found.next_offset

    async def _finish(self, done: Done, texts: WholeTexts | None) -> Done:
        """Erase the expired records of quarantine, then search quarantine and the lake for any, as the log was."""
        policy, cut, held = done.policy, done.received_before, done.held
        workspace, dataset, before = policy.workspace, policy.dataset, to_micros(cut)
        expired = await self._expired_quarantine(policy, before, texts)
        if expired:
            await self._eraser.expire(workspace, (), datasets=(dataset,), quarantined=expired)
        rows = await self._lake.rows_before(workspace, dataset, cut.date())
        left = done.remaining + max(0, rows - held) + len(await self._expired_quarantine(policy, before, texts))
        fields = {"workspace": workspace, "dataset": dataset, "records": done.records, "quarantined": len(expired)}
        _logger.info("retention is done", extra={**fields, "held": held, "remaining": left})
        return replace(done, quarantined=len(expired), remaining=left)

    async def _expired_quarantine(self, policy: Policy, before: int, texts: WholeTexts | None) -> list[str]:
        expired = await self._quarantine.received_before(policy.workspace, policy.dataset, before)
        if not expired or texts is None:
            return list(expired)
        held = frozenset(await self._quarantine.holding(policy.workspace, texts))
        return [each for each in expired if each not in held]

    def _find(self, workspace: str, cuts: Mapping[str, int], texts: WholeTexts | None, offset: int) -> _Found:
        """Return the next expired records from an offset on, as many as are erased in one go."""
        found = _Found([], Counter(), Counter(), None)
        last = max(cuts.values()) + int(_OUT_OF_ORDER.total_seconds() * 1_000_000)
        while read := self._log.read(workspace, PARTITION, offset, max_bytes=_READ_BYTES):
            for block in read:
                times = [header.received_at for header in block.headers]
                if min(times) >= last:
                    return found
                if min(times) < max(cuts.values()):
                    _look(block, cuts, texts, found)
                offset = block.next_offset
                if len(found.offsets) >= _AT_ONCE:
                    found.next_offset = offset
                    return found
        return found


def _look(block: Block, cuts: Mapping[str, int], texts: WholeTexts | None, found: _Found) -> None:
    for record in blocks.decode(block):
        if record.header.received_at >= cuts.get(record.dataset, 0):
            continue
        if texts is not None and texts.within(record.data):
            found.held[record.dataset] += 1
        else:
            found.offsets.append(record.offset)
            found.records[record.dataset] += 1


def _cut(policy: Policy, today: date) -> datetime:
    """Return the moment before which a record must have been received to have expired."""
    day = today.toordinal() - policy.days
    return datetime.combine(date.fromordinal(max(day, 719_163)), time(), UTC)  # 1970-01-01: before it nothing came
