"""What an import is, and what the rules need to keep it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.entities import Erasure, Verdicts
from counterfoil_ingest.store import Statements

SOURCE_ID = "import"
"""The source of every imported record: the same file again finds its rows in the log already."""


class Format(enum.IntEnum):
    """What kind of file it is; the numbers are those of `ingest.v1.Import.Format`."""

    CSV = 1
    JSONL = 2
    PARQUET = 3
    AIRBYTE = 4


class State(enum.IntEnum):
    """Where an import is; the numbers are those of `ingest.v1.Import.State`."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    REVERTING = 5
    REVERTED = 6


@dataclass(frozen=True, slots=True)
class Import:
    """One file on its way into a dataset. Times are microseconds UTC, 0 = none; `snapshot_offset` -1 = none yet.

    Without a `dataset` each stream of a source has its own. `parameters` are a JSON array of `name=value`.
    """

    workspace: str
    import_id: str
    dataset: str
    format: Format
    file_name: str
    file_bytes: int
    file_sha256: str
    created_by: str
    traceparent: str
    created_at: int
    state: State = State.PENDING
    rows_total: int = 0
    rows_read: int = 0
    rows_accepted: int = 0
    rows_duplicate: int = 0
    rows_quarantined: int = 0
    error_reason: str = ""
    error_detail: str = ""
    finished_at: int = 0
    snapshot_offset: int = -1
    log_epoch: str = ""
    erasure_revision: int = 0
    mapping: str = ""
    parameters: str = "[]"
    csv_encoding: str = ""
    csv_delimiter: str = ""
    csv_quote: str = ""
    csv_header_line: int = 0
    source_state: str = ""
    revert_reason: str = ""
    reverted_by: str = ""
    reverted_at: int = 0
    reverted_records: int = 0
    reverted_quarantined: int = 0
    connection: str = ""

    @property
    def given(self) -> Mapping[str, str]:
        """What the import was given beyond its file, by name."""
        return dict(text.split("=", 1) for text in orjson.loads(self.parameters))


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a connection stands: the newest states of its source, and the import that told them."""

    name: str
    source_state: str = ""
    import_id: str = ""


class ImportStore(Protocol):
    """Imports; every call is a transaction of its own, but those with `statements`, which are part of the log's."""

    async def add(self, new: Import) -> None:
        """Keep a new import."""
        ...

    async def get(self, workspace: str, import_id: str) -> Import:
        """Return one import; raise ImportNotFoundError when absent or in another workspace."""
        ...

    async def list(self, workspace: str, *, before: str, limit: int, connection: str = "") -> Sequence[Import]:
        """Return the newest imports before an id, newest first; of one connection or of all."""
        ...

    async def connection(self, workspace: str, name: str) -> Connection:
        """Return where a connection stands; raise ConnectionNotFoundError when no import names it.

        What was told between an import and its revert does not count, so that the revert leaves no gap.
        """
        ...

    async def unfinished(self) -> Sequence[Import]:
        """Return every pending, running or reverting import of every workspace, oldest first."""
        ...

    async def waiting(self, workspace: str) -> int:
        """Return how many imports of a workspace are pending or running: their files fill the disk."""
        ...

    async def save(self, changed: Import) -> None:
        """Store an import's state, totals, error and snapshot; its counters are written where they are counted."""
        ...

    def count(self, statements: Statements, of: Import, verdicts: Verdicts, quarantined: Sequence[str]) -> None:
        """Add verdicts to an import's counters, and where its records lie, in the transaction that keeps these.

        `quarantined` are the ids of what was not in quarantine before.
        """
        ...

    async def revert(
        self,
        workspace: str,
        import_id: str,
        *,
        reason: str,
        by: str,
        at: int,
        tell: Callable[[AsyncConnection], Awaitable[None]],
    ) -> Import:
        """Have an ended import reverted, and `tell` of it in the same transaction; one that is already stays as it is.

        Raises ImportNotFoundError; ImportNotRevertibleError when it has not ended, or where its records lie is unknown.
        """
        ...

    async def records(self, of: Import) -> Sequence[range]:
        """Return the offsets of an import's records, in their order."""
        ...

    async def quarantined(self, of: Import, after: str = "") -> Sequence[str]:
        """Return the next ids after one of what an import put into quarantine, ascending; some thousands at most."""
        ...

    def count_reverted(self, statements: Statements, of: Import, erasure: Erasure) -> None:
        """Add what was taken back to an import's counters within the transaction that does it."""
        ...


def file_of(spool: Path, import_id: str) -> Path:
    """Return where an import's file is kept until its rows are in the log."""
    return spool / f"{import_id}.file"
