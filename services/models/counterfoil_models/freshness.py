"""How much data has come in that a model has not seen: the log is followed and its records are counted per dataset."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from counterfoil_chassis import telemetry
from counterfoil_chassis.consumer import Batch, Cursor, EpochUnknownError, LogConsumer
from counterfoil_chassis.database import Database, lasting

from counterfoil_models.entities import LogBlock
from counterfoil_models.errors import BlockUnreadableError
from counterfoil_models.store import Log, RecordsSeenStore

SPAN_CONSUME: Final = "models.consume"
"""A request's records counted for the models they are news for; continues the request's trace."""

CONSUMER: Final = "freshness"
PARTITION: Final = 0
_FIRST: Final = b'{"o":'
_DATASET: Final = b',"d":"'
_logger = logging.getLogger(__name__)


def count_records(block: LogBlock, *, from_offset: int) -> Mapping[str, int]:
    r"""Count a block's records per dataset, from an offset on; raise BlockUnreadableError.

    A line begins `{"o":offset,"h":number,"d":"dataset","i":`, so that the name is found without parsing the record. The
    headers do not say it: a record without a contract has no version there.
    """
    counts: Counter[str] = Counter()
    for line in block.lines.splitlines():
        begin = line.find(_DATASET)
        if begin < 0 or not line.startswith(_FIRST):
            raise BlockUnreadableError(f"A block of the log before {block.next_offset} is not what it should be.")
        if block.first_offset < from_offset and int(line[len(_FIRST) : line.index(b",")]) < from_offset:
            continue
        begin += len(_DATASET)
        if dataset := line[begin : line.index(b'"', begin)].decode():  # empty: the record was erased
            counts[dataset] += 1
    return counts


class Freshness:
    """Follows the log of every workspace that is named, each by a consumer of its own.

    A log that was restored, or that this release cannot read, stops the counting of its workspace alone.
    """

    def __init__(self, database: Database, *, log: Log, seen: Callable[[Any], RecordsSeenStore]) -> None:
        self._database = database
        self._log = log
        self._seen = seen
        self._workspaces: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Count for the process's life."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for workspace in self._workspaces:
                self._start(workspace)
            await asyncio.Event().wait()

    def follow(self, workspace: str) -> None:
        """Count a workspace's records from now on, too."""
        if workspace not in self._workspaces:
            self._workspaces.add(workspace)
            self._start(workspace)

    def forget(self, workspace: str) -> None:
        """No longer count a workspace's records."""
        self._workspaces.discard(workspace)
        task = self._tasks.pop(workspace, None)
        if task is not None:
            task.cancel()

    def _start(self, workspace: str) -> None:
        if self._group is not None:
            self._tasks[workspace] = self._group.create_task(lasting(partial(self._count, workspace)))

    async def _count(self, workspace: str) -> None:
        consumer = LogConsumer(
            self._database,
            name=CONSUMER,
            workspace=workspace,
            partition=PARTITION,
            read=partial(self._read, workspace),
            apply=partial(self._apply, workspace),
            remedy="delete the consumer's row from the table `cursor` of the models database and start models again, "
            "which counts all records as new",
        )
        try:
            await consumer.run()
        except (EpochUnknownError, BlockUnreadableError) as error:
            fields = {"workspace": workspace, "reason": error.reason, "cause": error.message}
            _logger.error("new records are no longer counted", extra=fields)  # noqa: TRY400 - nothing here is at fault

    async def _read(self, workspace: str, cursor: Cursor) -> AsyncIterator[Batch[tuple[int, LogBlock]]]:
        done = cursor.next_offset
        blocks = self._log.follow(workspace, PARTITION, from_offset=done, log_epoch=cursor.log_epoch)
        async for log_epoch, next_offset, block in blocks:
            found = None if block is None else (done, block)
            yield Batch(log_epoch, next_offset, found, block.received_us if block else 0)
            done = next_offset

    async def _apply(self, workspace: str, connection: Any, found: tuple[int, LogBlock]) -> None:
        from_offset, block = found
        with _spans(workspace, block.traceparents):
            counts = count_records(block, from_offset=from_offset)
            await self._seen(connection).add(workspace, PARTITION, counts)


@contextmanager
def _spans(workspace: str, traceparents: Sequence[str]) -> Iterator[None]:
    """Open a span in the trace of each request that brought records of a block."""
    with ExitStack() as stack:
        for each in traceparents:
            span = stack.enter_context(telemetry.continued(SPAN_CONSUME, each))
            span.set_attribute(telemetry.ATTRIBUTE_WORKSPACE, workspace)
        yield
