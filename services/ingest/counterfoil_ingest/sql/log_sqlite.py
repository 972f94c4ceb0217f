"""The log's connections to SQLite: one that writes, one that reads for each thread (WAL, synchronous=FULL)."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from counterfoil_ingest.errors import LogUnavailableError

_READ = (
    "SELECT workspace, partition, first_offset, count, layout, payload, headers FROM log_block"
    " WHERE workspace = ?1 AND partition = ?2 AND first_offset >= coalesce("
    "(SELECT max(first_offset) FROM log_block WHERE workspace = ?1 AND partition = ?2 AND first_offset <= ?3), 0)"
    " ORDER BY first_offset"
)


class SqliteReaders:
    """Connections to one file that only read, one for each thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []

    def close(self) -> None:
        """Close every connection."""
        for connection in self._readers:
            connection.close()

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._reader().execute(statement, values).fetchall()

    def read_blocks(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int) -> list[tuple[Any, ...]]:
        """Return the rows of the next blocks, at least one."""
        found: list[tuple[Any, ...]] = []
        with closing(self._reader().execute(_READ, (workspace, partition, from_offset))) as rows:
            for row in rows:
                max_bytes -= len(row[5])
                if found and max_bytes < 0:
                    break
                found.append(row)
        return found

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            connection.execute("PRAGMA query_only=ON")
            self._readers.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: transactions are begun by hand. All are closed by the thread that closes the log: no thread check.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        return connection


class SqliteConnections(SqliteReaders):
    """Connections to one file. Reading is safe from any thread, writing from one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writer = self._connect()

    def close(self) -> None:
        """Close every connection."""
        self.writer.close()
        super().close()

    def forget(self) -> bool:
        """Bring the write-ahead log into the file and empty it: deleted bytes are overwritten there (secure_delete)."""
        self.writer.execute("PRAGMA busy_timeout=100")
        try:
            busy = self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self.writer.execute("PRAGMA busy_timeout=10000")
        if busy:
            gc.collect()  # a statement that was cancelled reads on until its cycle of references is found
        return not busy

    @contextmanager
    def transaction(self) -> Iterator[SqliteStatements]:
        """Begin a transaction that is durable when it ends without an exception."""
        try:
            self.writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        try:
            yield SqliteStatements(self.writer)
            self.writer.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors, e.g. a full disk
                self.writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _unavailable(error) from error
            raise


class SqliteStatements:
    """Statements of the open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement; return its rows."""
        return self._connection.execute(statement, values).fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement for each row."""
        self._connection.executemany(statement, rows)


def _unavailable(error: sqlite3.Error) -> LogUnavailableError:
    return LogUnavailableError.because(f"{error}", look_at="the disk of ingest")
