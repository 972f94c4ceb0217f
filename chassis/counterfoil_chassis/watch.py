"""The one shape of every Watch method: the present state, then changes, with heartbeats between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import grpc
from counterfoil.common.v1.watch_pb2 import WatchDelete, WatchHeartbeat, WatchPut, WatchResponse
from google.protobuf import any_pb2
from google.protobuf.message import Message
from sqlalchemy import Row, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_chassis.backoff import Backoff, wait
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import Code, OutOfRangeError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.metrics import WATCH_AGE
from counterfoil_chassis.status import cause_of, failure_of
from counterfoil_chassis.tables import TABLES

HEARTBEAT = timedelta(seconds=5)
SILENCE = timedelta(seconds=20)
_ROWS = 500
_logger = logging.getLogger(__name__)


class RevisionUnknownError(OutOfRangeError):
    """The revision is ahead of this feed, which was restored or begun anew; watch again from 0."""

    reason = "REVISION_UNKNOWN"


async def record_put(connection: AsyncConnection, *, topic: str, key: str, resource: Message) -> None:
    """Record in the open transaction that a resource now is so; then call `feed.changed(connection)`."""
    packed = any_pb2.Any()
    packed.Pack(resource, deterministic=True)
    await _record(connection, topic=topic, key=key, resource=packed)


async def record_delete(connection: AsyncConnection, *, topic: str, key: str) -> None:
    """Record in the open transaction that a resource is no more; then call `feed.changed(connection)`."""
    await _record(connection, topic=topic, key=key, resource=None)


async def _record(connection: AsyncConnection, *, topic: str, key: str, resource: any_pb2.Any | None) -> None:
    # Taking the next revision locks the topic until the commit, so revisions become visible in their order.
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    heads, changes = TABLES.revision, TABLES.change
    taken = insert(heads).values(topic=topic, head=1)
    taken = taken.on_conflict_do_update(index_elements=[heads.c.topic], set_={"head": heads.c.head + 1})
    revision = (await connection.execute(taken.returning(heads.c.head))).scalar_one()
    state = {
        "revision": revision,
        "deleted": resource is None,
        "type_url": resource.type_url if resource else "",
        "resource": resource.value if resource else b"",
    }
    row = insert(changes).values(topic=topic, key=key, **state)
    await connection.execute(row.on_conflict_do_update(index_elements=[changes.c.topic, changes.c.key], set_=state))


class Feed:
    """Streams the changes of one topic to any number of watchers, from the database alone; a process may restart."""

    def __init__(self, database: Database, topic: str, heartbeat: timedelta = HEARTBEAT) -> None:
        self._database = database
        self._topic = topic
        self._heartbeat = heartbeat.total_seconds()
        self._waiting: set[asyncio.Event] = set()

    def notify(self) -> None:
        """Have every stream look for changes now."""
        for event in self._waiting:
            event.set()

    def changed(self, connection: AsyncConnection) -> None:
        """Notify once the connection's transaction has committed."""
        self._database.after_commit(connection, self.notify)

    async def stream(self, after_revision: int) -> AsyncIterator[WatchResponse]:
        """Yield the present state (or the changes since a revision), then a heartbeat, changes, heartbeats, for ever.

        Raise RevisionUnknownError for a revision that was never reached.
        """
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            revision = after_revision
            while True:
                event.clear()
                head = await self._head()
                if revision > head:
                    raise RevisionUnknownError("this revision is not known here; watch again from 0")
                async for change in self._changes(revision, with_deletes=revision > 0):
                    revision = change.revision
                    yield change
                revision = max(revision, head)  # the newest changes can be deletes that a new watcher need not see
                yield WatchResponse(revision=revision, heartbeat=WatchHeartbeat())
                await wait(event, self._heartbeat)
        finally:
            self._waiting.discard(event)

    async def _head(self) -> int:
        heads = TABLES.revision
        async with self._database.read() as connection:
            found = await connection.execute(select(heads.c.head).where(heads.c.topic == self._topic))
        return found.scalar() or 0

    async def _changes(self, after: int, *, with_deletes: bool) -> AsyncIterator[WatchResponse]:
        table = TABLES.change
        wanted = select(table).where(table.c.topic == self._topic).order_by(table.c.revision).limit(_ROWS)
        if not with_deletes:
            wanted = wanted.where(table.c.deleted.is_(False))
        while True:
            async with self._database.read() as connection:
                rows = list(await connection.execute(wanted.where(table.c.revision > after)))
            for row in rows:
                yield _response(row)
            if len(rows) < _ROWS:
                return
            after = rows[-1].revision


