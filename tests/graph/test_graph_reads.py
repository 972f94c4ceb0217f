"""What mappings read is known to contracts, which refuses to take it away and names the mapping."""

from __future__ import annotations

from counterfoil.contracts.v1 import consumers_pb2, contracts_pb2
from counterfoil.graph.v1 import mappings_pb2
from counterfoil_graph.entities import MappingVersion
from counterfoil_graph.mapping import shipped_document
from counterfoil_graph.reads import all_reads

from tests.graph.world import BEFORE, SHOP, Client, Peers, until

SALES = """
apiVersion: v3.1.0
kind: DataContract
id: sales
name: sales
version: {version}
status: active
schema:
  - name: sales
    properties:
      - {{name: sold_at, logicalType: timestamp, logicalTypeOptions: {{defaultTimezone: UTC}}}}
      - {{name: household, logicalType: string}}
      - {{name: basket, logicalType: string}}
      - {{name: amount, logicalType: number}}
{more}
"""
NOTE = "      - {name: note, logicalType: string}"


async def known(client: Client, dataset: str) -> dict[str, list[str]]:
    """Return the fields of each mapping that contracts knows to read a dataset."""
    request = consumers_pb2.ListConsumersRequest(dataset=dataset)
    listed = await client(client.consumers.ListConsumers, request)
    assert {each.service for each in listed.consumers} <= {"graph"}
    return {each.name: list(each.fields) for each in listed.consumers}


async def submit(client: Client, text: str) -> contracts_pb2.ContractVersion:
    request = contracts_pb2.SubmitContractRequest(document=text, activate=True)
    return await client(client.contracts.SubmitContract, request)


def version(document: str, mapping_id: str = "shop", number: int = 1) -> MappingVersion:
    return MappingVersion("default", mapping_id, number, document, "sha", (), "ada", BEFORE)


def test_every_field_that_a_mapping_names_is_read() -> None:
    reads = {each.dataset: set(each.fields) for each in all_reads([version(SHOP)])}
    assert reads == {
        "sales": {("sold_at",), ("household",), ("basket",), ("amount",)},
        "campaigns": {("campaign",), ("name",), ("start",), ("end",), ("kind",)},
        "members": {("household",), ("campaign",)},
    }
    [shipped] = all_reads([])
    assert shipped.dataset == "events"
    assert {("timestamp",), ("context", "campaign", "name"), ("properties", "order_id"), ("event",)} <= set(
        shipped.fields
    )
    assert all_reads([version(shipped_document(), "events")])[0].fields == shipped.fields


async def test_contracts_knows_what_the_mappings_in_force_read(client: Client) -> None:
    async def has_shipped() -> bool:
        return "$.properties.order_id" in (await known(client, "events")).get("mappings/events", [])

    await until(has_shipped)
    await client.mapped(SHOP)

    async def has_sales() -> bool:
        fields = (await known(client, "sales")).get("mappings/shop", [])
        return set(fields) == {"$.sold_at", "$.household", "$.basket", "$.amount"}

    await until(has_sales)
    narrower = SHOP.replace("conversions: [{type: basket, key: basket, value: amount, currency: USD}]", "")
    request = mappings_pb2.CreateMappingRequest(document=narrower)
    await client(client.mappings.CreateMapping, request)

    async def has_less() -> bool:
        return set((await known(client, "sales"))["mappings/shop"]) == {"$.sold_at", "$.household"}

    await until(has_less)


async def test_a_field_that_a_mapping_reads_is_not_removed_and_one_that_none_reads_is(client: Client) -> None:
    await submit(client, SALES.format(version="1.0.0", more=NOTE))
    await client(client.mappings.CreateMapping, mappings_pb2.CreateMappingRequest(document=SHOP))

    async def is_known() -> bool:
        return bool(await known(client, "sales"))

    await until(is_known)
    without_amount = SALES.format(version="2.0.0", more=NOTE).replace(
        "      - {name: amount, logicalType: number}\n", ""
    )
    request = contracts_pb2.SubmitContractRequest(document=without_amount, activate=True)
    refused = await client.refused(client.contracts.SubmitContract, request)
    assert (refused.reason, refused.metadata["consumers"]) == ("CONSUMERS_BROKEN", "mappings/shop")
    assert (await submit(client, SALES.format(version="2.0.0", more=""))).in_force


async def test_what_was_said_while_contracts_was_away_is_said_at_the_next_start(peers: Peers) -> None:
    reachable = peers.settings
    peers.settings = reachable.model_copy(update={"contracts_target": "127.0.0.1:9"})
    async with peers.graph() as world:
        client = world.client()
        await client(client.mappings.CreateMapping, mappings_pb2.CreateMappingRequest(document=SHOP))
        assert await known(client, "sales") == {}
    peers.settings = reachable
    async with peers.graph() as world:
        client = world.client()

        async def is_known() -> bool:
            return "mappings/shop" in await known(client, "sales")

        await until(is_known)
