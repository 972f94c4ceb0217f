"""The log's connections to PostgreSQL: one that writes, some that read.

When the connection breaks while the server is told to commit, nobody knows whether it did. The writer then waits until
it can ask: first the lease's row FOR UPDATE, which every open write transaction holds a share of, so that the one in
question has ended; then the mark that each transaction leaves. Only after that it goes on.
"""

from __future__ import annotations

import logging
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any

from counterfoil_chassis.blocking import BlockingConnection, BlockingConnections
from counterfoil_chassis.lease import Lease, LeaseLostError
from counterfoil_chassis.postgresql import is_lost

from counterfoil_ingest.errors import LogUnavailableError

_BLOCKS = (
    "SELECT workspace, partition, first_offset, count, layout, payload, headers FROM log_block"
    " WHERE workspace = $1 AND partition = $2 AND first_offset >= coalesce("
    "(SELECT max(first_offset) FROM log_block WHERE workspace = $1 AND partition = $2 AND first_offset <= $3), 0)"
    " ORDER BY first_offset LIMIT 1000"
)
# Their sizes are added up without reading them: only what is sent is.
_READ = (
    "SELECT workspace, partition, first_offset, count, layout, payload, headers FROM (SELECT found.*,"  # noqa: S608
    " sum(octet_length(payload)) OVER (ORDER BY first_offset) AS size,"
    " row_number() OVER (ORDER BY first_offset) AS number"
    f" FROM ({_BLOCKS}) AS found) AS sized WHERE size <= $4 OR number = 1 ORDER BY first_offset"
)
_MARK = "written"
_READERS = 4  # kept open; more are closed after use
_PAUSE_SECONDS = 0.5
_logger = logging.getLogger(__name__)


class PostgresqlReaders:
    """Connections to one database that only read, from any thread."""

    def __init__(self, url: str, **settings: str) -> None:
        """Take also settings of each session."""
        self._connections = BlockingConnections(url, name="counterfoil ingest log", **settings)
        self._readers: SimpleQueue[BlockingConnection] = SimpleQueue()

    def close(self) -> None:
        """Close every connection."""
        while not self._readers.empty():
            self._readers.get().close()
        self._connections.close()

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._fetch(_numbered(statement), values)

    def read_blocks(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int) -> list[tuple[Any, ...]]:
        """Return the rows of the next blocks, at least one."""
        return self._fetch(_READ, (workspace, partition, from_offset, max_bytes))

    def _fetch(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Read with a connection that is at hand; one that broke while nobody used it is replaced once."""
        for kept in (True, False):
            try:
                reader = self._readers.get_nowait() if kept else self._connections.connect()
            except Empty:
                continue
            except Exception as error:
                if not is_lost(error):
                    raise
                raise _unavailable(error) from error
            try:
                rows = reader.fetch(statement, values)
            except Exception as error:
                reader.close()
                if not is_lost(error):
                    raise
                if not kept:
                    raise _unavailable(error) from error
            else:
                self._give_back(reader)
                return rows
        raise AssertionError("the second connection answers or raises")

    def _give_back(self, reader: BlockingConnection) -> None:
        if self._readers.qsize() < _READERS:
            self._readers.put(reader)
        else:
            reader.close()


class PostgresqlConnections(PostgresqlReaders):
    """Connections to one database whose lease is held. Reading is safe from any thread, writing from one."""

    def __init__(self, url: str, lease: Lease) -> None:
        super().__init__(url, idle_in_transaction_session_timeout=f"{int(lease.seconds * 3000)}")
        self._lease = lease
        self._writer: BlockingConnection | None = None
        self._closed = threading.Event()
        with self.transaction() as statements:
            statements.execute("INSERT INTO log_state (name, value) VALUES (?1, '') ON CONFLICT DO NOTHING", (_MARK,))

    def close(self) -> None:
        """Close every connection."""
        self._closed.set()
        if self._writer is not None:
            self._writer.close()
        super().close()

    def forget(self) -> bool:
        """Give the room of dead rows back; the server overwrites it when it is used again."""
        writer = self._connections.connect()
        try:
            for table in ("log_block", "quarantine"):
                writer.script(f"VACUUM {table}")
        finally:
            writer.close()
        return True

    @contextmanager
    def transaction(self) -> Iterator[PostgresqlStatements]:
        """Begin a transaction that is durable when it ends without an exception."""
        try:
            writer = self._begun()
            yield PostgresqlStatements(writer)
        except Exception as error:
            self._roll_back()
            if is_lost(error):
                raise _unavailable(error) from error
            raise
        self._commit(writer)

    def _begun(self) -> BlockingConnection:
        if self._writer is None or self._writer.closed:
            self._writer = self._connections.connect()
        if self._writer.script(f"BEGIN; {self._lease.fence}") != "SELECT 1":
            self._lease.lose()
            raise LeaseLostError
        return self._writer

    def _commit(self, writer: BlockingConnection) -> None:
        mark = uuid.uuid4().hex
        try:
            writer.script(f"UPDATE log_state SET value = '{mark}' WHERE name = '{_MARK}'; COMMIT")  # noqa: S608
        except Exception as error:
            self._break_off()
            if not is_lost(error):
                raise
            _logger.warning("the answer to a commit is lost: finding out", extra={"cause": str(error)})
            if not self._is_marked(mark):
                raise _unavailable(error) from error

    def _is_marked(self, mark: str) -> bool:
        """Tell whether the transaction with a mark was committed, as soon as the server can be asked."""
        while not self._closed.wait(_PAUSE_SECONDS):
            try:
                writer = self._writer = self._connections.connect()
                if writer.script(f"BEGIN; {self._lease.barrier}") != "SELECT 1":
                    self._lease.lose()
                    raise LeaseLostError
                [(found,)] = writer.fetch("SELECT value FROM log_state WHERE name = $1", (_MARK,))
                writer.script("COMMIT")
            except Exception as error:
                self._break_off()
                if not is_lost(error):
                    raise
            else:
                _logger.info("the lost answer is known", extra={"committed": found == mark})
                return bool(found == mark)
        raise _unavailable(ConnectionError("the log was closed"))

    def _roll_back(self) -> None:
        try:
            if self._writer is not None:
                self._writer.script("ROLLBACK")
        except Exception as error:
            self._break_off()
            if not is_lost(error):
                raise

    def _break_off(self) -> None:
        """Leave the writer's connection; whatever is open is rolled back."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class PostgresqlStatements:
    """Statements of the open transaction."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement; return its rows."""
        return self._connection.fetch(_numbered(statement), [_storable(each) for each in values])

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement for each row."""
        self._connection.execute_many(_numbered(statement), rows)


def _storable(value: Any) -> Any:
    """Return a value as PostgreSQL takes it: its texts hold no NUL, which a record id of a producer's can."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


@cache
def _numbered(statement: str) -> str:
    return re.sub(r"\?(\d+)", r"$\1", statement)


def _unavailable(error: Exception) -> LogUnavailableError:
    return LogUnavailableError.because(f"{type(error).__name__}: {error}", look_at="the database of ingest")