def _response(row: Row[Any]) -> WatchResponse:
    if row.deleted:
        return WatchResponse(revision=row.revision, delete=WatchDelete(key=row.key))
    resource = any_pb2.Any(type_url=row.type_url, value=row.resource)
    return WatchResponse(revision=row.revision, put=WatchPut(key=row.key, resource=resource))


class Watcher:
    """Follows a Watch method for the process's life and keeps the last good state while it cannot be reached.

    `name` says in health and metrics what is watched, e.g. `governance changes`.
    `open` starts the call: `lambda after: stub.WatchX(request(after_revision=after), **following(signer=signer))`.
    `on_put` gets the key and the resource as a packed `google.protobuf.Any`; `on_delete` gets the key. After a feed
    began anew, `on_delete` is called for what it no longer has.
    """

    def __init__(
        self,
        open: Callable[[int], AsyncIterable[WatchResponse]],  # noqa: A002 - the word for it
        on_put: Callable[[str, any_pb2.Any], None],
        on_delete: Callable[[str], None],
        *,
        name: str,
        silence: timedelta = SILENCE,
    ) -> None:
        self._name = name
        self._heard = time.monotonic()
        self._cause = ""
        self._open = open
        self._on_put = on_put
        self._on_delete = on_delete
        self._silence = silence.total_seconds()
        self._revision = 0
        self._known: set[str] = set()
        self._seen: set[str] | None = set()  # while the present state arrives; None once it is complete
        self._current = asyncio.Event()

    async def current(self) -> None:
        """Wait until the present state has arrived once."""
        await self._current.wait()

    async def run(self) -> None:
        """Follow for ever, connecting again when the stream ends, fails, or is silent for 20 seconds."""
        backoff = Backoff(first=0.1, longest=5.0)
        self._heard = time.monotonic()
        with HEALTH.checking(f"watch {self._name}", self._problem), WATCH_AGE.reading(self._name, read=self._age):
            while True:
                self._cause = await self._follow(backoff)
                if backoff.attempt == 0:
                    fields = {"watch": self._name, "cause": self._cause}
                    _logger.warning("watching is interrupted; the last good state is kept", extra=fields)
                await backoff.pause()

    def _age(self) -> float:
        return time.monotonic() - self._heard

    def _problem(self) -> str:
        if not self._cause and self._age() <= self._silence:
            return ""
        cause = self._cause or "nothing was heard of it"
        kept = "the last good state is kept" if self._current.is_set() else "nothing is known of it yet"
        return f"not heard of for {self._age():.0f} s ({cause}); {kept}: see that the service it comes from answers"

    async def _follow(self, backoff: Backoff) -> str:
        """Take in one stream to its end; return why it ended."""
        responses = aiter(self._open(self._revision))
        try:
            while True:
                async with asyncio.timeout(self._silence):
                    response = await anext(responses)
                self._take(response)
                self._heard, self._cause = time.monotonic(), ""
                backoff.reset()
        except StopAsyncIteration:
            return "the stream ended"
        except TimeoutError:
            return "the stream was silent"
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if failure.code is Code.OUT_OF_RANGE:
                self._revision, self._seen = 0, set()
            return cause_of(error)

    def _take(self, response: WatchResponse) -> None:
        kind = response.WhichOneof("change")
        if kind == "put":
            self._put(response.put)
        elif kind == "delete":
            self._delete(response.delete.key)
        elif kind == "heartbeat":
            self._complete()
        self._revision = response.revision

    def _put(self, put: WatchPut) -> None:
        self._known.add(put.key)
        if self._seen is not None:
            self._seen.add(put.key)
        self._on_put(put.key, put.resource)

    def _delete(self, key: str) -> None:
        if self._seen is not None:
            self._seen.discard(key)
        if key in self._known:
            self._known.discard(key)
            self._on_delete(key)

    def _complete(self) -> None:
        if self._seen is not None:
            for key in self._known - self._seen:
                self._delete(key)
            self._seen = None
        self._current.set()
