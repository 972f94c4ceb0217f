"""PostgreSQL for threads that wait: the driver is asyncio's, so its connections live in a loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

from counterfoil_chassis.postgresql import PgConnection, connector

T = TypeVar("T")


class BlockingConnections:
    """Opens connections that any thread but the loop's own may use, each by one thread at a time; `close` it."""

    def __init__(self, url: str, *, name: str, **settings: str) -> None:
        """Start the loop; the settings are those of each session."""
        self._connector = connector(url, name=name, **settings)
        self._made: WeakSet[BlockingConnection] = WeakSet()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def connect(self) -> BlockingConnection:
        """Open a connection; raise what `is_lost` knows when the server cannot be reached."""
        made = BlockingConnection(self, self.wait(self._open()))
        self._made.add(made)
        return made

    def close(self) -> None:
        """End the loop; connections that are still open break off."""
        for each in list(self._made):
            each.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what work of the loop returns, or raise what it raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> PgConnection:
        return await self._connector()


class BlockingConnection:
    """One connection. A call that fails as `is_lost` says may leave it closed."""

    def __init__(self, connections: BlockingConnections, connection: PgConnection) -> None:
        self._connections = connections
        self._connection = connection

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""
        return self._connection.is_closed()

    def fetch(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one statement; its places are written $1, $2, and so on."""
        return [tuple(row) for row in self._connections.wait(self._connection.fetch(statement, *values))]

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement for each row."""
        self._connections.wait(self._connection.executemany(statement, rows))

    def script(self, statements: str) -> str:
        """Execute statements without places in one round trip; return what the server says of the last, `SELECT 1`."""
        status: str = self._connections.wait(self._connection.execute(statements))
        return status

    def close(self) -> None:
        """Break the connection off; the server rolls back what was not committed."""
        self._connections.wait(self._end())

    async def _end(self) -> None:
        self._connection.terminate()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn
