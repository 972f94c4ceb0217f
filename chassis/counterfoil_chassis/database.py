"""One service's database: transactions that run callbacks after they commit, on SQLite (WAL) or PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from counterfoil_chassis.errors import UnavailableError

_WRITES = "counterfoil_writes"
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
# PostgreSQL, appendix A: connection exception, insufficient resources, operator intervention, system error.
_POSTGRESQL_UNWELL = ("08", "53", "57", "58")
_PRAGMAS = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class StoreUnavailableError(UnavailableError):
    """The database cannot be written or reached now; nothing was kept."""

    reason = "STORE_UNAVAILABLE"


class Database:
    """Opens transactions on one SQLAlchemy URL; create it inside the running loop and close it at the end.

    On SQLite the writers of this process queue for one lock, first come first served: SQLite's own busy handler polls.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        sqlite = make_url(url).get_backend_name() == "sqlite"
        if sqlite:
            self._engine = create_async_engine(url, pool_size=8, max_overflow=8, connect_args={"isolation_level": None})
            set_up_sqlite(self._engine.sync_engine)
        else:
            self._engine = create_async_engine(url, pool_size=8, max_overflow=8, pool_pre_ping=True)
        self._writer = asyncio.Lock() if sqlite else None
        self._writing: asyncio.Task[Any] | None = None
        self._callbacks: WeakKeyDictionary[AsyncConnection, list[Callable[[], None]]] = WeakKeyDictionary()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a write transaction: commit at exit, roll back on error; callbacks run after the commit.

        It does not nest: pass the connection on. A cancellation that arrives during the commit waits for its end.
        Raises StoreUnavailableError when the disk is full, the database is away, or the like.
        """
        callbacks: list[Callable[[], None]] = []
        with _told():
            async with self._turn(), self._connection(writes=True) as connection:
                self._callbacks[connection] = callbacks
                yield connection
                await _unbroken(_commit(connection, callbacks))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a read transaction: one consistent state of the database; nothing is committed."""
        with _told():
            async with self._connection(writes=False) as connection:
                yield connection

    def after_commit(self, connection: AsyncConnection, callback: Callable[[], None]) -> None:
        """Have a callback run once the connection's transaction has committed; it must not raise or block."""
        callbacks = self._callbacks.get(connection)
        if callbacks is None:
            raise LookupError("the connection is not one of this database's open write transactions")
        callbacks.append(callback)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._writer is None:
            yield
            return
        if self._writing is not None and self._writing is asyncio.current_task():
            raise RuntimeError("begin() inside begin(): pass the open connection on")
        async with self._writer:
            self._writing = asyncio.current_task()
            try:
                yield
            finally:
                self._writing = None

    @asynccontextmanager
    async def _connection(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        connection = self._engine.connect()
        try:
            await _unbroken(connection.start())  # a connecting that is broken off would leave its file open
            await connection.execution_options(**{_WRITES: writes})
            await connection.begin()
            yield connection
        finally:
            if connection.sync_connection is not None:
                await _unbroken(connection.close())  # rolls back what was not committed


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
    except DBAPIError as error:
        if not _is_unwell(error):
            raise
        raise StoreUnavailableError(
            f"The database is unwell ({error.orig}); nothing was kept. Send it again, and look at its disk.",
            retry_after=timedelta(seconds=1),
        ) from error


def _is_unwell(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_UNWELL  # the low byte is the primary code, the rest says where
    return str(getattr(error.orig, "sqlstate", "")).startswith(_POSTGRESQL_UNWELL)


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
