"""The right to write a service's database: one process has it, and who lost it can commit nothing any more.

On SQLite it is a lock on a file beside the database, which the system takes back from a process that ends. On
PostgreSQL it is a row with a fencing token: every write transaction begins by reading the row with its own token FOR
SHARE. Taking the lease over raises the token, which waits for those transactions, and begins no sooner than they end; a
process that was paused meanwhile finds another token and can write nothing. Only the database's clock is asked.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import BigInteger, Column, MetaData, Table, Text
from sqlalchemy.engine import make_url

from counterfoil_chassis.errors import StartError, UnavailableError
from counterfoil_chassis.postgresql import (
    NO_DATABASE,
    NO_TABLE,
    WHO_ARE_YOU,
    PgConnection,
    connector,
    is_lost,
    is_postgresql,
    sqlstate,
)

TABLE = Table(
    "lease",
    MetaData(),  # of its own: it is no data, so nothing copies it
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),  # the machine, for people and for a process that is started again
    Column("session", Text, nullable=False),  # the holder's connection, as pg_stat_activity names it
    Column("token", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SESSION = "(SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
# Free: given back, expired, or left by a connection that is gone. Of the latter, another machine waits until a renewal
# is overdue, since the holder may be connecting again.
_TAKE = f"""
INSERT INTO lease AS held (name, holder, session, token, expires_us)
VALUES ($1, $2, {_SESSION}, 1, {_NOW} + $3)
ON CONFLICT (name) DO UPDATE SET
    holder = excluded.holder, session = excluded.session, token = held.token + 1, expires_us = excluded.expires_us
WHERE held.expires_us <= {_NOW} OR (
    (held.holder = excluded.holder OR held.expires_us <= {_NOW} + $3 / 2) AND NOT EXISTS (
        SELECT FROM pg_stat_activity WHERE pid || ' ' || backend_start = held.session))
RETURNING token
"""  # noqa: S608  (made of constants)
_RENEW = f"UPDATE lease SET expires_us = {_NOW} + $3, session = {_SESSION} WHERE name = $1 AND token = $2"  # noqa: S608
_GIVE_BACK = "UPDATE lease SET expires_us = 0 WHERE name = $1 AND token = $2"
_POLL_SECONDS = 0.5
HELD = "another process holds it: this one stands by"
_logger = logging.getLogger(__name__)


class LeaseLostError(UnavailableError):
    """Another process writes this database now; this one ends."""

    reason = "LEASE_LOST"

    def __init__(self) -> None:
        super().__init__("This process no longer has the right to write; another one took over. Send it there.")


class Lease(Protocol):
    """The right to write, while it is held."""

    seconds: float
    """How long it outlives a holder that no longer renews it."""

    fence: str
    """The query that a write transaction must begin with, or none: it finds one row while the lease is held."""

    barrier: str
    """The same, waiting for every write transaction that is open, and keeping others waiting."""

    def lose(self) -> None:
        """Say that a transaction found the lease in other hands."""
        ...

    async def taken(self) -> bool:
        """Take the lease if it is free, and tell."""
        ...

    async def keep(self) -> None:
        """Hold it for the process's life; raise LeaseLostError when another process has it."""
        ...

    async def give_back(self) -> None:
        """Let the next process have it at once."""
        ...


