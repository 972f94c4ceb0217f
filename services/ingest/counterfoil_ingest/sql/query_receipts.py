"""Receipts of queries in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from counterfoil_chassis.clock import Clock, to_micros
from counterfoil_chassis.database import Database
from counterfoil_chassis.outbox import OutboxRelay, enqueue
from counterfoil_chassis.texts import WholeTexts
from sqlalchemy import insert, select, update

from counterfoil_ingest.query_errors import ReceiptNotFoundError
from counterfoil_ingest.query_receipts import Question, question_json, question_of
from counterfoil_ingest.sql.tables import QUERY_RECEIPT

RECEIPTS: Final = "receipts"
"""The outbox topic of receipts on their way to the ledger."""

_kept = QUERY_RECEIPT.c


class SqlQueryReceipts:
    """See `query_receipts.QueryReceipts`."""

    def __init__(self, database: Database, relay: OutboxRelay, clock: Clock) -> None:
        self._database = database
        self._relay = relay
        self._clock = clock

    async def add(self, workspace: str, receipt_id: str, receipt: bytes, question: Question) -> None:
        """Keep a receipt with its question, and have the ledger told, together."""
        now = self._clock.now()
        row = {
            "workspace": workspace,
            "receipt_id": receipt_id,
            "receipt": receipt,
            "question": question_json(question),
            "created_at": to_micros(now),
        }
        async with self._database.begin() as connection:
            await connection.execute(insert(QUERY_RECEIPT).values(row))
            await enqueue(connection, topic=RECEIPTS, payload=receipt, now=now)
            self._database.after_commit(connection, self._relay.wake)

    async def get(self, workspace: str, receipt_id: str) -> tuple[bytes, Question | None]:
        """Return a receipt and its question, None once an erasure has taken it; raise ReceiptNotFoundError."""
        wanted = select(_kept.receipt, _kept.question).where(
            _kept.workspace == workspace, _kept.receipt_id == receipt_id
        )
        async with self._database.read() as connection:
            row = (await connection.execute(wanted)).first()
        if row is None:
            raise ReceiptNotFoundError(f"There is no receipt {receipt_id}.", metadata={"receipt_id": receipt_id})
        return bytes(row.receipt), question_of(row.question) if row.question else None

    async def forget(self, workspace: str, texts: Sequence[str]) -> int:
        """Erase the questions that hold one of the texts; return how many there were."""
        wanted = WholeTexts(texts)
        here = (_kept.workspace == workspace, _kept.question != b"")
        async with self._database.begin() as connection:
            rows = await connection.stream(select(_kept.receipt_id, _kept.question).where(*here))
            found = [row.receipt_id async for row in rows if wanted.within(row.question)]
            for receipt_id in found:
                where = (_kept.workspace == workspace, _kept.receipt_id == receipt_id)
                await connection.execute(update(QUERY_RECEIPT).where(*where).values(question=b""))
        return len(found)
