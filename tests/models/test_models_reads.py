"""What models read is known to contracts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from counterfoil.contracts.v1 import consumers_pb2
from counterfoil.models.v1 import models_pb2
from counterfoil_models.entities import Aggregation, ForecastSpec, SeriesFilter, SeriesLookup, SeriesSpec
from counterfoil_models.models import fields_read

from tests.contracts.calls import Contracts, contracts_in
from tests.models.shop import World, demand


def test_a_model_reads_what_its_series_is_cut_by() -> None:
    series = SeriesSpec(
        dataset="sales",
        time_field="sold_at",
        aggregation=Aggregation.SUM,
        value_field="amount",
        dimension="shop",
        filters=(SeriesFilter("kind", "sale"), SeriesFilter("shop", "north")),
    )
    assert fields_read(ForecastSpec(series)) == {"sales": ("sold_at", "amount", "kind", "shop")}
    counted = replace(series, aggregation=Aggregation.COUNT, value_field="", dimension="", filters=())
    assert fields_read(ForecastSpec(counted)) == {"sales": ("sold_at",)}
    joined = replace(series, lookup=SeriesLookup("shops", "shop_id"), filters=())
    assert fields_read(ForecastSpec(joined)) == {
        "sales": ("sold_at", "amount", "shop_id"),
        "shops": ("shop_id", "shop"),
    }
    itself = replace(joined, lookup=SeriesLookup("sales", "shop_id"))
    assert fields_read(ForecastSpec(itself)) == {"sales": ("sold_at", "amount", "shop_id", "shop")}


async def known(contracts: Contracts, workspace: str) -> dict[tuple[str, str], list[str]]:
    listed = await contracts.consumers.ListConsumers(
        consumers_pb2.ListConsumersRequest(), **contracts.as_principal(workspace)
    )
    return {(each.name, each.dataset): list(each.fields) for each in listed.consumers}


async def test_contracts_knows_what_the_models_of_each_workspace_read(world: World) -> None:
    wanted = {
        ("models/demand", "sales"): ["$.sold_at", "$.amount", "$.product_id"],
        ("models/demand", "products"): ["$.product_id", "$.department"],
    }
    async with world.serving() as running, world.client(running) as client:
        await client(client.models.CreateModel, demand())  # nobody is there to be told
    async with contracts_in(world.data_dir, governance_target=world.settings.governance_target) as contracts:
        room = world.settings.model_copy(update={"contracts_target": contracts.address})
        told = replace(world, settings=room)
        async with told.serving() as running, told.client(running) as client, asyncio.timeout(60):
            while await known(contracts, "acme") != wanted:
                await asyncio.sleep(0.02)  # it is said in the background
            another = models_pb2.CreateModelRequest()
            another.CopyFrom(demand("other"))
            await client(client.models.CreateModel, another)
            while len(await known(contracts, "acme")) != 4:
                await asyncio.sleep(0.02)
            assert await known(contracts, "rival") == {}
