"""Models, training, champions and rollback over gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from counterfoil.models.v1 import forecasts_pb2, models_pb2

from tests.models.shop import SCOPES, demand, shop_sales
from tests.postgres import direct

pytestmark = pytest.mark.both_engines("models")

V = models_pb2.ModelVersion


async def test_a_model_is_created_once_and_read_back(shop, client):
    request = demand(season_days=7)
    request.request_id = "r1"
    created = await client(client.models.CreateModel, request)
    assert created == await client(client.models.CreateModel, request)
    assert (created.display_name, created.forecast.coverage, created.created_by) == ("demand", 0.8, "ada")
    assert created == await client(client.models.GetModel, models_pb2.GetModelRequest(model_id="demand"))
    refused = await client.refused(client.models.CreateModel, demand())
    assert (refused.code.name, refused.reason) == ("ALREADY_EXISTS", "MODEL_EXISTS")


async def test_a_spec_that_contradicts_itself_is_refused_with_its_field(client):
    request = demand()
    request.forecast.series.value_field = ""
    refused = await client.refused(client.models.CreateModel, request)
    assert refused.reason == "BAD_FIELD"
    assert [one.field for one in refused.violations] == ["forecast.series.value_field"]


async def test_training_ends_validated_with_backtests_and_what_was_left_out(shop, client):
    await client(client.models.CreateModel, demand())
    begun = await client(client.models.TrainModelVersion, models_pb2.TrainModelVersionRequest(model_id="demand"))
    assert (begun.version, begun.state) == (1, V.DRAFT)
    version = await client.ended("demand", 1)
    assert (version.state, version.error.reason) == (V.VALIDATED, "")
    assert [one.series for one in version.backtests] == ["FLORAL", "GROCERY"]
    assert all(one.mase < one.mase_seasonal_naive for one in version.backtests)
    (unknown,) = version.skipped
    assert (unknown.series, unknown.reason, unknown.records) == ("unknown", "UNKNOWN_DIMENSION", 210)
    with direct(shop.settings.database_url) as database:
        [(kept,)] = database.execute(f"SELECT bytes FROM artifact WHERE sha256 = '{version.artifact_sha256}'")
    assert hashlib.sha256(kept).hexdigest() == version.artifact_sha256
    assert len(kept) == version.artifact_bytes
    assert [one.dataset for one in version.snapshots] == ["sales", "products"]
    assert len(version.trace_id) == 32


async def test_the_same_data_gives_the_same_artifact(shop, client):
    await client(client.models.CreateModel, demand())
    one, other = await client.trained("demand"), await client.trained("demand")
    assert one.artifact_sha256 == other.artifact_sha256 != ""


async def test_one_training_of_a_model_runs_at_a_time_while_reads_go_on(shop, client):
    shop.ingest.gate.clear()
    await client(client.models.CreateModel, demand())
    train = models_pb2.TrainModelVersionRequest(model_id="demand")
    await client(client.models.TrainModelVersion, train)
    refused = await client.refused(client.models.TrainModelVersion, train)
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "TRAINING_RUNNING")
    shop.ingest.gate.set()
    assert (await client.ended("demand", 1)).state == V.VALIDATED


async def test_a_repeated_request_trains_once(shop, client):
    await client(client.models.CreateModel, demand())
    request = models_pb2.TrainModelVersionRequest(model_id="demand", request_id="r1")
    assert (await client(client.models.TrainModelVersion, request)).version == 1
    assert (await client(client.models.TrainModelVersion, request)).version == 1
    await client.ended("demand", 1)
    listed = await client(client.models.ListModelVersions, models_pb2.ListModelVersionsRequest(model_id="demand"))
    assert [one.version for one in listed.versions] == [1]


async def test_training_without_the_right_to_read_records_is_refused(shop):
    async with shop.serving() as running, shop.client(running, scopes=["models.read", "models.write"]) as client:
        await client(client.models.CreateModel, demand())
        train = models_pb2.TrainModelVersionRequest(model_id="demand")
        refused = await client.refused(client.models.TrainModelVersion, train)
        assert (refused.code.name, refused.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
        assert refused.metadata == {"policy_id": "scope:ingest.read"}


async def test_data_that_cannot_be_trained_on_is_rejected_or_an_error(shop, client):
    await client(client.models.CreateModel, demand("strict", season_days=7))
    shop.ingest.put("acme", "sales", shop_sales(20))
    few = await client.trained("strict")
    assert (few.state, few.artifact_sha256) == (V.REJECTED, "")
    assert {one.reason for one in few.skipped} == {"TOO_FEW_ACTIVE_DAYS", "UNKNOWN_DIMENSION"}
    shop.ingest.put("acme", "sales", pa.table({"sold_at": ["x"], "amount": [1.0], "product_id": [1]}))
    broken = await client.trained("strict")
    assert (broken.state, broken.error.reason) == (V.DRAFT, "SERIES_FIELD_INVALID")


async def test_a_dataset_that_does_not_exist_is_told_at_once(client):
    await client(client.models.CreateModel, demand())
    train = models_pb2.TrainModelVersionRequest(model_id="demand")
    assert (await client.refused(client.models.TrainModelVersion, train)).reason == "DATASET_NOT_FOUND"


async def test_a_training_that_died_with_its_process_is_failed_at_the_next_start(shop):
    shop.ingest.gate.clear()
    async with shop.serving() as running, shop.client(running) as client:
        await client(client.models.CreateModel, demand())
        await client(client.models.TrainModelVersion, models_pb2.TrainModelVersionRequest(model_id="demand"))
    shop.ingest.gate.set()
    async with shop.serving() as running, shop.client(running) as client:
        interrupted = await client.ended("demand", 1)
        assert (interrupted.state, interrupted.error.reason) == (V.DRAFT, "TRAINING_INTERRUPTED")
        assert (await client.trained("demand")).version == 2
        listed = await client(client.models.ListModelEvents, models_pb2.ListModelEventsRequest(model_id="demand"))
        assert "TRAINING_INTERRUPTED" in listed.events[1].reason
        assert listed.events[1].actor == "service:models"


async def promote(client, version: int):
    request = models_pb2.PromoteModelVersionRequest(model_id="demand", version=version, reason="Better.")
    return await client(client.models.PromoteModelVersion, request)


async def champion(client) -> int:
    return (await client(client.models.GetModel, models_pb2.GetModelRequest(model_id="demand"))).champion_version


async def test_promotion_retires_the_champion_and_rollback_brings_it_back(shop, client):
    await client(client.models.CreateModel, demand())
    for number in (1, 2):
        assert (await client.trained("demand")).version == number
    back = models_pb2.RollbackModelRequest(model_id="demand", reason="Drifted.")
    assert (await client.refused(client.models.RollbackModel, back)).reason == "NO_EARLIER_CHAMPION"
    assert (await promote(client, 1)).state == V.CHAMPION
    assert (await client.refused(client.models.RollbackModel, back)).reason == "NO_EARLIER_CHAMPION"
    assert (await promote(client, 2)).state == V.CHAMPION
    assert await champion(client) == 2
    assert (await client(client.models.RollbackModel, back)).version == 1
    assert await champion(client) == 1
    get = models_pb2.GetModelVersionRequest(model_id="demand", version=2)
    assert (await client(client.models.GetModelVersion, get)).state == V.ROLLED_BACK
    assert (await client.refused(client.models.RollbackModel, back)).reason == "NO_EARLIER_CHAMPION"
    assert (await promote(client, 2)).state == V.CHAMPION

    listed = await client(client.models.ListModelEvents, models_pb2.ListModelEventsRequest(model_id="demand"))
    steps = [(one.version, one.from_state, one.to_state, one.reason) for one in listed.events if one.actor == "ada"]
    assert (2, V.CHAMPION, V.ROLLED_BACK, "Drifted.") in steps
    assert (1, V.RETIRED, V.CHAMPION, "Drifted.") in steps
    assert [one.sequence for one in listed.events] == list(range(1, len(listed.events) + 1))


async def test_a_version_that_is_not_validated_cannot_serve(shop, client):
    await client(client.models.CreateModel, demand())
    shop.ingest.put("acme", "sales", shop_sales(20))
    await client.trained("demand")
    request = models_pb2.PromoteModelVersionRequest(model_id="demand", version=1)
    refused = await client.refused(client.models.PromoteModelVersion, request)
    assert (refused.reason, refused.metadata["state"]) == ("STATE_TRANSITION_INVALID", "REJECTED")


@pytest.mark.sqlite
async def test_events_can_be_neither_changed_nor_deleted(shop, client):
    await client(client.models.CreateModel, demand())
    await client.trained("demand")
    with closing(sqlite3.connect(shop.data_dir / "models.db")) as database, database:
        for statement in ("DELETE FROM model_event", "UPDATE model_event SET actor = 'mallory'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()


async def test_lists_are_paged_and_hide_other_workspaces(shop):
    async with (
        shop.serving() as running,
        shop.client(running) as client,
        shop.client(running, workspace="rival", scopes=SCOPES) as rival,
    ):
        for number in range(5):
            await client(client.models.CreateModel, demand(f"m{number}"))
        found, token = [], ""
        while True:
            request = models_pb2.ListModelsRequest(page_size=2, page_token=token)
            page = await client(client.models.ListModels, request)
            found += [one.model_id for one in page.models]
            token = page.next_page_token
            if not token:
                break
        assert found == [f"m{number}" for number in range(5)]
        assert not (await rival(rival.models.ListModels, models_pb2.ListModelsRequest())).models
        hidden = await rival.refused(rival.models.GetModel, models_pb2.GetModelRequest(model_id="m1"))
        assert (hidden.code.name, hidden.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
        create = forecasts_pb2.CreateForecastRequest(model_id="m1")
        assert (await rival.refused(rival.forecasts.CreateForecast, create)).reason == "MODEL_NOT_FOUND"


async def test_versions_and_events_are_paged(shop, client):
    await client(client.models.CreateModel, demand())
    shop.ingest.put("acme", "sales", shop_sales(20))
    for _ in range(3):
        await client.trained("demand")
    request = models_pb2.ListModelVersionsRequest(model_id="demand", page_size=2)
    first = await client(client.models.ListModelVersions, request)
    assert [one.version for one in first.versions] == [3, 2]
    request.page_token = first.next_page_token
    assert [one.version for one in (await client(client.models.ListModelVersions, request)).versions] == [1]
    events = models_pb2.ListModelEventsRequest(model_id="demand", page_size=4)
    page = await client(client.models.ListModelEvents, events)
    events.page_token = page.next_page_token
    rest = await client(client.models.ListModelEvents, events)
    assert [one.sequence for one in [*page.events, *rest.events]] == [1, 2, 3, 4, 5, 6]
    assert datetime.fromtimestamp(rest.events[-1].created_at.seconds, UTC).year >= 2024


async def test_the_service_answers_while_it_trains(shop, client):
    await client(client.models.CreateModel, demand())
    await client.trained("demand")  # what training needs is imported now, which holds up everybody, once
    await client(client.models.TrainModelVersion, models_pb2.TrainModelVersionRequest(model_id="demand"))
    loop, worst = asyncio.get_running_loop(), 0.0
    while True:
        before = loop.time()
        version = await client(
            client.models.GetModelVersion, models_pb2.GetModelVersionRequest(model_id="demand", version=2)
        )
        worst = max(worst, loop.time() - before)
        if version.HasField("finished_at"):
            break
        await asyncio.sleep(0.005)
    assert worst < 2.0  # the figures are measured apart
