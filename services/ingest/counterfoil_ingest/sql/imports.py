"""Imports in SQL. Their counters are written in the log's own transaction, with the rows they count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from counterfoil_chassis.database import Database
from counterfoil_chassis.lineage import LineageTrail
from sqlalchemy import Row, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.entities import Erasure, Outcome, Verdicts
from counterfoil_ingest.import_jobs import Connection, Format, Import, State
from counterfoil_ingest.openlineage import import_event
from counterfoil_ingest.read_errors import ConnectionNotFoundError, ImportNotFoundError, ImportNotRevertibleError
from counterfoil_ingest.sql.tables import IMPORT, IMPORT_QUARANTINED, IMPORT_RECORDS
from counterfoil_ingest.store import Statements

_COUNTERS = frozenset(
    {"rows_read", "rows_accepted", "rows_duplicate", "rows_quarantined", "reverted_records", "reverted_quarantined"}
)
_IDS_AT_ONCE = 5_000
_UNFINISHED = (State.PENDING, State.RUNNING, State.REVERTING)
_COUNT = (
    "UPDATE import SET rows_read = rows_read + ?1, rows_accepted = rows_accepted + ?2,"
    " rows_duplicate = rows_duplicate + ?3, rows_quarantined = rows_quarantined + ?4"
    " WHERE workspace = ?5 AND import_id = ?6"
)
_KEEP_RECORDS = "INSERT INTO import_records (workspace, import_id, first_offset, records) VALUES (?1, ?2, ?3, ?4)"
_KEEP_QUARANTINED = "INSERT INTO import_quarantined (workspace, import_id, quarantine_id) VALUES (?1, ?2, ?3)"
_COUNT_REVERTED = (
    "UPDATE import SET reverted_records = reverted_records + ?1, reverted_quarantined = reverted_quarantined + ?2"
    " WHERE workspace = ?3 AND import_id = ?4"
)


class SqlImportStore:
    """The imports of every workspace; how each ended is told to `lineage`, where there is one."""

    def __init__(self, database: Database, lineage: LineageTrail | None = None) -> None:
        self._database = database
        self._lineage = lineage

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
            raise _not_found()
        return _import(row)

    async def list(self, workspace: str, *, before: str, limit: int, connection: str = "") -> Sequence[Import]:
        """Return the newest imports before an id ("" = from the newest on); of one connection or of all."""
        some = select(IMPORT).where(IMPORT.c.workspace == workspace).order_by(IMPORT.c.import_id.desc()).limit(limit)
        if before:
            some = some.where(IMPORT.c.import_id < before)
        if connection:
            some = some.where(IMPORT.c.connection == connection)
        async with self._database.read() as database:
            return [_import(row) for row in await database.execute(some)]

    async def connection(self, workspace: str, name: str) -> Connection:
        """Return where a connection stands; raise ConnectionNotFoundError when no import names it."""
        t, reverted = IMPORT, IMPORT.alias("reverted")
        its = (t.c.workspace == workspace, t.c.connection == name)
        gap = exists().where(
            reverted.c.workspace == workspace,
            reverted.c.connection == name,
            reverted.c.import_id < t.c.import_id,
            reverted.c.reverted_at > t.c.created_at,
        )
        ended = t.c.state.in_((State.SUCCEEDED, State.FAILED))
        newest = (
            select(t.c.source_state, t.c.import_id)
            .where(*its, ended, t.c.source_state != "", ~gap)
            .order_by(t.c.import_id.desc())
            .limit(1)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(newest)).first()
            if row is not None:
                return Connection(name, row.source_state, row.import_id)
            if await connection.scalar(select(t.c.import_id).where(*its).limit(1)) is None:
                raise ConnectionNotFoundError("No import names this connection. List the imports to find one.")
        return Connection(name)

    async def unfinished(self) -> Sequence[Import]:
        """Return every pending, running or reverting import, oldest first."""
        some = select(IMPORT).where(IMPORT.c.state.in_(_UNFINISHED)).order_by(IMPORT.c.import_id)
        async with self._database.read() as connection:
            return [_import(row) for row in await connection.execute(some)]

    async def waiting(self, workspace: str) -> int:
        """Return how many imports of a workspace are pending or running."""
        some = select(func.count()).where(
            IMPORT.c.workspace == workspace, IMPORT.c.state.in_((State.PENDING, State.RUNNING))
        )
        async with self._database.read() as connection:
            return (await connection.execute(some)).scalar_one()

    async def save(self, changed: Import) -> None:
        """Store everything but the counters."""
        one = (IMPORT.c.workspace == changed.workspace, IMPORT.c.import_id == changed.import_id)
        async with self._database.begin() as connection:
            await connection.execute(update(IMPORT).where(*one).values(_values(changed)))
            if self._lineage is not None and (told := import_event(changed)) is not None:
                await self._lineage.record(connection, workspace=changed.workspace, event=told)

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
        one = (IMPORT.c.workspace == workspace, IMPORT.c.import_id == import_id)
        told = (IMPORT_RECORDS.c.workspace == workspace, IMPORT_RECORDS.c.import_id == import_id)
        async with self._database.begin() as connection:
            row = (await connection.execute(select(IMPORT).where(*one))).first()
            if row is None:
                raise _not_found()
            found = _import(row)
            if found.state in (State.REVERTING, State.REVERTED):
                return found
            if found.state not in (State.SUCCEEDED, State.FAILED):
                raise ImportNotRevertibleError("The import has not ended yet. Revert it when it has.")
            known = await connection.scalar(select(func.coalesce(func.sum(IMPORT_RECORDS.c.records), 0)).where(*told))
            if known != found.rows_accepted:
                raise ImportNotRevertibleError(
                    "The import was made by a release that did not note where its records lie. It stays as it is."
                )
            changed = replace(found, state=State.REVERTING, revert_reason=reason, reverted_by=by, reverted_at=at)
            await connection.execute(update(IMPORT).where(*one).values(_values(changed)))
            await tell(connection)
        return changed

    async def records(self, of: Import) -> Sequence[range]:
        """Return the offsets of an import's records, in their order, what follows each other as one."""
        t = IMPORT_RECORDS
        some = (
            select(t.c.first_offset, t.c.records)
            .where(t.c.workspace == of.workspace, t.c.import_id == of.import_id)
            .order_by(t.c.first_offset)
        )
        found: list[range] = []
        async with self._database.read() as connection:
            for first, count in await connection.execute(some):
                if found and found[-1].stop == first:
                    found[-1] = range(found[-1].start, first + count)
                else:
                    found.append(range(first, first + count))
        return found

    async def quarantined(self, of: Import, after: str = "") -> Sequence[str]:
        """Return the next ids after one of what an import put into quarantine, ascending; some thousands at most."""
        t = IMPORT_QUARANTINED
        its = (t.c.workspace == of.workspace, t.c.import_id == of.import_id, t.c.quarantine_id > after)
        some = select(t.c.quarantine_id).where(*its).order_by(t.c.quarantine_id).limit(_IDS_AT_ONCE)
        async with self._database.read() as connection:
            return list((await connection.scalars(some)).all())

    def count(self, statements: Statements, of: Import, verdicts: Verdicts, quarantined: Sequence[str]) -> None:
        """Add verdicts to the counters, and keep where the records lie: accepted ones are consecutive."""
        by = [verdicts.number(each) for each in (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.QUARANTINED)]
        statements.execute(_COUNT, (len(verdicts), *by, of.workspace, of.import_id))
        if by[0]:
            statements.execute(_KEEP_RECORDS, (of.workspace, of.import_id, verdicts.first_offset(), by[0]))
        if quarantined:
            statements.execute_many(_KEEP_QUARANTINED, [(of.workspace, of.import_id, each) for each in quarantined])

    def count_reverted(self, statements: Statements, of: Import, erasure: Erasure) -> None:
        """Add what was taken back to the counters."""
        statements.execute(_COUNT_REVERTED, (erasure.records, erasure.quarantined, of.workspace, of.import_id))


def _values(of: Import) -> dict[str, Any]:
    return {name: value for name, value in asdict(of).items() if name not in _COUNTERS}


def _not_found() -> ImportNotFoundError:
    return ImportNotFoundError("No import has this id. List the imports to find it.")


def _import(row: Row[Any]) -> Import:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public accessor, its underscore avoids column names)
    return Import(**values | {"format": Format(values["format"]), "state": State(values["state"])})
