"""The compiled contracts in force, kept in memory: watched from the contracts service, asked for when not known yet.

The last good state is kept: while contracts is unreachable, known datasets validate as before.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import orjson

from counterfoil_ingest.columnwise import Columnwise, take_apart
from counterfoil_ingest.entities import UNPLANNED
from counterfoil_ingest.masking import steps
from counterfoil_ingest.monitors import NO_PROMISES, Promises
from counterfoil_ingest.rules import RecordRules

_ABSENT_FOR = 1.0  # seconds an answer "no contract" is kept; the watch brings a new one at once in the meantime


class ColumnType(enum.IntEnum):
    """A column's type in SQL; the numbers are those of `contracts.v1.Column.Type`."""

    VARCHAR = 1
    BIGINT = 2
    DOUBLE = 3
    BOOLEAN = 4
    DATE = 5
    TIMESTAMPTZ = 6
    JSON = 7


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset; `default_timezone` "" = a zoneless timestamp is refused."""

    name: str
    type: ColumnType
    required: bool
    default_timezone: str
    classification: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """What validates one dataset's records."""

    workspace: str
    dataset: str
    contract_id: str
    version: str
    compiled_sha256: str
    validator: Validator
    columns: tuple[Column, ...]
    json_schema: bytes
    rules: RecordRules | None = None
    promises: Promises = NO_PROMISES
    classifications: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Validator:
    """What holds one record against a contract's JSON Schema or, `columnwise` where that can be, many at once."""

    is_valid: Callable[[Any], bool]
    iter_errors: Callable[[Any], Iterator[Any]]
    columnwise: Columnwise | None


def validator_of(json_schema: bytes) -> Validator:
    """Compile a JSON Schema (draft 2020-12, formats asserted)."""
    schema = orjson.loads(json_schema)
    compiled = jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True)
    return Validator(compiled.is_valid, compiled.iter_errors, take_apart(schema))


class Contracts:
    """The compiled contracts known here; `lookup` asks the contracts service for one (None = it has none)."""

    def __init__(
        self, lookup: Callable[[str, str], Awaitable[Compiled | None]], *, monotonic: Callable[[], float]
    ) -> None:
        self._lookup = lookup
        self._monotonic = monotonic
        self._in_force: dict[tuple[str, str], Compiled] = {}
        self._versions: dict[tuple[str, str, str], Compiled] = {}
        self._absent_until: dict[tuple[str, str], float] = {}
        self._asking: dict[tuple[str, str], asyncio.Future[Compiled | None]] = {}

    def in_force(self, workspace: str, dataset: str) -> Compiled | None:
        """Return what is known to be in force, without asking."""
        return self._in_force.get((workspace, dataset))

    def version(self, workspace: str, dataset: str, version: str) -> Compiled | None:
        """Return one version, in force or not, when it has been seen."""
        return self._versions.get((workspace, dataset, version))

    def all_in_force(self) -> tuple[Compiled, ...]:
        """Return all that is known to be in force, of every workspace."""
        return tuple(self._in_force.values())

    def datasets(self, workspace: str) -> frozenset[str]:
        """Return the datasets of a workspace that are known to have a contract in force."""
        return frozenset(dataset for of, dataset in self._in_force if of == workspace)

    def classified(self, workspace: str, dataset: str, columns: Iterable[str]) -> dict[str, str]:
        """Return the classified fields of a dataset's columns by JSON path.

        A column that the contract in force does not have any more stays what the versions known here classify it as.
        """
        current = self._in_force.get((workspace, dataset))
        found = {} if current is None else dict(current.classifications)
        gone = set(columns) - {column.name for column in (current.columns if current else ())}
        for (of, name, _), compiled in self._versions.items() if gone else ():
            if (of, name) == (workspace, dataset):
                of_gone = (path for path in compiled.classifications if gone.intersection(steps(path)[:1]))
                found |= {path: compiled.classifications[path] for path in of_gone}
        return found

    async def find(self, workspace: str, dataset: str) -> Compiled | None:
        """Return what is in force, asking once for one not known; raise ContractsUnavailableError when that fails."""
        key = (workspace, dataset)
        known = self._in_force.get(key)
        if known is not None or dataset == UNPLANNED or self._absent_until.get(key, 0.0) > self._monotonic():
            return known
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._ask(workspace, dataset))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    def remember(self, compiled: Compiled) -> None:
        """Know a version that may be in force no longer."""
        self._versions[compiled.workspace, compiled.dataset, compiled.version] = compiled

    def put(self, compiled: Compiled) -> None:
        """Take a contract as in force from now on."""
        key = (compiled.workspace, compiled.dataset)
        self._in_force[key] = compiled
        self.remember(compiled)
        self._absent_until.pop(key, None)

    def drop(self, workspace: str, dataset: str) -> None:
        """Take a dataset as without a contract from now on; its versions stay known."""
        self._in_force.pop((workspace, dataset), None)

    async def _ask(self, workspace: str, dataset: str) -> Compiled | None:
        found = await self._lookup(workspace, dataset)
        known = self._in_force.get((workspace, dataset))
        if known is not None:  # the watch was faster, and is newer than an answer on its way
            return known
        if found is None:
            self._absent_until[(workspace, dataset)] = self._monotonic() + _ABSENT_FOR
        else:
            self.put(found)
        return found
