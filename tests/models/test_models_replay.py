"""Forecasts with their receipts, and receipts replayed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import forecasts_pb2, models_pb2
from counterfoil_chassis.canonical import output_sha256

from tests.models.shop import demand, numbered, shop_sales
from tests.postgres import direct

R = receipts_pb2.ReplayResult


async def serve(client) -> models_pb2.ModelVersion:
    """Create, train and promote."""
    await client(client.models.CreateModel, demand())
    version = await client.trained("demand")
    request = models_pb2.PromoteModelVersionRequest(model_id="demand", version=version.version)
    return await client(client.models.PromoteModelVersion, request)


async def forecast(client, **request: Any) -> forecasts_pb2.Forecast:
    return await client(
        client.forecasts.CreateForecast, forecasts_pb2.CreateForecastRequest(model_id="demand", **request)
    )


async def replay(client, receipt_id: str) -> receipts_pb2.ReplayResult:
    return await client(client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=receipt_id))


async def receipt_of(client, made) -> receipts_pb2.Receipt:
    return await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id))


def document(made: forecasts_pb2.Forecast) -> dict[str, Any]:
    """Write a forecast as its receipt hashes it, from the message alone."""
    points = [
        [{"day": p.day, "mean": p.mean, "lower": p.lower, "upper": p.upper} for p in s.points] for s in made.series
    ]
    return {
        "model_id": made.model_id,
        "model_version": made.model_version,
        "horizon_days": made.horizon_days,
        "coverage": made.coverage,
        "timezone": made.timezone,
        "series": [
            {"series": s.series, "method": s.method, "last_day": s.last_day, "points": days}
            for s, days in zip(made.series, points, strict=True)
        ],
    }


async def test_a_forecast_needs_a_champion(shop, client):
    await client(client.models.CreateModel, demand())
    request = forecasts_pb2.CreateForecastRequest(model_id="demand")
    refused = await client.refused(client.forecasts.CreateForecast, request)
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "NO_CHAMPION")


async def test_a_forecast_follows_the_season_and_comes_with_its_receipt(shop, client):
    version = await serve(client)
    made = await forecast(client)
    assert [one.series for one in made.series] == ["FLORAL", "GROCERY"]
    assert (made.timezone, made.horizon_days, made.coverage) == ("America/New_York", 14, 0.8)
    grocery = made.series[1]
    assert (grocery.last_day, grocery.points[0].day) == ("2024-04-09", "2024-04-10")
    assert all(point.lower <= point.mean <= point.upper for point in grocery.points)
    busy = {point.day for point in grocery.points if point.mean > 370}
    assert {date.fromisoformat(day).strftime("%a") for day in busy} == {"Tue", "Wed"}
    assert len(busy) == 4
    reasons = {note.reason: note.records for note in made.completeness.notes}
    assert reasons == {"UNMATCHED_LOOKUP": 210, "PARTIAL_END_DAYS": 18}
    assert not made.completeness.complete

    receipt = await receipt_of(client, made)
    assert receipt.receipt_id == made.receipt_id
    assert receipt.receipt_id.startswith("models.")
    assert (receipt.producer, receipt.purpose, receipt.principal) == ("models", "demand_planning", "ada")
    assert (receipt.workspace, receipt.output) == ("acme", f"forecasts/{made.forecast_id}")
    assert receipt.impact_tier == receipts_pb2.IMPACT_TIER_LOW
    assert [(one.role, one.rows, one.snapshot.dataset) for one in receipt.inputs] == [
        ("series", 630, "sales"),
        ("lookup", 3, "products"),
    ]
    assert [one.snapshot for one in receipt.inputs] == list(made.snapshots)
    assert {(one.dataset, one.version) for one in receipt.contracts} == {("sales", "1.0.0"), ("products", "1.0.0")}
    assert (receipt.model.version, receipt.model.artifact_sha256) == (1, version.artifact_sha256)
    assert [(check.action, check.resource, list(check.policy_ids)) for check in receipt.policy_checks] == [
        ("forecast", "model:demand", ["scope-permits-act"]),
        ("use", "dataset:sales", ["scope-permits-act"]),
        ("use", "dataset:products", ["scope-permits-act"]),
    ]
    assert (receipt.policy_bundle.version, len(receipt.policy_bundle.sha256)) == (1, 64)
    assert not receipt.changes
    assert json.loads(receipt.parameters)["series"] == ["FLORAL", "GROCERY"]
    assert len(receipt.trace_id) == 32
    assert len(receipt.runtime.lock_sha256) == 64
    assert receipt.completeness == made.completeness
    assert receipt.output_sha256 == output_sha256(document(made))


async def test_the_receipt_reaches_the_ledger_with_the_same_bytes(shop, client):
    await serve(client)
    made = await forecast(client)
    async with asyncio.timeout(60):
        delivered = receipts_pb2.Receipt.FromString(await shop.office.receipts.get())
    assert delivered == await receipt_of(client, made)


async def test_the_same_question_of_the_same_data_returns_the_same_receipt(shop, client):
    await serve(client)
    one = await forecast(client)
    reads = shop.ingest.reads
    assert await forecast(client, horizon_days=14, series=["GROCERY", "FLORAL"]) == one
    assert shop.ingest.reads == reads
    shorter = await forecast(client, horizon_days=7)
    assert shorter.receipt_id != one.receipt_id
    assert [len(series.points) for series in shorter.series] == [7, 7]
    shop.ingest.put("acme", "sales", shop_sales(71))
    later = await forecast(client)
    assert later.receipt_id != one.receipt_id
    assert later.series[0].last_day == "2024-04-10"


async def test_questions_asked_at_once_share_one_receipt(shop, client):
    await serve(client)
    made = await asyncio.gather(*(forecast(client) for _ in range(4)))
    assert len({one.receipt_id for one in made}) == 1


async def test_bad_questions_are_refused(shop, client):
    await serve(client)
    for request, reason in (
        (forecasts_pb2.CreateForecastRequest(model_id="demand", series=["TOYS"]), "SERIES_UNKNOWN"),
        (forecasts_pb2.CreateForecastRequest(model_id="demand", series=["unknown"]), "SERIES_UNKNOWN"),
        (forecasts_pb2.CreateForecastRequest(model_id="demand", horizon_days=15), "HORIZON_TOO_LONG"),
        (forecasts_pb2.CreateForecastRequest(model_id="demand", horizon_days=400), "BAD_FIELD"),
    ):
        refused = await client.refused(client.forecasts.CreateForecast, request)
        assert (refused.code.name, refused.reason) == ("INVALID_ARGUMENT", reason)


async def test_forecasts_are_listed_newest_first_without_points(shop, client):
    await serve(client)
    made = [await forecast(client, horizon_days=days) for days in (3, 4, 5)]
    request = forecasts_pb2.ListForecastsRequest(page_size=2, model_id="demand")
    page = await client(client.forecasts.ListForecasts, request)
    assert [one.forecast_id for one in page.forecasts] == [made[2].forecast_id, made[1].forecast_id]
    assert not page.forecasts[0].series[0].points
    request.page_token = page.next_page_token
    assert len((await client(client.forecasts.ListForecasts, request)).forecasts) == 1
    get = forecasts_pb2.GetForecastRequest(forecast_id=made[0].forecast_id)
    assert await client(client.forecasts.GetForecast, get) == made[0]


async def test_a_replay_matches_also_after_more_records_arrived_and_the_service_restarted(shop):
    async with shop.serving() as running, shop.client(running) as client:
        await serve(client)
        made = await forecast(client)
        assert (await replay(client, made.receipt_id)).outcome == R.MATCH
    more = pa.concat_tables([shop_sales(), shop_sales(30, seed=99)])
    shop.ingest.put("acme", "sales", more)
    shop.office.timezone = "Asia/Tokyo"
    async with shop.serving() as running, shop.client(running, scopes=["governance.read"]) as client:
        result = await replay(client, made.receipt_id)
        assert (result.outcome, result.field) == (R.MATCH, "")
        assert result.expected_sha256 == result.actual_sha256 == output_sha256(document(made))


async def test_an_artifact_altered_in_the_database_never_matches_nor_forecasts(shop, client):
    version = await serve(client)
    made = await forecast(client)
    with direct(shop.settings.database_url) as database:
        [(kept,)] = database.execute("SELECT bytes FROM artifact")
        altered = kept.replace(b'"interval_scale":', b'"interval_scale":1')
        database.execute(f"UPDATE artifact SET bytes = X'{altered.hex()}'")
    result = await replay(client, made.receipt_id)
    assert (result.outcome, result.field) == (R.MISMATCH, "artifact_sha256")
    assert result.expected_sha256 == version.artifact_sha256 != result.actual_sha256
    request = forecasts_pb2.CreateForecastRequest(model_id="demand", horizon_days=5)
    refused = await client.refused(client.forecasts.CreateForecast, request)
    assert (refused.code.name, refused.reason) == ("DATA_LOSS", "ARTIFACT_CORRUPT")
    assert version.artifact_sha256 in refused.detail
    with direct(shop.settings.database_url) as database:
        database.execute("DELETE FROM artifact")
    assert (await replay(client, made.receipt_id)).field == "artifact_sha256"


async def test_a_stored_output_that_was_altered_is_found(shop, client):
    await serve(client)
    made = await forecast(client)
    with closing(sqlite3.connect(shop.data_dir / "models.db")) as database, database:
        (output,) = database.execute("SELECT output FROM forecast").fetchone()
        altered = json.loads(output)
        altered["series"][0]["points"][0]["mean"] += 0.01
        database.execute("UPDATE forecast SET output = ?", (json.dumps(altered),))
    database.close()
    result = await replay(client, made.receipt_id)
    assert (result.outcome, result.field) == (R.MISMATCH, "output")
    assert result.actual_sha256 != result.expected_sha256


async def test_records_altered_under_a_snapshot_are_named_by_the_first_number_that_differs(shop, client):
    await serve(client)
    made = await forecast(client)
    table = shop_sales()
    amount = pc.if_else(pc.equal(table["product_id"], 1), pc.add(table["amount"], 0.01), table["amount"])
    table = table.set_column(1, "amount", amount)
    shop.ingest.datasets["acme", "sales"] = numbered(table)
    result = await replay(client, made.receipt_id)
    assert (result.outcome, result.field) == (R.MISMATCH, "series[GROCERY].points[0].mean")
    shop.ingest.datasets["acme", "sales"] = numbered(shop_sales().slice(0, 629))
    assert (await replay(client, made.receipt_id)).outcome == R.MISMATCH


@pytest.mark.parametrize(
    ("change", "outcome"),
    [({"erasure_revision": 1}, R.INPUT_ERASED), ({"log_epoch": "epoch-2"}, R.EXPIRED)],
)
async def test_inputs_that_are_gone_are_told(shop, client, change, outcome):
    await serve(client)
    made = await forecast(client)
    vars(shop.ingest).update(change)
    result = await replay(client, made.receipt_id)
    assert result.outcome == outcome
    assert result.detail


async def test_other_code_with_another_output_is_told_apart_from_a_mismatch(shop):
    shop.settings = shop.settings.model_copy(update={"image_digest": "sha256:old"})
    async with shop.serving() as running, shop.client(running) as client:
        await serve(client)
        made = await forecast(client)
        assert (await receipt_of(client, made)).runtime.image_digest == "sha256:old"
    shop.settings = shop.settings.model_copy(update={"image_digest": "sha256:new"})
    async with shop.serving() as running, shop.client(running) as client:
        assert (await replay(client, made.receipt_id)).outcome == R.MATCH
        table = shop_sales()
        shop.ingest.datasets["acme", "sales"] = numbered(table.set_column(1, "amount", pc.add(table["amount"], 1.0)))
        assert (await replay(client, made.receipt_id)).outcome == R.RUNTIME_CHANGED


async def test_receipts_of_other_workspaces_and_unknown_ones_are_not_found(shop):
    async with (
        shop.serving() as running,
        shop.client(running) as client,
        shop.client(running, workspace="rival") as rival,
    ):
        await serve(client)
        made = await forecast(client)
        for receipt_id in (made.receipt_id, "models.0197"):
            request = receipts_pb2.ReplayRequest(receipt_id=receipt_id)
            assert (await rival.refused(rival.receipts.Replay, request)).reason == "RECEIPT_NOT_FOUND"
        get = forecasts_pb2.GetForecastRequest(forecast_id=made.forecast_id)
        assert (await rival.refused(rival.forecasts.GetForecast, get)).reason == "FORECAST_NOT_FOUND"
        assert not (await rival(rival.forecasts.ListForecasts, forecasts_pb2.ListForecastsRequest())).forecasts
