"""Quarantined records in SQL; the log's transactions write new ones, and close those that are replayed."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any, Final

import orjson
import zstandard
from counterfoil_chassis.database import Database
from counterfoil_chassis.texts import WholeTexts
from sqlalchemy import ColumnElement, Row, Select, and_, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.entities import (
    Finding,
    Outcome,
    Quarantined,
    QuarantineFilter,
    QuarantineGroup,
    QuarantineState,
    Verdict,
)
from counterfoil_ingest.errors import QuarantineChangedError, QuarantinedRecordNotFoundError
from counterfoil_ingest.import_jobs import State
from counterfoil_ingest.sql.tables import DATASET_COUNT, IMPORT_QUARANTINED, QUARANTINE
from counterfoil_ingest.store import Statements

_PAGE: Final = 500
_AT_ONCE: Final = 20  # rows with their bytes read by one statement; one has 20 MiB at most, few more than 1 MiB
_BYTES: Final = 4 << 20  # of one page's records
_RAW: Final = ("raw_zstd", "record_zstd", "repaired_zstd")
_IMPORT: Final = (
    select(IMPORT_QUARANTINED.c.import_id)
    .where(
        IMPORT_QUARANTINED.c.workspace == QUARANTINE.c.workspace,
        IMPORT_QUARANTINED.c.quarantine_id == QUARANTINE.c.quarantine_id,
    )
    .limit(1)
    .scalar_subquery()
    .label("import_id")
)
_SHOWN: Final = [
    *(column for column in QUARANTINE.c if column.name not in (*_RAW, "raw_sha256", "reasons", "reason", "path")),
    _IMPORT,
]
_GROUP: Final = (QUARANTINE.c.dataset, QUARANTINE.c.reason, QUARANTINE.c.path, QUARANTINE.c.contract_version)

_CLOSE = (
    "UPDATE quarantine SET state = 2, closed_at = ?1, closed_by = ?2, replayed_offset = ?3, discard_reason = ''"
    " WHERE workspace = ?4 AND quarantine_id = ?5 AND state = ?6 AND repaired_at = ?7 RETURNING quarantine_id"
)
_FEWER = "UPDATE dataset_count SET quarantined = quarantined - ?1 WHERE workspace = ?2 AND dataset = ?3"
_COUNT_IMPORTED = (
    "UPDATE import SET rows_accepted = rows_accepted + ?1, rows_duplicate = rows_duplicate + ?2,"
    " rows_quarantined = rows_quarantined - ?3 WHERE workspace = ?4 AND import_id = ?5 AND state NOT IN (?6, ?7)"
    " RETURNING import_id"
)
_KEEP_IMPORTED = "INSERT INTO import_records (workspace, import_id, first_offset, records) VALUES (?1, ?2, ?3, ?4)"


class SqlQuarantine:
    """Reads quarantine, each time as it then is, and opens transactions that change it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlQuarantineChanges]:
        """Open a transaction that writes."""
        async with self._database.begin() as connection:
            yield SqlQuarantineChanges(connection)

    async def get(self, workspace: str, quarantine_id: str) -> Quarantined:
        """Return one with its bytes; raise QuarantinedRecordNotFoundError when absent or in another workspace."""
        async with self._database.read() as connection:
            found = await connection.execute(_with_bytes(workspace, [quarantine_id]))
            row = found.first()
        if row is None:
            raise _not_found(quarantine_id)
        return _quarantined(row)

    async def list(self, workspace: str, wanted: QuarantineFilter, *, before: str, limit: int) -> Sequence[Quarantined]:
        """Return the newest before an id, without their bytes."""
        some = select(*_SHOWN).where(*_meant(workspace, wanted))
        if before:
            some = some.where(QUARANTINE.c.quarantine_id < before)
        async with self._database.read() as connection:
            found = await connection.execute(some.order_by(QUARANTINE.c.quarantine_id.desc()).limit(limit))
            return [_quarantined(row) for row in found]

    async def groups(
        self, workspace: str, *, dataset: str, state: QuarantineState, after: Sequence[str], limit: int
    ) -> Sequence[QuarantineGroup]:
        """Return the groups after one, in the order of the index that counts them."""
        t = QUARANTINE
        counted = (func.count(), func.min(t.c.received_at), func.max(t.c.received_at), func.max(t.c.quarantine_id))
        some = select(*_GROUP, *counted).where(t.c.workspace == workspace, t.c.state == state)
        if dataset:
            some = some.where(t.c.dataset == dataset)
        if after:
            some = some.where(tuple_(*_GROUP) > tuple_(*after))
        async with self._database.read() as connection:
            found = await connection.execute(some.group_by(*_GROUP).order_by(*_GROUP).limit(limit))
            return [QuarantineGroup(*row) for row in found]

    async def some(
        self, workspace: str, wanted: QuarantineFilter | Sequence[str], *, after: str, limit: int
    ) -> tuple[Sequence[Quarantined], bool]:
        """Return the oldest after an id that ids or a filter name, with their bytes; and whether there are more."""
        async with self._database.read() as connection:
            ids = await _ids(connection, workspace, wanted, after=after, limit=limit + 1)
            found: list[Quarantined] = []
            size = 0
            for start in range(0, min(len(ids), limit), _AT_ONCE):
                some = ids[start : min(start + _AT_ONCE, limit)]
                for record in [_quarantined(row) for row in await connection.execute(_with_bytes(workspace, some))]:
                    size += len(record.raw) + len(record.record) + len(record.repaired)
                    if found and size > _BYTES:
                        return found, True
                    found.append(record)
        return found, len(ids) > limit

    async def count_since(self, workspace: str, dataset: str, *, since: int) -> int:
        """Return how many records of a dataset were quarantined since a time (microseconds UTC) and not replayed."""
        first = uuid.UUID(int=since // 1000 << 80)  # ids begin with the milliseconds they were made at
        wanted = select(func.count()).where(
            QUARANTINE.c.workspace == workspace,
            QUARANTINE.c.dataset == dataset,
            QUARANTINE.c.quarantine_id >= str(first),
            QUARANTINE.c.received_at >= since,
            QUARANTINE.c.state != QuarantineState.REPLAYED,
        )
        async with self._database.read() as connection:
            return (await connection.execute(wanted)).scalar_one()

    async def count_open(self) -> tuple[int, int]:
        """Return how many are open, of all workspaces, and of the dataset that has most of them."""
        counted = DATASET_COUNT.c.quarantined
        both = select(func.coalesce(func.sum(counted), 0), func.coalesce(func.max(counted), 0))
        async with self._database.read() as connection:
            every, most = (await connection.execute(both)).one()
        return int(every), int(most)

    async def holding(self, workspace: str, texts: WholeTexts) -> Sequence[str]:
        """Return the ids of those that hold any of some texts, as they arrived, as they were judged, or repaired."""
        names = ("quarantine_id", "record_id", *_RAW)
        wanted = select(*(QUARANTINE.c[name] for name in names)).where(QUARANTINE.c.workspace == workspace)
        pages = wanted.order_by(QUARANTINE.c.quarantine_id).limit(_PAGE)
        found: list[str] = []
        after = ""
        while True:
            async with self._database.read() as connection:
                rows = list(await connection.execute(pages.where(QUARANTINE.c.quarantine_id > after)))
            found += await asyncio.to_thread(_holding, rows, texts)
            if len(rows) < _PAGE:
                return found
            after = rows[-1].quarantine_id

    async def received_before(self, workspace: str, dataset: str, before_us: int) -> Sequence[str]:
        """Return the ids of those of a dataset that were received before a time, microseconds UTC."""
        wanted = select(QUARANTINE.c.quarantine_id).where(
            QUARANTINE.c.workspace == workspace,
            QUARANTINE.c.dataset == dataset,
            QUARANTINE.c.received_at < before_us,
        )
        async with self._database.read() as connection:
            return (await connection.scalars(wanted.order_by(QUARANTINE.c.quarantine_id))).all()

    def close(
        self, statements: Statements, records: Sequence[Quarantined], verdicts: Sequence[Verdict], *, by: str, at: int
    ) -> None:
        """Note that records are in the log now, with the counters of their datasets and imports."""
        opened: Counter[tuple[str, str]] = Counter()
        imported: dict[tuple[str, str], list[Verdict]] = {}
        for record, verdict in zip(records, verdicts, strict=True):
            place = (record.workspace, record.quarantine_id)
            seen = (int(record.state), record.repaired_at)
            if not statements.execute(_CLOSE, (at, by, verdict.offset, *place, *seen)):
                raise _changed(record.quarantine_id)
            if record.state is QuarantineState.OPEN:
                opened[record.workspace, record.dataset] += 1
            if record.import_id:
                imported.setdefault((record.workspace, record.import_id), []).append(verdict)
        for (workspace, dataset), number in sorted(opened.items()):
            statements.execute(_FEWER, (number, workspace, dataset))
        for job, of_job in sorted(imported.items()):
            _import_too(statements, job, of_job)


class SqlQuarantineChanges:
    """Quarantined records of one transaction that writes."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def repair(self, records: Sequence[Quarantined]) -> None:
        """Keep the repairs of records."""
        compress = zstandard.ZstdCompressor(level=3).compress
        for record in records:
            change = (
                update(QUARANTINE)
                .where(
                    QUARANTINE.c.workspace == record.workspace,
                    QUARANTINE.c.quarantine_id == record.quarantine_id,
                    QUARANTINE.c.state != QuarantineState.REPLAYED,
                )
                .values(
                    repaired_zstd=compress(record.repaired) if record.repaired else None,
                    repaired_dataset=record.repaired_dataset,
                    repaired_record_id=record.repaired_record_id,
                    repaired_at=record.repaired_at,
                    repaired_by=record.repaired_by,
                )
            )
            if (await self.connection.execute(change)).rowcount != 1:
                raise _changed(record.quarantine_id)

    async def discard(
        self,
        workspace: str,
        wanted: QuarantineFilter | Sequence[str],
        *,
        after: str,
        limit: int,
        reason: str,
        by: str,
        at: int,
    ) -> tuple[int, str]:
        """Set the oldest after an id aside; return how many are now, and the last id where there are more."""
        t = QUARANTINE
        ids = await _ids(self.connection, workspace, wanted, after=after, limit=limit + 1)
        more = len(ids) > limit
        ids = ids[:limit]
        these = and_(t.c.workspace == workspace, t.c.quarantine_id.in_(ids))
        change = update(t).where(these, t.c.state == QuarantineState.OPEN)
        change = change.values(state=QuarantineState.DISCARDED, closed_at=at, closed_by=by, discard_reason=reason)
        closed = Counter((await self.connection.scalars(change.returning(t.c.dataset))).all())
        for dataset, number in sorted(closed.items()):
            of_dataset = and_(DATASET_COUNT.c.workspace == workspace, DATASET_COUNT.c.dataset == dataset)
            fewer = update(DATASET_COUNT).where(of_dataset).values(quarantined=DATASET_COUNT.c.quarantined - number)
            await self.connection.execute(fewer)
        now = select(func.count()).where(these, t.c.state == QuarantineState.DISCARDED)
        return (await self.connection.execute(now)).scalar_one(), ids[-1] if more else ""


def _import_too(statements: Statements, job: tuple[str, str], verdicts: Sequence[Verdict]) -> None:
    """Count records to the import that brought them, so that its revert takes them back."""
    accepted = sorted(each.offset for each in verdicts if each.outcome is Outcome.ACCEPTED)
    numbers = (len(accepted), len(verdicts) - len(accepted), len(verdicts))
    if not statements.execute(_COUNT_IMPORTED, (*numbers, *job, int(State.REVERTING), int(State.REVERTED))):
        raise QuarantineChangedError(
            "Their import is being reverted, which takes them out of quarantine. Replay the others.",
            metadata={"import_id": job[1]},
        )
    for _, run in groupby(enumerate(accepted), lambda each: each[1] - each[0]):  # what follows each other, as one
        together = [offset for _, offset in run]
        statements.execute(_KEEP_IMPORTED, (*job, together[0], len(together)))


async def _ids(
    connection: AsyncConnection,
    workspace: str,
    wanted: QuarantineFilter | Sequence[str],
    *,
    after: str,
    limit: int,
) -> list[str]:
    """Return the ids after one that ids or a filter name, ascending."""
    t = QUARANTINE
    if isinstance(wanted, QuarantineFilter):
        some = select(t.c.quarantine_id).where(*_meant(workspace, wanted), t.c.quarantine_id > after)
        return list((await connection.scalars(some.order_by(t.c.quarantine_id).limit(limit))).all())
    ids = [each for each in sorted(wanted) if each > after][:limit]
    known = select(t.c.quarantine_id).where(t.c.workspace == workspace, t.c.quarantine_id.in_(ids))
    missing = set(ids) - set((await connection.scalars(known)).all())
    if missing:
        raise _not_found(min(missing))
    return ids


def _meant(workspace: str, wanted: QuarantineFilter) -> list[ColumnElement[bool]]:
    t = QUARANTINE
    named = ("dataset", "reason", "path", "contract_version", "source_id", "state")
    meant = [t.c.workspace == workspace]
    meant += [t.c[name] == value for name in named if (value := getattr(wanted, name))]
    if wanted.any_reason:
        meant.append(t.c.reasons.contains(f" {wanted.any_reason} ", autoescape=True))
    if wanted.import_id:
        i = IMPORT_QUARANTINED
        brought = select(i.c.quarantine_id).where(i.c.workspace == workspace, i.c.import_id == wanted.import_id)
        meant.append(t.c.quarantine_id.in_(brought))
    return meant


def _with_bytes(workspace: str, ids: Sequence[str]) -> Select[Any]:
    wanted = select(*_SHOWN, *(QUARANTINE.c[name] for name in _RAW))
    wanted = wanted.where(QUARANTINE.c.workspace == workspace, QUARANTINE.c.quarantine_id.in_(ids))
    return wanted.order_by(QUARANTINE.c.quarantine_id)


def _holding(rows: Sequence[Any], texts: WholeTexts) -> list[str]:
    unpack = zstandard.ZstdDecompressor().decompress
    return [
        row.quarantine_id
        for row in rows
        if texts.within(row.record_id.encode())
        or any(texts.within(unpack(packed)) for packed in (getattr(row, name) for name in _RAW) if packed)
    ]


def _quarantined(row: Row[Any]) -> Quarantined:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public accessor, its underscore avoids column names)
    unpack = zstandard.ZstdDecompressor().decompress
    packed = {name: values.pop(f"{name}_zstd", None) for name in ("raw", "record", "repaired")}
    return Quarantined(
        **values
        | {
            "findings": tuple(Finding(*each) for each in orjson.loads(row.findings)),
            "state": QuarantineState(row.state),
            "import_id": row.import_id or "",
            **{name: unpack(each) if each else b"" for name, each in packed.items()},
        }
    )


def _not_found(quarantine_id: str) -> QuarantinedRecordNotFoundError:
    return QuarantinedRecordNotFoundError(
        f"No quarantined record {quarantine_id!r} in this workspace. List them for their ids.",
        metadata={"quarantine_id": quarantine_id},
    )


def _changed(quarantine_id: str) -> QuarantineChangedError:
    return QuarantineChangedError(
        "Somebody else has repaired, replayed or erased some of these records meanwhile. Send it again.",
        metadata={"quarantine_id": quarantine_id},
    )
