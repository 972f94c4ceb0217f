"""Follows the log of every workspace: one consumer each, whose effects and place in the log commit together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import zstandard
from counterfoil_chassis import telemetry
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.consumer import Batch, Cursor, EpochUnknownError, LogConsumer
from counterfoil_chassis.database import Database, lasting
from counterfoil_chassis.worker import Worker
from opentelemetry import trace
from opentelemetry.context import Context

from counterfoil_graph import mappings
from counterfoil_graph.absorbing import Absorber
from counterfoil_graph.entities import PARTITION, Decision, IdentifierType, Link, Member
from counterfoil_graph.errors import BlockUnreadableError, GraphBehindError
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.facts import Facts
from counterfoil_graph.identity import Partition, partition
from counterfoil_graph.mapping import InForce
from counterfoil_graph.store import CONSUMER, GraphWriter, Log, LogBlock, LogHeader, Stores

SPAN_CONSUME: Final = "graph.consume"
"""A request's records taken into the graph; continues the request's trace."""

ATTRIBUTE_OFFSET: Final = "counterfoil.offset"
"""The exclusive offset of the state that a block made."""

TRUSTED_SOURCE: Final = "service:graph"
"""The source of the records that this service appends: what people decided."""

_logger = logging.getLogger(__name__)
MOST_BYTES: Final = 64 << 20
"""What a block may decompress to; ingest writes about 2 MiB."""


class Progress:
    """How far a workspace's graph is, for those who wait for it."""

    def __init__(self) -> None:
        self.next_offset = -1  # not known yet
        self._moved = asyncio.Event()

    def reached(self, next_offset: int) -> None:
        """Say that the graph holds everything below an offset; -1 = nobody knows at the moment."""
        self.next_offset = next_offset
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait(self, offset: int, *, seconds: float) -> None:
        """Wait until everything below an offset is in the graph; raise GraphBehindError when it takes too long."""
        if self.next_offset >= offset:
            return
        try:
            async with asyncio.timeout(seconds):
                while self.next_offset < offset:
                    await self._moved.wait()
        except TimeoutError:
            raise GraphBehindError(
                f"The graph has not read the log up to {offset} yet. Try again in a moment.",
                metadata={"next_offset": str(max(0, self.next_offset)), "offset": str(offset)},
            ) from None


@dataclass(frozen=True, slots=True)
class Digest:
    """A block as facts, on its way into the graph."""

    next_offset: int
    facts: Facts
    spans: tuple[trace.Span, ...]


@dataclass(frozen=True)
class Means:
    """What following needs.

    `writer` makes a store on the consumer's transaction; `tell` writes a decision's audit entry in it.
    """

    database: Database
    stores: Stores
    log: Log
    worker: Worker
    writer: Callable[[Any, str, int], GraphWriter]
    tell: Callable[[Any, str, Decision], Awaitable[None]]
    clock: Clock


