"""Receipts in SQL: of forecasts and of every other output."""

from sqlalchemy import and_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.errors import ReceiptNotFoundError
from counterfoil_models.sql.tables import FORECAST, OUTPUT, RECEIPT
from counterfoil_models.store import KeptReceipt

_FORECASTS = select(RECEIPT.c.workspace, RECEIPT.c.receipt_id, RECEIPT.c.payload, FORECAST.c.output).join(
    FORECAST, and_(FORECAST.c.workspace == RECEIPT.c.workspace, FORECAST.c.forecast_id == RECEIPT.c.forecast_id)
)
_OUTPUTS = select(OUTPUT.c.workspace, OUTPUT.c.receipt_id, OUTPUT.c.receipt.label("payload"), OUTPUT.c.output)


class SqlReceiptStore:
    """See `store.ReceiptStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, workspace: str, receipt_id: str) -> KeptReceipt:
        """Return a receipt; raise ReceiptNotFoundError."""
        query = union_all(
            _FORECASTS.where(RECEIPT.c.workspace == workspace, RECEIPT.c.receipt_id == receipt_id),
            _OUTPUTS.where(OUTPUT.c.workspace == workspace, OUTPUT.c.receipt_id == receipt_id),
        )
        found = (await self._connection.execute(query)).one_or_none()
        if found is None:
            raise ReceiptNotFoundError(f"There is no receipt {receipt_id}.", metadata={"receipt_id": receipt_id})
        return KeptReceipt(found.payload, found.output)
