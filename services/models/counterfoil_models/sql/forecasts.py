"""Forecasts in SQL."""

from typing import Any

import orjson
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.documents import gap_document, gap_of, inputs_document, inputs_of, output_document, output_of
from counterfoil_models.entities import Forecast
from counterfoil_models.errors import ForecastNotFoundError
from counterfoil_models.sql.inserting import insert_first
from counterfoil_models.sql.tables import FORECAST, RECEIPT


class SqlForecastStore:
    """See `store.ForecastStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, workspace: str, question_sha256: str) -> Forecast | None:
        """Return the forecast that answered this question before."""
        asked = (FORECAST.c.workspace == workspace, FORECAST.c.question_sha256 == question_sha256)
        found = (await self._connection.execute(select(FORECAST).where(*asked))).one_or_none()
        return None if found is None else _forecast(found)

    async def get(self, workspace: str, forecast_id: str) -> Forecast:
        """Return one forecast; raise ForecastNotFoundError."""
        place = (FORECAST.c.workspace == workspace, FORECAST.c.forecast_id == forecast_id)
        found = (await self._connection.execute(select(FORECAST).where(*place))).one_or_none()
        if found is None:
            raise ForecastNotFoundError(f"There is no forecast {forecast_id}.", metadata={"forecast_id": forecast_id})
        return _forecast(found)

    async def page(self, workspace: str, *, model_id: str, limit: int, before: str) -> list[Forecast]:
        """Return forecasts, newest first, with ids below `before` ("" = from the newest), of a model ("" = of all)."""
        query = select(FORECAST).where(FORECAST.c.workspace == workspace)
        if model_id:
            query = query.where(FORECAST.c.model_id == model_id)
        if before:
            query = query.where(FORECAST.c.forecast_id < before)
        rows = await self._connection.execute(query.order_by(FORECAST.c.forecast_id.desc()).limit(limit))
        return [_forecast(row) for row in rows]

    async def add(self, forecast: Forecast, *, receipt: bytes) -> bool:
        """Keep a forecast with its receipt's bytes; False = its question was answered, maybe by another process."""
        values = {
            "workspace": forecast.workspace,
            "forecast_id": forecast.forecast_id,
            "model_id": forecast.output.model_id,
            "receipt_id": forecast.receipt_id,
            "question_sha256": forecast.question_sha256,
            "output": canonical_json(output_document(forecast.output)).decode(),
            "inputs": orjson.dumps(inputs_document(forecast.inputs)).decode(),
            "gaps": orjson.dumps([gap_document(gap) for gap in forecast.gaps]).decode(),
            "created_at": to_micros(forecast.created_at),
        }
        question = (FORECAST.c.workspace, FORECAST.c.question_sha256)
        if not await insert_first(self._connection, FORECAST, values, unless=question):
            return False
        await self._connection.execute(
            insert(RECEIPT).values(
                workspace=forecast.workspace,
                receipt_id=forecast.receipt_id,
                forecast_id=forecast.forecast_id,
                payload=receipt,
            )
        )
        return True


def _forecast(row: Row[Any]) -> Forecast:
    return Forecast(
        workspace=row.workspace,
        forecast_id=row.forecast_id,
        receipt_id=row.receipt_id,
        question_sha256=row.question_sha256,
        output=output_of(orjson.loads(row.output)),
        inputs=inputs_of(orjson.loads(row.inputs)),
        gaps=tuple(gap_of(one) for one in orjson.loads(row.gaps)),
        created_at=from_micros(row.created_at),
    )