class Follower:
    """Keeps one workspace's graph at the head of its log."""

    def __init__(self, workspace: str, means: Means) -> None:
        self.workspace = workspace
        self.progress = Progress()
        self.in_force: InForce | None = None
        self.predecessors: Mapping[str, int] | None = None
        """The lives of the log before this one with their last offsets; None until ingest has said it."""
        self._replayed_to = 0  # what lies below was taken in before, and is no news
        self._means = means

    async def run(self) -> None:
        """Follow for ever, under the mappings that are in force at the beginning."""
        async with self._means.stores.begin() as transaction:
            in_force = await mappings.current(
                transaction.mappings(self.workspace), self.workspace, now=self._means.clock.now()
            )
            self._replayed_to = await transaction.reader(self.workspace).rebuild_until()
        self.in_force = in_force
        extractor = Extractor(in_force, trusted_source=TRUSTED_SOURCE)
        absorber = Absorber(in_force.identifier_types, self._partition)
        consumer = LogConsumer(
            self._means.database,
            name=CONSUMER,
            workspace=self.workspace,
            partition=PARTITION,
            read=partial(self._read, extractor),
            apply=partial(self._apply, absorber),
            remedy="have the graph read the log again from its beginning: POST /v1/graph:rebuild",
        )
        self.progress.reached((await consumer.cursor()).next_offset)
        try:
            await consumer.run()
        except EpochUnknownError as error:
            # What was made of the other life stands until somebody asks for a rebuild.
            fields = {**error.metadata, "reason": error.reason, "cause": error.message}
            _logger.critical("the log was restored: the graph stands still", extra=fields)
        except BlockUnreadableError as error:
            # Nothing after it can be taken in; other workspaces are not concerned.
            fields = {**error.metadata, "workspace": self.workspace, "cause": error.message}
            _logger.critical("a block of the log cannot be read: the graph stands still", extra=fields)

    async def _read(self, extractor: Extractor, cursor: Cursor) -> AsyncIterator[Batch[Digest]]:
        blocks = self._means.log.follow(self.workspace, from_offset=cursor.next_offset, log_epoch=cursor.log_epoch)
        done, opened = cursor.next_offset, False
        async for log_epoch, next_offset, block, predecessors in blocks:
            if not opened:
                self.predecessors = dict(predecessors)
            if block is None:
                if opened and next_offset < self._replayed_to:  # the head of a log that is shorter now
                    await self._end_rebuild()
                opened = True
                yield Batch(log_epoch, next_offset, None)
                continue
            with self._spans(block.headers, replay=next_offset <= self._replayed_to) as spans:
                with trace.use_span(spans[0]):
                    facts = await self._means.worker.run(digest, extractor, block, from_offset=done)
                received_us = max((each.received_us for each in block.headers), default=0)
                yield Batch(log_epoch, next_offset, Digest(next_offset, facts, spans), received_us)
            done = next_offset

    async def _end_rebuild(self) -> None:
        async with self._means.stores.begin() as transaction:
            await transaction.mappings(self.workspace).end_rebuild()
        self._replayed_to = 0

    async def _apply(self, absorber: Absorber, connection: Any, found: Digest) -> None:
        for span in found.spans:
            span.set_attribute(ATTRIBUTE_OFFSET, found.next_offset)
        with trace.use_span(found.spans[0]):
            await absorber.absorb(self._means.writer(connection, self.workspace, found.next_offset), found.facts)
            if found.next_offset > self._replayed_to:
                for decision in found.facts.decisions:
                    await self._means.tell(connection, self.workspace, decision)
        self._means.database.after_commit(connection, partial(self.progress.reached, found.next_offset))

    async def _partition(
        self,
        members: Mapping[int, Member],
        links: Iterable[Link],
        decisions: Iterable[Decision],
        types: Mapping[str, IdentifierType],
    ) -> Partition:
        return await self._means.worker.run(partition, members, links, decisions, types)

    @contextmanager
    def _spans(self, headers: Sequence[LogHeader], *, replay: bool) -> Iterator[tuple[trace.Span, ...]]:
        """Open a span in each request's trace, or, when records are read again, one that links to them.

        There is at least one, under which the work of the block shows.
        """
        parents = [each.traceparent for each in headers if each.traceparent]
        start = partial(telemetry.tracer().start_span, SPAN_CONSUME)
        if replay or not parents:
            spans = [start(context=Context(), links=telemetry.links_to(parents))]
        else:
            spans = [start(context=telemetry.context_of(each)) for each in parents]
        try:
            for span in spans:
                span.set_attribute(telemetry.ATTRIBUTE_WORKSPACE, self.workspace)
            yield tuple(spans)
        finally:
            for span in spans:
                span.end()


def digest(extractor: Extractor, block: LogBlock, *, from_offset: int) -> Facts:
    """Return a block as facts; raise BlockUnreadableError. CPU work, for a worker."""
    try:
        payload = zstandard.ZstdDecompressor().decompress(block.payload, max_output_size=MOST_BYTES)
        return extractor.read(
            payload,
            received_us=[each.received_us for each in block.headers],
            sources=[each.source_id for each in block.headers],
            from_offset=from_offset,
        )
    except (zstandard.ZstdError, ValueError, KeyError, IndexError) as error:
        raise BlockUnreadableError(
            f"A block of the log before {block.next_offset} cannot be read ({error}). Restore it from a backup.",
            metadata={"next_offset": str(block.next_offset)},
        ) from error


class Followers:
    """The followers of all workspaces; a workspace is followed from the moment it is known."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._followers: dict[str, Follower] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changing: dict[str, asyncio.Lock] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow for the process's life; one consumer that fails ends them all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for workspace in self._followers:
                self._start(workspace)
            await asyncio.Event().wait()

    def of(self, workspace: str) -> Follower:
        """Return the follower of a workspace, which begins now if it is new."""
        follower = self._followers.get(workspace)
        if follower is None:
            follower = self._followers[workspace] = Follower(workspace, self._means)
            self._changing[workspace] = asyncio.Lock()
            self._start(workspace)
        return follower

    async def wait(self, workspace: str, offset: int = 0, *, seconds: float) -> None:
        """Wait until a workspace's graph holds everything below an offset; with 0, until it is there at all.

        Raises GraphBehindError when it takes too long.
        """
        await self.of(workspace).progress.wait(offset, seconds=seconds)

    def predecessors(self, workspace: str) -> Mapping[str, int]:
        """Return the lives of the log that it continues, each with the exclusive offset up to which it is the same.

        Raises GraphBehindError until ingest has said it.
        """
        found = self.of(workspace).predecessors
        if found is None:
            raise GraphBehindError("The graph has not heard from the log since it started. Try again in a moment.")
        return found

    def in_force(self, workspace: str) -> InForce:
        """Return the mappings under which a workspace's graph is made; call `wait` before."""
        found = self.of(workspace).in_force
        if found is None:
            raise LookupError(workspace)
        return found

    async def change(self, workspace: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do work that changes what is in force while the workspace's consumer stands still, then let it begin anew."""
        follower = self.of(workspace)
        async with self._changing[workspace]:
            task = self._tasks.pop(workspace, None)
            try:
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])
                await work()
            finally:
                follower.progress.reached(-1)
                self._start(workspace)

    def _start(self, workspace: str) -> None:
        if self._group is not None and workspace not in self._tasks:
            self._tasks[workspace] = self._group.create_task(lasting(self._followers[workspace].run))
