"""Processes that serve beside the one that trains, on one PostgreSQL database: what one makes all know at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import grpc
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import forecasts_pb2, lifts_pb2, models_pb2
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.lease import SharedLease
from counterfoil_chassis.status import failure_of
from counterfoil_gateway.serving import FAMILIES
from counterfoil_models.entities import Output, OutputKind
from counterfoil_models.errors import ArtifactAbsentError
from counterfoil_models.sql.stores import SqlStores
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.models.shop import Client, World, demand
from tests.models.test_models_lifts import put_experiment, spec
from tests.postgres import Server, direct

R = receipts_pb2.ReplayResult


@dataclass
class Fleet:
    """The process that trains, and two that serve, as one principal sees them."""

    world: World
    writer: Client
    one: Client
    other: Client
    addresses: tuple[str, str]


@pytest.fixture
async def shared(shop: World, postgres: Server) -> AsyncIterator[World]:
    """The shop, with the models database on PostgreSQL."""
    url = postgres.database("models")
    yield replace(shop, settings=shop.settings.model_copy(update={"database_url": url}))
    postgres.drop(url)


def serving(world: World, **changes: object) -> World:
    folder = world.data_dir / "serving"  # none of its own: another machine's disk
    changed = {"role": "serving", "data_dir": folder, **changes}
    return replace(world, settings=world.settings.model_copy(update=changed))


@pytest.fixture
async def fleet(shared: World) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(each.serving()) for each in (shared, *[serving(shared)] * 2)]
        clients = [await stack.enter_async_context(shared.client(each)) for each in running]
        yield Fleet(shared, *clients, addresses=(running[1].address, running[2].address))


async def serve(fleet: Fleet) -> models_pb2.ModelVersion:
    await fleet.writer(fleet.writer.models.CreateModel, demand())
    version = await fleet.writer.trained("demand")
    return await promote(fleet, version.version)


async def promote(fleet: Fleet, version: int) -> models_pb2.ModelVersion:
    request = models_pb2.PromoteModelVersionRequest(model_id="demand", version=version)
    return await fleet.writer(fleet.writer.models.PromoteModelVersion, request)


async def forecast(client: Client, **asked: int) -> forecasts_pb2.Forecast:
    request = forecasts_pb2.CreateForecastRequest(model_id="demand", **asked)
    return await client(client.forecasts.CreateForecast, request)


async def test_on_sqlite_it_does_not_start_and_says_what_it_needs(shop):
    with pytest.raises(StartError, match="share a database on PostgreSQL alone: set COUNTERFOIL_DATABASE_URL"):
        async with serving(shop).serving():
            pass


async def test_it_does_not_migrate(shared, postgres):
    url = postgres.empty()
    postgres.execute(f"CREATE DATABASE {url.rpartition('/')[2]} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    with pytest.raises(StartError, match="counterfoil migrate"):
        async with serving(shared, database_url=url).serving():
            pass
    postgres.drop(url)


async def test_it_serves_what_the_gateway_sends_there_and_nothing_else(fleet):
    async with grpc.aio.insecure_channel(fleet.addresses[0]) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = [each async for each in stub.ServerReflectionInfo(iter([request]))]
        names = {one.name for one in answer.list_services_response.service}
    assert {name.rpartition(".")[2] for name in names if name.startswith("counterfoil.")} == {*FAMILIES, "CallService"}
    refused = await fleet.one.refused(fleet.one.models.ListModels, models_pb2.ListModelsRequest())
    assert refused.code.name == "UNIMPLEMENTED"


async def test_what_one_process_made_the_others_read_replay_list_and_give_again(fleet):
    await serve(fleet)
    made = await forecast(fleet.one)
    assert made == await forecast(fleet.other) == await forecast(fleet.writer)
    get = forecasts_pb2.GetForecastRequest(forecast_id=made.forecast_id)
    assert await fleet.other(fleet.other.forecasts.GetForecast, get) == made
    for client in (fleet.other, fleet.writer, fleet.one):
        result = await client(client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=made.receipt_id))
        assert result.outcome == R.MATCH, result.detail
    newer = await forecast(fleet.other, horizon_days=3)
    page = forecasts_pb2.ListForecastsRequest(page_size=1)
    first = await fleet.one(fleet.one.forecasts.ListForecasts, page)
    page.page_token = first.next_page_token
    second = await fleet.other(fleet.other.forecasts.ListForecasts, page)
    assert [first.forecasts[0].forecast_id, second.forecasts[0].forecast_id] == [newer.forecast_id, made.forecast_id]


async def test_the_same_question_at_every_process_at_once_has_one_answer_and_one_receipt(fleet):
    await serve(fleet)
    put_experiment(fleet.world)
    experiment = lifts_pb2.CreateLiftRequest(spec=spec())
    clients = (fleet.one, fleet.other, fleet.writer)
    fleet.world.ingest.gate.clear()  # nobody has read the data before all have begun
    asked = [asyncio.create_task(forecast(client)) for client in clients]
    asked += [asyncio.create_task(client(client.lifts.CreateLift, experiment)) for client in clients]
    async with asyncio.timeout(60):
        while (fleet.world.ingest.waiting["sales"], fleet.world.ingest.waiting["visits"]) != (3, 3):
            await asyncio.sleep(0.01)
    fleet.world.ingest.gate.set()
    answers = await asyncio.gather(*asked)
    assert answers[0] == answers[1] == answers[2]
    assert answers[3] == answers[4] == answers[5]
    with direct(fleet.world.settings.database_url) as database:
        assert [int(row[0]) for row in database.execute("SELECT count(*) FROM forecast")] == [1]
        assert [int(row[0]) for row in database.execute("SELECT count(*) FROM receipt")] == [1]
        assert [int(row[0]) for row in database.execute("SELECT count(*) FROM output")] == [1]
    async with asyncio.timeout(60):  # the one that trains delivers what the others left for it
        kept = {await fleet.world.office.receipts.get() for _ in range(2)}
    ids = {receipts_pb2.Receipt.FromString(each).receipt_id for each in kept}
    assert ids == {answers[0].receipt_id, answers[3].receipt_id}
    assert fleet.world.office.receipts.empty()


async def test_a_promotion_and_a_rollback_count_everywhere_from_their_answer_on(fleet):
    async def versions() -> list[int]:
        return [(await forecast(client, horizon_days=5)).model_version for client in (fleet.one, fleet.other)]

    await serve(fleet)
    second = (await fleet.writer.trained("demand")).version
    assert await versions() == [1, 1]
    for _ in range(2):
        await promote(fleet, second)
        assert await versions() == [second, second]
        request = models_pb2.RollbackModelRequest(model_id="demand", reason="It is worse.")
        await fleet.writer(fleet.writer.models.RollbackModel, request)
        assert await versions() == [1, 1]


async def test_an_artifact_that_only_the_trainers_folder_has_is_no_mismatch(fleet):
    """The release before kept it in a file; the process that trains has not brought it in."""
    version = await serve(fleet)
    made = await forecast(fleet.one)
    with direct(fleet.world.settings.database_url) as database:
        database.execute("DELETE FROM artifact")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await fleet.one(fleet.one.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=made.receipt_id))
    told = failure_of(failure.value)
    assert (told.reason, told.metadata["artifact_sha256"]) == (ArtifactAbsentError.reason, version.artifact_sha256)


async def test_who_is_second_with_an_answer_waits_for_the_first_and_gives_the_firsts(shared):
    databases = [Database(shared.settings.database_url, lease=SharedLease("models", seconds=10)) for _ in range(2)]
    first, second = (SqlStores(database, files=None) for database in databases)

    def output(name: str) -> Output:
        return Output("acme", OutputKind.LIFT, name, f"models.{name}", "question", {}, {}, datetime.now(UTC))

    async def add_second() -> tuple[bool, Output | None]:
        async with second.begin() as transaction:
            added = await transaction.outputs.add(output("2"), receipt=b"2")
            return added, await transaction.outputs.find("acme", OutputKind.LIFT, "question")

    try:
        async with first.begin() as transaction:
            assert await transaction.outputs.add(output("1"), receipt=b"1")
            adding = asyncio.create_task(add_second())
            with direct(shared.settings.database_url) as database:
                async with asyncio.timeout(60):
                    while not database.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"):
                        await asyncio.sleep(0.01)
        added, found = await adding
        assert not added
        assert found is not None
        assert found.output_id == "1"
    finally:
        for database in databases:
            await database.close()
