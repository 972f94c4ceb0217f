"""Data that ingest holds: nothing new is made from it, what was made before stays, and it goes on once released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import forecasts_pb2, models_pb2
from counterfoil_chassis.database import StoreUnavailableError
from counterfoil_chassis.status import RemoteFailure, failure_of
from counterfoil_models.entities import Hold
from counterfoil_models.holds import Holds
from counterfoil_models.store import Stores

from tests.models.shop import Client, World, demand
from tests.models.test_models_attribution_service import create as attribute
from tests.models.test_models_attribution_service import market
from tests.models.test_models_lifts import measured, put_experiment
from tests.models.test_models_replay import forecast, replay, serve
from tests.postgres import Server

__all__ = ["market"]
R = receipts_pb2.ReplayResult


async def held(make: Callable[[], Awaitable[Any]]) -> RemoteFailure:
    """Make until it is refused because data is held: nothing else tells that the watch has brought the hold."""
    async with asyncio.timeout(60):
        while True:
            try:
                await make()
            except grpc.aio.AioRpcError as error:
                if failure_of(error).reason != "DATA_HELD":
                    raise
                return failure_of(error)
            await asyncio.sleep(0.05)


async def released(make: Callable[[], Awaitable[Any]]) -> Any:
    """Make until it is no longer refused."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await make()
            except grpc.aio.AioRpcError as error:
                if failure_of(error).reason != "DATA_HELD":
                    raise
            await asyncio.sleep(0.05)


async def test_a_forecast_on_held_data_is_refused_and_names_the_incident(shop: World, client: Client) -> None:
    await serve(client)
    await forecast(client)
    shop.holds.hold("sales")
    failure = await held(lambda: forecast(client))
    assert failure.code.name == "FAILED_PRECONDITION"
    assert failure.metadata == {
        "dataset": "sales",
        "datasets": "sales",
        "monitor_id": "sales.latency",
        "incident_id": "incident-of-sales",
    }
    assert "incident-of-sales" in failure.detail
    assert "Mend the data" in failure.detail
    shop.holds.hold("sales", recovered=True)
    async with asyncio.timeout(60):
        while "passes again" not in (await held(lambda: forecast(client))).detail:
            await asyncio.sleep(0.05)


async def test_what_was_made_before_is_read_and_replayed_while_data_is_held(shop: World, client: Client) -> None:
    await serve(client)
    made = await forecast(client)
    shop.holds.hold("products")
    await held(lambda: forecast(client))
    request = forecasts_pb2.GetForecastRequest(forecast_id=made.forecast_id)
    assert await client(client.forecasts.GetForecast, request) == made
    assert (await replay(client, made.receipt_id)).outcome == R.MATCH


async def test_forecasts_go_on_once_the_data_is_released(shop: World, client: Client) -> None:
    await serve(client)
    shop.holds.hold("sales")
    await held(lambda: forecast(client))
    shop.holds.release("sales")
    made = await released(lambda: forecast(client, horizon_days=3))
    assert made.horizon_days == 3


async def test_no_version_is_trained_on_held_data(shop: World, client: Client) -> None:
    await client(client.models.CreateModel, demand())
    shop.holds.hold("sales")
    request = models_pb2.TrainModelVersionRequest(model_id="demand")
    await held(lambda: client(client.models.TrainModelVersion, request))


async def test_a_lift_on_held_data_is_refused(world: World, client: Client) -> None:
    put_experiment(world)
    await measured(client)
    world.holds.hold("members")
    failure = await held(lambda: measured(client))
    assert failure.metadata["incident_id"] == "incident-of-members"


async def test_an_attribution_with_held_costs_is_refused(market: World, client: Client) -> None:
    await attribute(client)
    market.holds.hold("mail_costs")
    failure = await held(lambda: attribute(client))
    assert failure.metadata["dataset"] == "mail_costs"


async def test_other_data_and_other_workspaces_are_not_held(shop: World, client: Client) -> None:
    await serve(client)
    shop.holds.hold("something_else")
    shop.holds.hold("sales", workspace="rival")
    shop.holds.hold("products")  # the last one told: then the others are known, too
    failure = await held(lambda: forecast(client))
    assert failure.metadata["datasets"] == "products"
    shop.holds.release("products")
    await released(lambda: forecast(client))


async def test_a_hold_outlives_a_restart_and_ends_when_it_ended_meanwhile(shop: World) -> None:
    async with shop.serving() as running, shop.client(running) as client:
        await serve(client)
        shop.holds.hold("sales")
        await held(lambda: forecast(client))
    away = replace(shop, settings=shop.settings.model_copy(update={"ingest_target": "127.0.0.1:9"}))
    async with away.serving() as running, away.client(running) as client:
        refused = await client.refused(
            client.forecasts.CreateForecast, forecasts_pb2.CreateForecastRequest(model_id="demand")
        )
        assert refused.reason == "DATA_HELD", "the last state holds while ingest is away"
    shop.holds.release("sales")
    async with shop.serving() as running, shop.client(running) as client:
        await released(lambda: forecast(client))


@pytest.mark.parametrize(
    ("incident", "why"),
    [("incident-7", "incident incident-7"), ("", "which somebody has put up with")],
)
async def test_receipts_say_that_data_was_used_which_breaks_its_contract(
    shop: World, client: Client, incident: str, why: str
) -> None:
    await serve(client)
    shop.holds.hold("sales", held=False, incident=incident)
    shop.holds.hold("products")  # told later: once it is known, so is the other
    await held(lambda: forecast(client))
    shop.holds.release("products")
    made = await released(lambda: forecast(client, horizon_days=3))
    receipt = await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id))
    (note,) = (each for each in receipt.completeness.notes if each.reason == "PROMISE_BROKEN")
    assert "'sales'" in note.detail
    assert why in note.detail
    assert "2 d, and it must be at most 1 d." in note.detail
    assert not receipt.completeness.complete
    assert (await replay(client, made.receipt_id)).outcome == R.MATCH


async def test_receipts_of_lifts_and_attributions_say_so_too(world: World, market: World, client: Client) -> None:
    put_experiment(world)
    world.holds.hold("visits", held=False)
    market.holds.hold("mail_costs")  # told later: once it is known, so is the other
    await held(lambda: attribute(client))
    market.holds.hold("mail_costs", held=False)
    for made in (await measured(client), await released(lambda: attribute(client, lookback_days=5))):
        receipt = await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id))
        assert "PROMISE_BROKEN" in {note.reason for note in receipt.completeness.notes}


async def test_a_gap_of_totals_concerns_the_days_it_is_about(market: World, client: Client) -> None:
    made = await attribute(client)
    outside, inside = "1999-01-01", made.spec.last_day
    reasons = {}
    for lookback, day in enumerate((outside, inside), 9):
        market.holds.hold("mail_costs", metric="reconciliation")  # once that is known, so is what is told before it
        await held(lambda: attribute(client))
        market.holds.hold("mail_costs", held=False, metric="reconciliation", days=[day])
        again = await released(partial(attribute, client, lookback_days=lookback))
        receipt = await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=again.receipt_id))
        reasons[day] = {note.reason for note in receipt.completeness.notes}
    assert "TOTALS_DIFFER" not in reasons[outside]
    assert "TOTALS_DIFFER" in reasons[inside]


@pytest.mark.both_engines
async def test_a_process_that_only_serves_knows_what_is_held(shop: World, postgres: Server) -> None:
    url = postgres.database("models")
    world = replace(shop, settings=shop.settings.model_copy(update={"database_url": url}))
    changed = {"role": "serving", "data_dir": world.data_dir / "serving"}
    second = replace(world, settings=world.settings.model_copy(update=changed))
    async with (
        world.serving() as first,
        second.serving() as other,
        world.client(first) as writer,
        world.client(other) as server,
    ):
        await serve(writer)
        await forecast(server)
        shop.holds.hold("sales")
        await held(lambda: forecast(server))
        shop.holds.release("sales")
        await released(lambda: forecast(server, horizon_days=2))
    postgres.drop(url)


class _Store:
    """Holds in memory, in a database that is away at first."""

    def __init__(self) -> None:
        self.away = True
        self.tries = 0
        self.written: list[Any] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        self.tries += 1
        if self.away:
            raise StoreUnavailableError("away")
        yield SimpleNamespace(holds=self)

    read = begin

    async def all(self) -> list[Hold]:
        return []

    async def put(self, hold: Hold) -> None:
        self.written.append(hold)

    async def delete(self, *key: str) -> None:
        self.written.append(key)


class _Source:
    """Says what is held when it is told to."""

    def watch(self, on_hold: Any, on_release: Any) -> Any:
        self.on_hold, self.on_release = on_hold, on_release
        return self

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def current(self) -> None:
        pass


async def test_while_the_database_is_away_only_the_newest_of_each_hold_waits() -> None:
    store, source = _Store(), _Source()
    store.away = False
    holds = Holds(cast("Stores", store), source)
    running = asyncio.create_task(holds.run())
    while not store.tries:
        await asyncio.sleep(0)
    store.away = True
    hold = Hold("acme", "sales", "sales.latency", "incident", "late", datetime(2026, 1, 1, tzinfo=UTC))
    for number in range(1_000):
        source.on_hold(replace(hold, detail=str(number)))
        source.on_release(("acme", "orders.latency"))
        await asyncio.sleep(0)
    assert len(holds._changes) == 2
    store.away = False
    while holds._changes:
        await asyncio.sleep(0.05)
    assert store.written == [replace(hold, detail="999"), ("acme", "orders.latency")]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
