"""The ledger of receipts in SQL; triggers refuse any change of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from counterfoil_chassis.clock import to_micros
from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import ReceiptEntry
from counterfoil_governance.errors import ReceiptNotFoundError
from counterfoil_governance.sql.tables import RECEIPTS


class SqlReceipts:
    """The ledger of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, workspace: str, receipt_id: str) -> ReceiptEntry:
        """Return one receipt; raise ReceiptNotFoundError when absent or in another workspace."""
        query = select(RECEIPTS).where(RECEIPTS.c.workspace == workspace, RECEIPTS.c.receipt_id == receipt_id)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise ReceiptNotFoundError(
                f"The ledger has no receipt {receipt_id!r} of this workspace.", metadata={"receipt_id": receipt_id}
            )
        return _entry(row)

    async def list(self, workspace: str, *, producer: str, before: str, limit: int) -> Sequence[ReceiptEntry]:
        """Return at most `limit` receipts, newest first, with unique ids below `before` ("" = from the newest)."""
        query = select(RECEIPTS).where(RECEIPTS.c.workspace == workspace)
        if producer:
            query = query.where(RECEIPTS.c.producer == producer)
        if before:
            query = query.where(RECEIPTS.c.unique_id < before)
        query = query.order_by(RECEIPTS.c.unique_id.desc()).limit(limit)
        return [_entry(row) for row in await self._connection.execute(query)]

    async def bodies(self, receipt_ids: Sequence[str]) -> Mapping[tuple[str, str], bytes]:
        """Return the bytes kept under these ids in any workspace, by (workspace, receipt id)."""
        query = select(RECEIPTS).where(RECEIPTS.c.receipt_id.in_(receipt_ids))
        return {(row.workspace, row.receipt_id): row.body for row in await self._connection.execute(query)}

    async def add(self, entries: Sequence[ReceiptEntry], *, at: datetime) -> None:
        """Append receipts whose ids are new."""
        if not entries:
            return
        values = [
            {
                "workspace": entry.workspace,
                "receipt_id": entry.receipt_id,
                "unique_id": entry.unique_id,
                "producer": entry.producer,
                "body": entry.body,
                "received_at": to_micros(at),
            }
            for entry in entries
        ]
        await self._connection.execute(insert(RECEIPTS), values)


def _entry(row: Row[Any]) -> ReceiptEntry:
    return ReceiptEntry(row.workspace, row.receipt_id, row.producer, row.body)
