"""Read-only SQL over the lake: datasets are brought up to date, then each query runs by itself (see `sql_query`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from counterfoil_ingest.arrow import Chunk
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.read_errors import ParametersInvalidError, QueryTimeoutError, SqlInvalidError
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.snapshots import Snapshots, known_schema

if TYPE_CHECKING:
    from counterfoil_ingest.sql_query import Dataset, Query, QueryResult

MEMORY = "512MB"
AT_ONCE = 2


class Queries:
    """Runs queries of all workspaces, `at_once` at a time, each with one thread and `memory`."""

    def __init__(
        self,
        lake: Lake,
        *,
        snapshots: Snapshots,
        contracts: Contracts,
        folder: Path,
        memory: str = MEMORY,
        at_once: int = AT_ONCE,
    ) -> None:
        self._lake = lake
        self._snapshots = snapshots
        self._contracts = contracts
        self._folder = str(folder)
        self._memory = memory
        self._turn = asyncio.Semaphore(at_once)

    async def run(self, workspace: str, sql: str, parameters: bytes, *, max_rows: int, within: float) -> QueryResult:
        """Return up to `max_rows` rows of one SELECT; raise SqlInvalidError, QueryTimeoutError, QueryTooLargeError."""
        values = parameters_of(parameters)
        async with self._opened(workspace, sql, within=within) as query:
            return await query.call(lambda: query.rows(values, max_rows))

    async def stream(self, workspace: str, sql: str, parameters: bytes, *, within: float) -> AsyncIterator[Chunk]:
        """Yield all rows of one SELECT as chunks; raises as `run`."""
        values = parameters_of(parameters)
        async with self._opened(workspace, sql, within=within) as query:
            reading = await query.call(lambda: query.chunks(values))
            while (chunk := await query.call(lambda: next(reading, None))) is not None:
                yield chunk

    @asynccontextmanager
    async def _opened(self, workspace: str, sql: str, *, within: float) -> AsyncIterator[Query]:
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        query = await asyncio.to_thread(_query, sql, memory=self._memory, hidden=self._folder)
        try:
            async with asyncio.timeout_at(end):
                await self._turn.acquire()
        except TimeoutError:
            raise QueryTimeoutError("Other queries kept this one waiting too long. Try again in a moment.") from None
        timer = loop.call_at(end, query.interrupt)
        try:
            await query.call(query.open)
            datasets = await self._datasets(workspace, query, within=max(0.0, end - loop.time()))
            await query.call(lambda: query.show(datasets))
            yield query
        finally:
            timer.cancel()
            query.interrupt()
            await asyncio.to_thread(query.close)
            self._turn.release()

    async def _datasets(self, workspace: str, query: Query, *, within: float) -> dict[str, Dataset]:
        from counterfoil_ingest.sql_query import Dataset  # noqa: PLC0415 - imported already, see `_query`

        found: dict[str, Dataset] = {}
        for name in sorted(query.reads):
            compiled = await self._contracts.find(workspace, name)
            snapshot = await asyncio.to_thread(self._snapshots.at_head, workspace, name)
            await self._lake.flush(workspace, max(snapshot.offsets.values()), within=within)
            table = await self._lake.table(workspace, name)
            if compiled is not None or table is not None:
                found[name] = Dataset(snapshot, known_schema(compiled, table), table)
            elif name not in query.defines:
                raise SqlInvalidError(f"There is no dataset `{name}`. List the datasets to see their names.")
        return found


def parameters_of(text: bytes) -> list[Any]:
    """Return the parameters of a JSON array of plain values; raise ParametersInvalidError."""
    try:
        values = orjson.loads(text) if text.strip() else []
    except orjson.JSONDecodeError as error:
        raise ParametersInvalidError(
            f'The parameters are no JSON ({error}). Send an array such as [1, "a"].'
        ) from error
    if not isinstance(values, list) or any(isinstance(value, list | dict) for value in values):
        raise ParametersInvalidError('The parameters must be a JSON array of plain values such as [1, "a"].')
    return values


def _query(sql: str, *, memory: str, hidden: str) -> Query:
    from counterfoil_ingest.sql_query import Query  # noqa: PLC0415 - DuckDB costs time at start; most never run SQL

    return Query(sql, memory=memory, hidden=hidden)
