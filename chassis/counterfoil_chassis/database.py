"""One service's database: transactions that run callbacks after they commit, on SQLite (WAL) or PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import aiosqlite
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.errors import CounterfoilError, UnavailableError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.inline import InlineRead, InlineReads, NotInlineError
from counterfoil_chassis.lease import Lease, LeaseLostError
from counterfoil_chassis.metrics import DATABASE_CONNECTIONS, DATABASE_WRITERS_WAITING
from counterfoil_chassis.postgresql import connector, is_lost, is_postgresql

_WRITES = "counterfoil_writes"
_PING_SECONDS = 2.0
_SLOW_PINGS = 3  # in a row: one alone may have waited behind a load that passes
# What the disk or the machine is to blame for, and not the statement.
_SQLITE_UNWELL = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
    )
)
_POSTGRESQL: dict[bool, dict[str, Any]] = {
    True: {"isolation_level": "READ COMMITTED", "postgresql_readonly": False},
    False: {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},  # one state, as on SQLite
}
_PRAGMAS = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # what is deleted is overwritten: erased people must not be found in free pages
)
_logger = logging.getLogger(__name__)


class _Rolling(sqlite3.Connection):
    """Rolls back before it closes.

    A transaction outlasts its connection while a statement of it is open. One that was cancelled is, until the
    collector finds its cycle of references: so long, which can be minutes, nobody could write.
    """

    def close(self) -> None:
        """Close it, whatever its disk says to that."""
        try:
            self.rollback()
        finally:
            super().close()


async def _open_sqlite(*args: Any, **options: Any) -> aiosqlite.Connection:
    """Open a file; when that fails, the failure is told once the connection's thread has ended.

    aiosqlite leaves that thread to itself, and it would tell a loop that may be closed by then.
    """
    connection = aiosqlite.connect(*args, **options)
    thread = connection._thread  # noqa: SLF001 - it names it in no other way
    thread.daemon = True  # as SQLAlchemy has it for what it opens itself
    try:
        return await connection
    except BaseException:
        await asyncio.shield(asyncio.to_thread(thread.join))
        raise


class StoreUnavailableError(UnavailableError):
    """The database cannot be written or reached now; nothing was kept, unless its answer to the commit was lost."""

    reason = "STORE_UNAVAILABLE"


class Database:
    """Opens transactions on one SQLAlchemy URL; create it inside the running loop and close it at the end.

    The writers of this process queue for one lock, first come first served, on both engines: what a transaction has
    read is still so when it writes. Other processes are kept away by SQLite itself (whose own busy handler polls) and
    on PostgreSQL by the lease.
    """

    def __init__(self, url: str, *, lease: Lease | None = None) -> None:
        self.url = url
        self._lease = lease
        self._inline: InlineReads | None = None
        if is_postgresql(url):
            name = make_url(url).database or "counterfoil"
            idle = {} if lease is None else {"idle_in_transaction_session_timeout": f"{int(lease.seconds * 3000)}"}
            self._reads = _postgresql(connector(url, name=name), size=4, more=8)
            self._writes = _postgresql(connector(url, name=f"{name} writer", **idle), size=1, more=0)
        else:
            self._reads = self._writes = create_async_engine(
                url,
                pool_size=8,
                max_overflow=8,
                connect_args={"isolation_level": None, "factory": _Rolling, "async_creator_fn": _open_sqlite},
            )
            set_up_sqlite(self._reads.sync_engine)
            self._inline = InlineReads(make_url(url).database or "")
        self._writer = asyncio.Lock()
        self._writers_waiting = 0
        self._writing: asyncio.Task[Any] | None = None
        self._ping: asyncio.Task[None] | None = None
        self._slow_pings = 0
        self._watched = [
            HEALTH.add("database", self._problem, needed=True),
            DATABASE_CONNECTIONS.add(read=self._connections_in_use),
            DATABASE_WRITERS_WAITING.add(read=lambda: self._writers_waiting),
        ]
        self._callbacks: WeakKeyDictionary[AsyncConnection, list[Callable[[], None]]] = WeakKeyDictionary()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a write transaction: commit at exit, roll back on error; callbacks run after the commit.

        It does not nest: pass the connection on. A cancellation that arrives during the commit waits for its end.
        Raises LeaseLostError, and StoreUnavailableError when the disk is full, the database is away, or the like. When
        the connection to PostgreSQL breaks during the commit, what was to be committed may be there, though the
        callbacks did not run.
        """
        callbacks: list[Callable[[], None]] = []
        with _told():
            async with self._turn(), self._connection(writes=True) as connection:
                self._callbacks[connection] = callbacks
                await self._check_lease(connection)
                yield connection
                await _unbroken(_commit(connection, callbacks))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a read transaction: one consistent state of the database; nothing is committed."""
        with _told():
            async with self._connection(writes=False) as connection:
                yield connection

    @contextmanager
    def read_inline(self) -> Iterator[InlineRead]:
        """Open a read transaction in the loop itself, for what few rows answer; its block waits for nothing else.

        Raises NotInlineError, on PostgreSQL always: then the same has to be read by `read`.
        """
        if self._inline is None:
            raise NotInlineError
        with _told(), self._inline.read() as inline:
            yield inline

    def after_commit(self, connection: AsyncConnection, callback: Callable[[], None]) -> None:
        """Have a callback run once the connection's transaction has committed; it must not raise or block."""
        callbacks = self._callbacks.get(connection)
        if callbacks is None:
            raise LookupError("the connection is not one of this database's open write transactions")
        callbacks.append(callback)

    async def forget(self) -> bool:
        """Overwrite on disk what was deleted; False = somebody still reads an older state, and it has to be repeated.

        SQLite brings its write-ahead log into the file and empties it. PostgreSQL gives back the room of dead rows.
        """
        async with self._turn():
            connection = self._writes.connect()
            try:
                await _unbroken(connection.start())
                if connection.dialect.name == "postgresql":
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                    await connection.exec_driver_sql("VACUUM")
                    return True
                sqlite: Any = (await connection.get_raw_connection()).driver_connection
                await sqlite.execute("PRAGMA busy_timeout = 100")
                async with sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)") as found:
                    busy = (await found.fetchone())[0]
                await sqlite.execute("PRAGMA busy_timeout = 10000")
                if busy:
                    gc.collect()  # a statement that was cancelled reads on until its cycle of references is found
                return not busy
            finally:
                await _unbroken(connection.close())

    async def close(self) -> None:
        """Close every connection."""
        for forget in self._watched:
            forget()
        if self._ping is not None:
            await asyncio.wait([self._ping], timeout=_PING_SECONDS)
        if self._inline is not None:
            self._inline.close()
        for engine in {self._reads, self._writes}:
            await engine.dispose()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._writing is not None and self._writing is asyncio.current_task():
            raise RuntimeError("begin() inside begin(): pass the open connection on")
        self._writers_waiting += 1
        try:
            await self._writer.acquire()
        finally:
            self._writers_waiting -= 1
        try:
            self._writing = asyncio.current_task()
            yield
        finally:
            self._writing = None
            self._writer.release()

    async def _problem(self) -> str:
        """Return what is wrong with the database; a ping that never ends is waited for by the next look, too."""
        ping = self._ping
        if ping is None or ping.done():
            ping = self._ping = asyncio.create_task(self._select_one())
        await asyncio.wait([ping], timeout=_PING_SECONDS)
        if not ping.done():
            self._slow_pings += 1
            slow = self._slow_pings >= _SLOW_PINGS
            return "it does not answer in time; look at its load and at the network to it" if slow else ""
        self._slow_pings = 0
        failure = ping.exception()
        if failure is None:
            return ""
        if not isinstance(failure, SQLAlchemyError | CounterfoilError | OSError):
            raise failure
        return f"it cannot be reached ({type(failure).__name__}); see that it runs, and that its URL is right"

    async def _select_one(self) -> None:
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def _connection(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        connection = (self._writes if writes else self._reads).connect()
        try:
            await _unbroken(connection.start())  # a connecting that is broken off would leave its file open
            if connection.dialect.name == "postgresql":
                await connection.execution_options(**_POSTGRESQL[writes])
            else:
                await connection.execution_options(**{_WRITES: writes})
            await connection.begin()
            yield connection
        finally:
            if connection.sync_connection is not None:
                await _unbroken(connection.close())  # rolls back what was not committed

    def _connections_in_use(self) -> int:
        pools = [engine.sync_engine.pool for engine in {self._reads, self._writes}]
        return sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool))

    async def _check_lease(self, connection: AsyncConnection) -> None:
        if self._lease is not None and self._lease.fence:
            found = await connection.execute(text(self._lease.fence))
            if found.first() is None:
                self._lease.lose()
                raise LeaseLostError


async def lasting(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do work that stands on the database; begin it again when the database was away, which is no reason to end."""
    backoff = Backoff(first=0.2, longest=5.0)
    while True:
        try:
            await work()
        except LeaseLostError:
            raise
        except UnavailableError as error:
            if backoff.attempt == 0:
                _logger.warning("work is interrupted: the database is away", extra={"cause": str(error)})
        else:
            return
        await backoff.pause()


def _postgresql(connect: Callable[..., Awaitable[Any]], *, size: int, more: int) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=size,
        max_overflow=more,
        pool_timeout=10,
        pool_pre_ping=True,  # connections that a restart of the server has ended are found before they are used
    )


def set_up_sqlite(engine: Engine) -> None:
    """Make an engine's SQLite connections durable, checked, and begin writes at once.

    A transaction that reads first and writes later can fail at its first write, whatever the timeout, because another
    writer came between; BEGIN IMMEDIATE waits at the beginning instead. The driver must not begin transactions itself:
    connect with `isolation_level=None`.
    """

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _told() -> Iterator[None]:
    """Tell a database that is unwell apart from a statement that is wrong."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, OSError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not _is_unwell(error):
            raise
        raise StoreUnavailableError(
            f"The database is unwell ({cause}); nothing was kept. Send it again, and look at its disk.",
            retry_after=timedelta(seconds=1),
        ) from error


def _is_unwell(error: Exception) -> bool:
    code = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_UNWELL  # the low byte is the primary code, the rest says where
    return is_lost(error)


async def _commit(connection: AsyncConnection, callbacks: Sequence[Callable[[], None]]) -> None:
    await connection.commit()
    for callback in callbacks:
        callback()


async def _unbroken(work: Coroutine[Any, Any, object]) -> None:
    """Await work to its end; a cancellation meanwhile is delivered after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
