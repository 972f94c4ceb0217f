"""Read-only SQL over the lake: datasets are brought up to date, then each query runs in a process apart."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from counterfoil_ingest.arrow import Chunk
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.masking import MaskedField, Masks
from counterfoil_ingest.query_errors import TooManyQueriesError
from counterfoil_ingest.query_processes import QueryProcess, QueryProcesses
from counterfoil_ingest.query_results import Form
from counterfoil_ingest.read_errors import ParametersInvalidError, QueryTimeoutError, SqlInvalidError
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.snapshots import Snapshot, Snapshots, known_schema
from counterfoil_ingest.sql_views import Dataset, files_of, json_columns, view_of

MEMORY: Final = "512MB"
AT_ONCE: Final = 2
MOST_WAITING: Final = 16
"""Queries of one workspace that wait for their turn."""

_JSON_BYTES: Final = 4 << 20  # of the rows as Arrow; as JSON they have to fit into one message
_STREAM_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Cited:
    """A dataset as a query saw it: its state, the columns it had, and what was masked."""

    snapshot: Snapshot
    columns: tuple[str, ...]
    masked: tuple[MaskedField, ...]


@dataclass(frozen=True)
class Asked:
    """A query: `max_rows` 0 = all. With `receipt` it is told what it takes to make the result again.

    `masks` says what the caller does not see; without it, ingest itself asks. `cited` are datasets as another query
    saw them, for making its result again.
    """

    sql: str
    parameters: bytes = b""
    form: Form = Form.JSON
    max_rows: int = 0
    receipt: bool = False
    masks: Masks | None = None
    cited: Mapping[str, Cited] | None = None


@dataclass
class Result:
    """A result under way: what is known at its begin, and, once all of it was drawn, its end.

    `columns` are (name, type in SQL). With a receipt, `versions` are the rows read of each dataset by the contract
    version they were validated under, and `sha256` is the hash of the whole.
    """

    columns: Sequence[tuple[str, str]]
    cited: Mapping[str, Cited]
    versions: Mapping[str, Mapping[str, int]]
    _process: QueryProcess = field(repr=False)
    rows: int = 0
    truncated: bool = False
    sha256: str = ""

    async def pieces(self) -> AsyncIterator[Chunk]:
        """Yield the result as it is computed."""
        while True:
            message, data = await self._process.receive()
            if "end" in message:
                self.rows, self.truncated, self.sha256 = message["rows"], message["truncated"], message["sha256"]
                return
            yield Chunk(data, message["rows"])

    @property
    def snapshots(self) -> list[Snapshot]:
        """The states that were read."""
        return [each.snapshot for each in self.cited.values()]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows as a JSON array of arrays, the (name, SQL type) of each column, and what was read."""

    columns: Sequence[tuple[str, str]]
    rows: bytes
    row_count: int
    truncated: bool
    snapshots: Sequence[Snapshot]


