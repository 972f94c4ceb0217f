"""Erasure of records, wherever ingest keeps them: the log, quarantine, the lake; and the search that proves it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.texts import WholeTexts

from counterfoil_ingest import blocks
from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import Erasure as LogErasure
from counterfoil_ingest.entities import LogRecord
from counterfoil_ingest.errors import ErasureAheadError, LogReadError
from counterfoil_ingest.hold_errors import PersonHeldError
from counterfoil_ingest.holds import Holds
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.placing import PARTITION
from counterfoil_ingest.store import LogWriter, QuarantineStore, Statements

_FORGET_SECONDS: Final = 30.0
_QUARANTINED_AT_ONCE: Final = 10_000
_logger = logging.getLogger(__name__)

Quarantined = Callable[[str], Awaitable[Sequence[str]]]
"""Returns some ids of quarantined records after one, ascending; none when there are no more."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What one call has erased, and what of the named offsets its search has found after that."""

    records: int
    quarantined: int
    revision: int
    remaining: int


class Eraser:
    """Erases records, one call after the other; whoever appends or reads goes on meanwhile."""

    def __init__(
        self, log: LogWriter, appender: Appender, lake: Lake, quarantine: QuarantineStore, *, holds: Holds
    ) -> None:
        self._log = log
        self._holds = holds
        self._appender = appender
        self._lake = lake
        self._quarantine = quarantine
        self._turn = asyncio.Lock()

    async def erase(self, workspace: str, partition: int, offsets: Sequence[int], *, texts: Sequence[str]) -> Erased:
        """Erase the records at some offsets, and quarantined ones that are their namesakes or hold one of the texts.

        Namesakes in a dataset that a legal hold is on stay. Ends when it is durable and overwritten. Raises
        ErasureAheadError, LogUnavailableError, LogReadError, DatasetHeldError, HoldsUnknownError.
        """
        wanted = sorted(set(offsets))
        head = self._log.head(workspace, partition)
        if wanted and (wanted[0] < 0 or wanted[-1] >= head):
            raise ErasureAheadError(
                f"The log ends at {head}; {wanted[-1]} is not in it. Nothing was erased.",
                metadata={"head": str(head), "partition": str(partition)},
            )
        async with self._turn:
            found = await self._quarantine.holding(workspace, WholeTexts(texts)) if texts else ()
            await self._require_free(workspace, partition, wanted, quarantined=found)
            records = quarantined = 0
            left, revision = wanted, self._log.erasure_revision
            while left or found:
                held = self._holds.datasets(workspace)
                work = partial(self._log.erase, workspace, partition, left, quarantined=found, held=held)
                erasure = await self._appender.in_turn(work)
                left, found = left[erasure.done :], ()
                records, quarantined = records + erasure.records, quarantined + erasure.quarantined
                revision = erasure.revision
            await self._forget()
            remaining = await self._lake.erase(workspace, _ranges(wanted))
        remaining += await asyncio.to_thread(self._search, workspace, partition, wanted)
        fields = {"workspace": workspace, "records": records, "quarantined": quarantined, "erasure_revision": revision}
        _logger.info("records are erased", extra=fields)
        return Erased(records, quarantined, revision, remaining)

    async def revert(
        self,
        workspace: str,
        records: Sequence[range],
        *,
        quarantined: Quarantined,
        effect: Callable[[Statements, LogErasure], None],
    ) -> None:
        """Erase records by ascending ranges of offsets, and quarantined ones by id, so that all may come again.

        `effect` is called in each transaction with what that has erased. Ends when it is durable and the lake is
        rewritten; done again, it changes nothing. No offset is held by itself; what takes memory is the other rows of
        the lake's files that have to be rewritten. Raises LogUnavailableError, LogReadError, LakeUnavailableError,
        DatasetHeldError, PersonHeldError, HoldsUnknownError.
        """
        async with self._turn:
            await self.require_unheld(workspace, records, quarantined=quarantined)
            async for ids in _pages(quarantined):
                work = partial(self._log.erase, workspace, PARTITION, (), quarantined=ids, reverting=effect)
                await self._appender.in_turn(work)
            for each in records:
                left: Sequence[int] = each
                while left:
                    work = partial(self._log.erase, workspace, PARTITION, left, quarantined=(), reverting=effect)
                    left = left[(await self._appender.in_turn(work)).done :]
            await self._forget()
            if records:
                await self._lake.erase(workspace, records)
        _logger.info("records are taken back", extra={"workspace": workspace, "records": sum(map(len, records))})

    async def expire(
        self, workspace: str, offsets: Sequence[int], *, datasets: Collection[str], quarantined: Sequence[str]
    ) -> None:
        """Erase records by ascending offsets, and quarantined ones by id, all of the `datasets`, as their time is over.

        What comes again after that is new. Ends and raises as `revert`, of holds only HoldsUnknownError and
        DatasetHeldError: whoever calls leaves out what tells of held persons.
        """
        async with self._turn:
            self._holds.require_free(workspace, datasets)
            left, found = offsets, quarantined
            while left or found:
                some = found[:_QUARANTINED_AT_ONCE]
                work = partial(self._log.erase, workspace, PARTITION, left, quarantined=some, reverting=_no_effect)
                left, found = left[(await self._appender.in_turn(work)).done :], found[len(some) :]
            await self._forget()
            if offsets:
                await self._lake.erase(workspace, _ranges(offsets))

    async def _require_free(
        self, workspace: str, partition: int, offsets: Sequence[int], *, quarantined: Sequence[str]
    ) -> None:
        """Raise DatasetHeldError when any of the records is of a held dataset."""
        if self._holds.datasets(workspace):
            datasets = await asyncio.to_thread(self._datasets, workspace, partition, offsets)
            datasets |= {(await self._quarantine.get(workspace, each)).dataset for each in quarantined}
            self._holds.require_free(workspace, datasets)

    async def require_unheld(self, workspace: str, records: Sequence[range], *, quarantined: Quarantined) -> None:
        """Raise when legal holds keep any of the records, by ranges of offsets, or of the quarantined ones, by id.

        DatasetHeldError, PersonHeldError, or HoldsUnknownError.
        """
        for each in records or [range(0)]:
            await self._require_free(workspace, PARTITION, each, quarantined=())
        async for ids in _pages(quarantined):
            await self._require_free(workspace, PARTITION, (), quarantined=ids)
        texts = self._holds.persons(workspace)
        if texts is None:
            return
        found = [await asyncio.to_thread(self._tells_of, workspace, each, texts) for each in records]
        held = frozenset(await self._quarantine.holding(workspace, texts))
        found += [not held.isdisjoint(ids) async for ids in _pages(quarantined)]
        if any(found):
            ids = sorted(self._holds.on_persons(workspace))
            raise PersonHeldError(
                f"Records tell of a person whom a legal hold keeps. Release it first, one of {', '.join(ids)}.",
                metadata={"legal_hold_ids": ",".join(ids)},
            )

    def _datasets(self, workspace: str, partition: int, offsets: Sequence[int]) -> set[str]:
        """Return the datasets of the records at some offsets."""
        return {each.dataset for each in self._records(workspace, partition, offsets)}

    def _tells_of(self, workspace: str, offsets: range, texts: WholeTexts) -> bool:
        return any(texts.within(each.data) for each in self._records(workspace, PARTITION, offsets))

    async def _forget(self) -> None:
        """Have the log overwritten where the records lay, as soon as nobody reads an older state of it."""
        try:
            async with asyncio.timeout(_FORGET_SECONDS):
                pauses = Backoff(first=0.02, longest=1.0)
                while not await self._appender.in_turn(self._log.forget):
                    await pauses.pause()
        except TimeoutError:
            raise LogReadError(
                "Somebody reads an older state of the log all the time, which keeps it on disk. Erase again later.",
                retry_after=timedelta(seconds=_FORGET_SECONDS),
            ) from None

    def _search(self, workspace: str, partition: int, offsets: Sequence[int]) -> int:
        """Count the records that the log still has at some offsets."""
        return sum(1 for _ in self._records(workspace, partition, offsets))

    def _records(self, workspace: str, partition: int, offsets: Sequence[int]) -> Iterator[LogRecord]:
        """Yield the records that the log has at some offsets, which ascend; it blocks."""
        index = 0
        while index < len(offsets):
            block = self._log.read(workspace, partition, offsets[index], max_bytes=0)[0]
            here = frozenset(each for each in offsets[index : index + block.count] if each < block.next_offset)
            yield from (each for each in blocks.decode(block) if each.offset in here)
            index += len(here)


def _no_effect(_statements: Statements, _erasure: LogErasure) -> None:
    """Commit nothing with it."""


def _ranges(offsets: Iterable[int]) -> list[range]:
    """Return offsets as ranges, what follows each other as one."""
    found: list[range] = []
    for each in offsets:
        if found and found[-1].stop == each:
            found[-1] = range(found[-1].start, each + 1)
        else:
            found.append(range(each, each + 1))
    return found


async def _pages(quarantined: Quarantined) -> AsyncIterator[Sequence[str]]:
    ids = await quarantined("")
    while ids:
        yield ids
        ids = await quarantined(ids[-1])
