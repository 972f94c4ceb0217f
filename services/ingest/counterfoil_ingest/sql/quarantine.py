"""Quarantined records in SQL, to be read; the log's transactions write them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, Final

import orjson
import zstandard
from counterfoil_chassis.database import Database
from counterfoil_chassis.texts import WholeTexts
from sqlalchemy import Row, func, select

from counterfoil_ingest.entities import Finding, Quarantined
from counterfoil_ingest.errors import QuarantinedRecordNotFoundError
from counterfoil_ingest.sql.tables import QUARANTINE

_PAGE: Final = 500
_WITHOUT_BYTES = [column for column in QUARANTINE.c if column.name not in ("raw_zstd", "raw_sha256", "reasons")]


class SqlQuarantine:
    """Reads quarantine, each time as it then is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, workspace: str, quarantine_id: str) -> Quarantined:
        """Return one with its bytes; raise QuarantinedRecordNotFoundError when absent or in another workspace."""
        wanted = select(*[*_WITHOUT_BYTES, QUARANTINE.c.raw_zstd]).where(
            QUARANTINE.c.workspace == workspace, QUARANTINE.c.quarantine_id == quarantine_id
        )
        async with self._database.read() as connection:
            row = (await connection.execute(wanted)).first()
        if row is None:
            raise QuarantinedRecordNotFoundError(
                f"No quarantined record {quarantine_id!r} in this workspace. List them for their ids.",
                metadata={"quarantine_id": quarantine_id},
            )
        return _quarantined(row, zstandard.ZstdDecompressor().decompress(row.raw_zstd))

    async def list(
        self, workspace: str, *, dataset: str, reason: str, before: str, limit: int
    ) -> Sequence[Quarantined]:
        """Return the newest before an id, without their bytes; empty filters take any."""
        wanted = select(*_WITHOUT_BYTES).where(QUARANTINE.c.workspace == workspace)
        if dataset:
            wanted = wanted.where(QUARANTINE.c.dataset == dataset)
        if reason:
            wanted = wanted.where(QUARANTINE.c.reasons.contains(f" {reason} ", autoescape=True))
        if before:
            wanted = wanted.where(QUARANTINE.c.quarantine_id < before)
        async with self._database.read() as connection:
            found = await connection.execute(wanted.order_by(QUARANTINE.c.quarantine_id.desc()).limit(limit))
            return [_quarantined(row, b"") for row in found]

    async def count_since(self, workspace: str, dataset: str, *, since: int) -> int:
        """Return how many records of a dataset were quarantined since a time, microseconds UTC."""
        first = uuid.UUID(int=since // 1000 << 80)  # ids begin with the milliseconds they were made at
        wanted = select(func.count()).where(
            QUARANTINE.c.workspace == workspace,
            QUARANTINE.c.dataset == dataset,
            QUARANTINE.c.quarantine_id >= str(first),
            QUARANTINE.c.received_at >= since,
        )
        async with self._database.read() as connection:
            return (await connection.execute(wanted)).scalar_one()

    async def holding(self, workspace: str, texts: WholeTexts) -> Sequence[str]:
        """Return the ids of those that hold any of some texts."""
        wanted = select(QUARANTINE.c.quarantine_id, QUARANTINE.c.record_id, QUARANTINE.c.raw_zstd)
        pages = wanted.where(QUARANTINE.c.workspace == workspace).order_by(QUARANTINE.c.quarantine_id).limit(_PAGE)
        found: list[str] = []
        after = ""
        while True:
            async with self._database.read() as connection:
                rows = list(await connection.execute(pages.where(QUARANTINE.c.quarantine_id > after)))
            found += await asyncio.to_thread(_holding, rows, texts)
            if len(rows) < _PAGE:
                return found
            after = rows[-1].quarantine_id


def _holding(rows: Sequence[Any], texts: WholeTexts) -> list[str]:
    unpack = zstandard.ZstdDecompressor().decompress
    return [
        row.quarantine_id for row in rows if texts.within(row.record_id.encode()) or texts.within(unpack(row.raw_zstd))
    ]


def _quarantined(row: Row[Any], raw: bytes) -> Quarantined:
    return Quarantined(
        quarantine_id=row.quarantine_id,
        workspace=row.workspace,
        dataset=row.dataset,
        source_id=row.source_id,
        record_id=row.record_id,
        findings=tuple(Finding(*each) for each in orjson.loads(row.findings)),
        contract_id=row.contract_id,
        contract_version=row.contract_version,
        received_at=row.received_at,
        traceparent=row.traceparent,
        raw=raw,
    )