class Queries:
    """Runs queries of all workspaces: so many at once, of one workspace fewer, each with one thread and `memory`."""

    def __init__(
        self,
        lake: Lake,
        *,
        snapshots: Snapshots,
        contracts: Contracts,
        folder: Path,
        pseudonym_secret: bytes = b"",
        memory: str = MEMORY,
        at_once: int = AT_ONCE,
        of_workspace: int = AT_ONCE,
        niceness: int = 0,
    ) -> None:
        """Take also by how much the processes they run in are nicer than this one, from 0 to 19."""
        self._lake = lake
        self._snapshots = snapshots
        self._contracts = contracts
        self._folder = str(folder)
        self._secret = pseudonym_secret
        self._processes = QueryProcesses(memory=memory, idle=at_once, niceness=niceness)
        self._turn = asyncio.Semaphore(at_once)
        self._of_workspace = of_workspace
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(of_workspace))
        self._users: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Queries that run or wait for their turn."""
        return self._users.total()

    async def close(self) -> None:
        """End the processes that wait for queries."""
        await self._processes.close()

    def key(self, workspace: str) -> bytes:
        """Return the key of a workspace's pseudonyms."""
        return hmac.new(self._secret, workspace.encode(), hashlib.sha256).digest()

    def key_id(self, workspace: str) -> str:
        """Return what tells that key from another, and not what it is."""
        return hmac.new(self.key(workspace), b"key id", hashlib.sha256).hexdigest()[:16]

    async def run(self, workspace: str, sql: str, parameters: bytes, *, max_rows: int, within: float) -> QueryResult:
        """Return up to `max_rows` rows of one SELECT, for ingest itself; raises as `opened`."""
        asked = Asked(sql, parameters, max_rows=max_rows)
        async with self.opened(workspace, asked, within=within) as result:
            rows = b"".join([piece.data async for piece in result.pieces()])
        return QueryResult(result.columns, rows, result.rows, result.truncated, result.snapshots)

    @asynccontextmanager
    async def opened(self, workspace: str, asked: Asked, *, within: float) -> AsyncIterator[Result]:
        """Begin a query and lend its result; whoever leaves the block ends it.

        Raises SqlInvalidError, ParametersInvalidError, QueryTimeoutError, QueryTooLargeError, ResultTooLargeError,
        TooManyQueriesError, NotReplayableError, NotStartedError, what flushing the lake raises, and what opening
        snapshots raises when some are cited.
        """
        values = parameters_of(asked.parameters)
        end = asyncio.get_running_loop().time() + within
        try:
            async with asyncio.timeout_at(end), self._in_turn(workspace), self._processes.lent() as process:
                opening = {"sql": asked.sql, "seconds": within, "hidden": self._folder, "receipt": asked.receipt}
                await process.send(opening)
                opened, _ = await process.receive()
                left = max(0.0, end - asyncio.get_running_loop().time())
                datasets = await self._datasets(workspace, opened["reads"], opened["defines"], asked, within=left)
                await process.send(
                    {
                        "views": {
                            name: view_of(each, key=self.key(workspace).hex(), ordered=asked.receipt)
                            for name, each in datasets.items()
                        },
                        "files": files_of(datasets),
                        "values": values,
                        "form": asked.form,
                        "max_rows": asked.max_rows,
                        "max_bytes": _JSON_BYTES if asked.form is Form.JSON else _STREAM_BYTES,
                        "receipt": asked.receipt,
                    }
                )
                head, _ = await process.receive()
                cited = {
                    name: Cited(each.snapshot, tuple(each.schema.names), each.masked) for name, each in datasets.items()
                }
                yield Result([(n, t) for n, t in head["columns"]], cited, head["versions"], process)
        except TimeoutError:
            raise QueryTimeoutError(
                "The query took too long, or waited too long for others. Select less, or allow it a later deadline."
            ) from None

    @asynccontextmanager
    async def _in_turn(self, workspace: str) -> AsyncIterator[None]:
        """Wait for a place among the workspace's queries, then among all."""
        if self._users[workspace] >= self._of_workspace + MOST_WAITING:
            raise TooManyQueriesError(
                f"{MOST_WAITING} queries of this workspace wait already. Send this one again when some have ended.",
                retry_after=timedelta(seconds=1),
            )
        self._users[workspace] += 1
        try:
            async with self._turns[workspace], self._turn:
                yield
        finally:
            self._users[workspace] -= 1
            if not self._users[workspace]:
                del self._users[workspace], self._turns[workspace]

    async def _datasets(
        self, workspace: str, reads: Sequence[str], defines: Sequence[str], asked: Asked, *, within: float
    ) -> dict[str, Dataset]:
        found: dict[str, Dataset] = {}
        for name in reads:
            compiled = await self._contracts.find(workspace, name)
            before = asked.cited.get(name) if asked.cited is not None else None
            if before is None:
                snapshot = await asyncio.to_thread(self._snapshots.at_head, workspace, name)
            else:
                snapshot = before.snapshot
                await asyncio.to_thread(self._snapshots.check, workspace, snapshot)
            await self._lake.flush(workspace, max(snapshot.offsets.values()), within=within)
            table = await self._lake.table(workspace, name)
            if compiled is None and table is None:
                if name not in defines:
                    raise SqlInvalidError(f"There is no dataset `{name}`. List the datasets to see their names.")
                continue
            schema = known_schema(compiled, table)
            if before is not None:
                schema = pa.schema([schema.field(column) for column in before.columns])
                masked = before.masked
            else:
                masked = await self._masked(workspace, name, schema, asked)
            found[name] = Dataset(snapshot, schema, table, json_columns(compiled), masked)
        return found

    async def _masked(self, workspace: str, dataset: str, schema: pa.Schema, asked: Asked) -> tuple[MaskedField, ...]:
        classified = self._contracts.classified(workspace, dataset, schema.names)
        if asked.masks is None or not classified:
            return ()
        return tuple(await asked.masks(dataset, classified))


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