class FileLease:
    """A lock on the file `<database>.lock`."""

    def __init__(self, database: Path) -> None:
        self.problem = ""
        self.seconds = 0.0
        self.fence = self.barrier = ""
        self._path = database.with_suffix(".lock")
        self._file: IO[bytes] | None = None

    def lose(self) -> None:
        """Do nothing: without a fence nobody can find out."""

    async def taken(self) -> bool:
        """Take the lock if it is free, and tell."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            self.problem = HELD
            return False
        self._file = file
        return True

    async def keep(self) -> None:
        """Wait for ever: the system takes the lock back only from a process that ended."""
        await asyncio.Event().wait()

    async def give_back(self) -> None:
        """Close the file, which unlocks it."""
        if self._file is not None:
            self._file.close()


class TableLease:
    """A row of the table `lease`, renewed three times within its life."""

    def __init__(self, name: str, url: str, *, seconds: float) -> None:
        self.problem = ""
        """Why it was not free when it was last asked for."""
        self.seconds = seconds
        self.fence = self.barrier = ""
        self._name = name
        self._connect = connector(url, name=f"counterfoil {name} lease")
        self._connection: PgConnection | None = None
        self._token = 0
        self._lost = asyncio.Event()

    def lose(self) -> None:
        """Say that a transaction found another token."""
        self._lost.set()

    async def taken(self) -> bool:
        """Take the row if it is free, and tell; raise StartError when the database is not migrated."""
        try:
            connection = await self._connected()
            arguments = (self._name, socket.gethostname(), int(self.seconds * 1e6))
            self._token = await connection.fetchval(_TAKE, *arguments, timeout=self.seconds) or 0
        except Exception as error:
            self._drop()
            if sqlstate(error) in (NO_TABLE, NO_DATABASE):
                raise StartError(
                    f"the database of {self._name} is not set up: run `counterfoil migrate` with the same settings"
                ) from None
            if sqlstate(error).startswith(WHO_ARE_YOU):
                raise StartError(f"the database of {self._name} lets nobody in: {error}") from None
            if not is_lost(error):
                raise
            # Or a transaction of the holder's is still running: taking over waits for its end.
            problem = f"the database cannot be asked for it: {type(error).__name__}: {error}"
            if problem != self.problem:  # it is asked for twice a second
                _logger.warning("the lease cannot be asked for", extra={"detail": problem})
            self.problem = problem
            return False
        self.problem = "" if self._token else HELD
        held = f"SELECT 1 FROM lease WHERE name = '{self._name}' AND token = {self._token}"  # noqa: S608
        self.fence, self.barrier = f"{held} FOR SHARE", f"{held} FOR UPDATE"
        return self._token > 0

    async def keep(self) -> None:
        """Renew it; while the database is away there is nothing to lose: nobody can write."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self.seconds / 3)
                raise LeaseLostError
            try:
                connection = await self._connected()
                arguments = (self._name, self._token, int(self.seconds * 1e6))
                renewed = await connection.execute(_RENEW, *arguments, timeout=self.seconds)
            except Exception as error:
                self._drop()
                if not is_lost(error):
                    raise
                _logger.warning("the lease is not renewed", extra={"cause": str(error) or type(error).__name__})
                continue
            if renewed != "UPDATE 1":
                raise LeaseLostError

    async def give_back(self) -> None:
        """Let the lease expire now, if the database can be reached."""
        if self._connection is None:
            return
        try:
            if self._token:
                await self._connection.execute(_GIVE_BACK, self._name, self._token, timeout=self.seconds)
            await self._connection.close(timeout=self.seconds)
        except Exception as error:
            self._connection.terminate()
            if not is_lost(error):
                raise

    def _drop(self) -> None:
        """Have the next statement go by another connection: one that was given up may still be busy with it."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> PgConnection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection


class SharedLease:
    """No right of its own: that of a process which only adds rows, beside the one that holds the lease.

    Its transactions hold the row FOR KEY SHARE. A renewal, or another process that takes the lease over, does not wait
    for them; who holds every writer for a moment, as a backup does, waits for them and keeps them waiting.
    """

    def __init__(self, name: str, *, seconds: float) -> None:
        self.seconds = seconds
        held = f"SELECT 1 FROM lease WHERE name = '{name}' FOR KEY SHARE"  # noqa: S608
        self.fence = f"WITH held AS ({held}) SELECT count(*) FROM held"  # noqa: S608 - one row, though nobody ever held it
        self.barrier = ""

    def lose(self) -> None:
        """Do nothing: there is nothing to lose."""

    async def taken(self) -> bool:
        """Tell that it may begin."""
        return True

    async def keep(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    async def give_back(self) -> None:
        """Do nothing."""


def lease_of(name: str, url: str, *, seconds: float) -> FileLease | TableLease:
    """Return the lease on the database of a service."""
    if is_postgresql(url):
        return TableLease(name, url, seconds=seconds)
    return FileLease(Path(make_url(url).database or ""))


async def wait_for(lease: Lease) -> None:
    """Return once the lease is held."""
    while not await lease.taken():  # noqa: ASYNC110  (nothing tells when it is free)
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def held(lease: Lease) -> AsyncIterator[None]:
    """Give the lease back at the end."""
    try:
        yield
    finally:
        await lease.give_back()
