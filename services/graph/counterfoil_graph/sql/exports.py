"""Exports and receipts in SQL."""

from __future__ import annotations

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import and_, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_graph.entities import Export
from counterfoil_graph.errors import ReceiptNotFoundError
from counterfoil_graph.sql.tables import EXPORT, RECEIPT


class SqlExportStore:
    """See `store.ExportStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, export: Export, *, receipt: bytes) -> None:
        """Keep an export with its receipt's bytes."""
        row = {
            "workspace": export.workspace,
            "export_id": export.export_id,
            "receipt_id": export.receipt_id,
            "change_id": export.change_id,
            "persons": orjson.dumps(export.person_numbers).decode(),
            "created_at": to_micros(export.created_at),
        }
        await self._connection.execute(insert(EXPORT).values(row))
        kept = {"export_id": export.export_id, "payload": receipt}
        place = {"workspace": export.workspace, "receipt_id": export.receipt_id}
        await self._connection.execute(insert(RECEIPT).values(place | kept))

    async def receipt(self, workspace: str, receipt_id: str) -> tuple[bytes, Export]:
        """Return a receipt with its export; raise ReceiptNotFoundError."""
        same = and_(EXPORT.c.workspace == RECEIPT.c.workspace, EXPORT.c.export_id == RECEIPT.c.export_id)
        wanted = select(RECEIPT.c.payload, EXPORT).join(EXPORT, same)
        here = and_(RECEIPT.c.workspace == workspace, RECEIPT.c.receipt_id == receipt_id)
        row = (await self._connection.execute(wanted.where(here))).first()
        if row is None:
            raise ReceiptNotFoundError(f"There is no receipt {receipt_id}.", metadata={"receipt_id": receipt_id})
        export = Export(
            workspace=row.workspace,
            export_id=row.export_id,
            receipt_id=row.receipt_id,
            change_id=row.change_id,
            person_numbers=tuple(orjson.loads(row.persons)),
            created_at=from_micros(row.created_at),
            erased=row.erased,
        )
        return bytes(row.payload), export

    async def has_change(self, workspace: str, change_id: str) -> bool:
        """Tell whether an export has used a change."""
        here = and_(EXPORT.c.workspace == workspace, EXPORT.c.change_id == change_id)
        return (await self._connection.execute(select(EXPORT.c.export_id).where(here).limit(1))).first() is not None
