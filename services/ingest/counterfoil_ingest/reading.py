"""Read the log back: records of one dataset in pages, blocks as a stream that can be followed, datasets with counts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from counterfoil_ingest import blocks
from counterfoil_ingest.entities import UNPLANNED, Block, LogRecord
from counterfoil_ingest.read_errors import DatasetNotFoundError, EpochUnknownError
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.store import Log

HEARTBEAT_SECONDS = 5.0
_LOOKED_AT_BYTES = 8 << 20  # of blocks for one page: a dataset may be rare in the log, and a page must not take minutes
_STREAM_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Some records; `next_offset` is where to look on, None at the head of the log."""

    records: Sequence[LogRecord]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class DatasetShown:
    """One dataset with its contract in force and how much there is of it; `last_received_at` 0 = nothing."""

    dataset: str
    contract_id: str
    contract_version: str
    records: int
    quarantined: int
    last_received_at: int


class LogReader:
    """Reads the log for callers."""

    def __init__(self, log: Log, *, contracts: Contracts) -> None:
        self._log = log
        self._contracts = contracts

    @property
    def epoch(self) -> str:
        """The life of the log."""
        return self._log.epoch

    def check(self, workspace: str, partition: int, *, log_epoch: str, from_offset: int) -> None:
        """Raise EpochUnknownError when an offset of a life of the log does not mean the same records here.

        No epoch means that its reader has read nothing yet.
        """
        if not log_epoch:
            return
        metadata = {"log_epoch": self._log.epoch}
        if log_epoch == self._log.epoch:
            ends = self._log.head(workspace, partition)
            if from_offset > ends:  # a database put back by its own means keeps its epoch
                raise EpochUnknownError(
                    f"The log ends at offset {ends}, before what the reader has read: its database was put back by "
                    "other means than `counterfoil restore`. Put the reader's back to the same moment, or drop what it "
                    "made and read again from offset 0 with an empty log_epoch.",
                    metadata=metadata | {"head": str(ends)},
                )
            return
        life = self._log.predecessors.get(log_epoch)
        if life is None:
            raise EpochUnknownError(
                "The log was restored, and it does not continue the life of the log that the offset belongs to. "
                "Restore the reader from the same backup, or drop what it made and read again from offset 0 with an "
                "empty log_epoch.",
                metadata=metadata,
            )
        head = life.head(workspace, partition)
        if from_offset > head:
            raise EpochUnknownError(
                f"The log was restored from a backup that ends at offset {head}; the records after it are lost, and "
                "the reader has read some of them. Restore the reader from the same backup, or drop what it made and "
                "read again from offset 0 with an empty log_epoch.",
                metadata=metadata | {"head": str(head)},
            )

    def predecessors(self, workspace: str, partition: int) -> Mapping[str, int]:
        """Return the lives of the log that this one continues, with the exclusive offset up to which each is it."""
        return {epoch: life.head(workspace, partition) for epoch, life in self._log.predecessors.items()}

    async def page(self, workspace: str, dataset: str, *, partition: int, from_offset: int, limit: int) -> RecordPage:
        """Return the next records of a dataset; a page may be short, or empty, before the head is reached.

        Raises DatasetNotFoundError when neither a contract nor a record names the dataset.
        """
        await self._require(workspace, dataset)
        return await asyncio.to_thread(self._page, workspace, dataset, partition, from_offset, limit)

    async def _require(self, workspace: str, dataset: str) -> None:
        if await self._contracts.find(workspace, dataset) is None and not await self._has_records(workspace, dataset):
            raise DatasetNotFoundError(
                f"There is no dataset `{dataset}`. List the datasets to find it.", metadata={"dataset": dataset}
            )

    async def _has_records(self, workspace: str, dataset: str) -> bool:
        counts = await asyncio.to_thread(self._log.counts, workspace)
        return dataset == UNPLANNED or any(each.dataset == dataset for each in counts)

    def _page(self, workspace: str, dataset: str, partition: int, from_offset: int, limit: int) -> RecordPage:
        found: list[LogRecord] = []
        position = from_offset
        looked_at = 0
        while looked_at < _LOOKED_AT_BYTES:
            some = self._log.read(workspace, partition, position, max_bytes=_STREAM_BYTES)
            if not some:
                return RecordPage(found, None)
            for block in some:
                looked_at += len(block.payload)
                for record in blocks.decode(block):
                    if record.offset < position or record.dataset != dataset:
                        continue
                    if len(found) == limit:
                        return RecordPage(found, record.offset)
                    found.append(record)
                position = block.next_offset
        return RecordPage(found, position)

    async def datasets(self, workspace: str) -> list[DatasetShown]:
        """Return the datasets that have a contract in force or ever got a record, by name."""
        counts = {each.dataset: each for each in await asyncio.to_thread(self._log.counts, workspace)}
        shown = []
        for dataset in sorted({*counts, *self._contracts.datasets(workspace)} - {""}):
            count, contract = counts.get(dataset), self._contracts.in_force(workspace, dataset)
            shown.append(
                DatasetShown(
                    dataset,
                    contract.contract_id if contract else "",
                    contract.version if contract else "",
                    count.records if count else 0,
                    count.quarantined if count else 0,
                    count.last_received_at if count else 0,
                )
            )
        return shown

    async def follow(
        self, workspace: str, partition: int, from_offset: int, *, follow: bool
    ) -> AsyncIterator[tuple[int, Block | None]]:
        """Yield (next offset, block) to the head; with `follow`, on as blocks commit.

        A heartbeat (no block) comes first, so that the reader learns the log's life, and after each quiet interval.
        """
        position = from_offset
        yield position, None
        while True:
            some = self._log.at_hand(workspace, partition, position)
            if not some and position < self._log.head(workspace, partition):
                some = await asyncio.to_thread(self._log.read, workspace, partition, position, max_bytes=_STREAM_BYTES)
            for block in some:
                position = block.next_offset
                yield position, block
            if some:
                continue
            if not follow:
                return
            head = await self._log.wait(workspace, partition, position, timeout=HEARTBEAT_SECONDS)
            if head <= position:
                yield position, None

    async def tail(
        self, workspace: str, *, dataset: str, source_id: str, partition: int, from_offset: int | None
    ) -> AsyncIterator[tuple[int, LogRecord | None]]:
        """Yield (next offset, record) for ever: those from an offset on, or None = those that come in from now on.

        A sign of life (no record) comes first, so that its reader knows where it stands, and whenever nothing of the
        dataset and source (empty = of any) came for a while: its offset moves on past what others got. Raises
        DatasetNotFoundError.
        """
        if dataset:
            await self._require(workspace, dataset)
        start = self._log.head(workspace, partition) if from_offset is None else from_offset
        now = asyncio.get_running_loop().time
        said = -math.inf
        async for position, block in self.follow(workspace, partition, start, follow=True):
            found = () if block is None else await asyncio.to_thread(_matching, block, dataset, source_id, start)
            for record in found:
                yield record.offset + 1, record
                said = now()
            if block is None or now() - said >= HEARTBEAT_SECONDS:
                yield position, None
                said = now()


def _matching(block: Block, dataset: str, source_id: str, from_offset: int) -> list[LogRecord]:
    if source_id and all(header.source_id != source_id for header in block.headers):
        return []
    found = [each for each in blocks.decode(block) if each.offset >= from_offset and dataset in ("", each.dataset)]
    return [each for each in found if source_id in ("", each.header.source_id)]
