"""Short reads of a SQLite database in the event loop itself: a read by id takes microseconds, a thread's turn more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

MOST_ROWS = 500
"""Rows of one statement; reading them holds the loop up for about a millisecond."""


class NotInlineError(Exception):
    """There is more to read than the loop can wait for, or somebody keeps the file to himself: read it in a thread."""


class InlineReads:
    """One connection that reads; opened at the first read, since the database has to be there by then."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def read(self) -> Iterator[InlineRead]:
        """Open a read transaction, one consistent state; nothing in its block may wait for anything else.

        Raises NotInlineError, also from the block, and sqlite3.Error.
        """
        try:
            connection = self._connection = self._connection or self._connect()
            if connection.in_transaction:
                raise RuntimeError("a read in the loop waited for something, and another one came between")
            connection.execute("BEGIN")
            try:
                yield InlineRead(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise NotInlineError from error
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        connection.execute("PRAGMA query_only = ON")
        return connection


class InlineRead:
    """One open read transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Return what a statement finds; raise NotInlineError when that is over `MOST_ROWS`."""
        with closing(self._connection.execute(statement, parameters)) as cursor:
            found = cursor.fetchmany(MOST_ROWS + 1)
        if len(found) > MOST_ROWS:
            raise NotInlineError
        return found
