"""Imports in SQL. Their counters are written in the log's own transaction, with the rows they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from counterfoil_chassis.database import Database
from sqlalchemy import Row, insert, select, update

from counterfoil_ingest.entities import Outcome, Verdicts
from counterfoil_ingest.imports import Format, Import, State
from counterfoil_ingest.read_errors import ImportNotFoundError
from counterfoil_ingest.sql.tables import IMPORT
from counterfoil_ingest.store import Statements

_COUNTERS = frozenset({"rows_read", "rows_accepted", "rows_duplicate", "rows_quarantined"})
_COUNT = (
    "UPDATE import SET rows_read = rows_read + ?1, rows_accepted = rows_accepted + ?2,"
    " rows_duplicate = rows_duplicate + ?3, rows_quarantined = rows_quarantined + ?4"
    " WHERE workspace = ?5 AND import_id = ?6"
)


class SqlImportStore:
    """The imports of every workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, new: Import) -> None:
        """Keep a new import."""
        async with self._database.begin() as connection:
            await connection.execute(insert(IMPORT).values(asdict(new)))

    async def get(self, workspace: str, import_id: str) -> Import:
        """Return one import; raise ImportNotFoundError when absent or in another workspace."""
        one = select(IMPORT).where(IMPORT.c.workspace == workspace, IMPORT.c.import_id == import_id)
        async with self._database.read() as connection:
            row = (await connection.execute(one)).first()
        if row is None:
            raise ImportNotFoundError("No import has this id. List the imports to find it.")
        return _import(row)

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[Import]:
        """Return the newest imports before an id ("" = from the newest on)."""
        some = select(IMPORT).where(IMPORT.c.workspace == workspace).order_by(IMPORT.c.import_id.desc()).limit(limit)
        if before:
            some = some.where(IMPORT.c.import_id < before)
        async with self._database.read() as connection:
            return [_import(row) for row in await connection.execute(some)]

    async def unfinished(self) -> Sequence[Import]:
        """Return every pending or running import, oldest first."""
        some = select(IMPORT).where(IMPORT.c.state.in_((State.PENDING, State.RUNNING))).order_by(IMPORT.c.import_id)
        async with self._database.read() as connection:
            return [_import(row) for row in await connection.execute(some)]

    async def save(self, changed: Import) -> None:
        """Store everything but the counters."""
        values = {name: value for name, value in asdict(changed).items() if name not in _COUNTERS}
        one = (IMPORT.c.workspace == changed.workspace, IMPORT.c.import_id == changed.import_id)
        async with self._database.begin() as connection:
            await connection.execute(update(IMPORT).where(*one).values(values))

    def count(self, statements: Statements, of: Import, verdicts: Verdicts) -> None:
        """Add verdicts to the counters."""
        by = (verdicts.number(each) for each in (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.QUARANTINED))
        statements.execute(_COUNT, (len(verdicts), *by, of.workspace, of.import_id))


def _import(row: Row[Any]) -> Import:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public accessor, its underscore avoids column names)
    return Import(**values | {"format": Format(values["format"]), "state": State(values["state"])})
