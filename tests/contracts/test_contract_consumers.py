"""Who reads which fields: registered by people, said by services, and seen beside the fields of a contract."""

from __future__ import annotations

from typing import Any

import pytest
from counterfoil.contracts.v1 import consumers_pb2 as pb
from counterfoil_chassis.status import failure_of
from grpc.aio import AioRpcError

from tests.contracts.calls import STRING, Contracts, document, refused

ITEMS = {
    "name": "items",
    "logicalType": "array",
    "items": {"logicalType": "object", "properties": [{"name": "sku", "logicalType": "string"}]},
}
ODD = {"name": "it's [odd]", "logicalType": "string"}


def registration(name: str = "report", dataset: str = "orders", **fields: Any) -> pb.RegisterConsumerRequest:
    return pb.RegisterConsumerRequest(**{"name": name, "dataset": dataset, "owner": "finance", **fields})


async def register(contracts: Contracts, *, workspace: str = "default", **fields: Any) -> pb.Consumer:
    return await contracts.consumers.RegisterConsumer(registration(**fields), **contracts.as_principal(workspace))


async def listed(contracts: Contracts, *, workspace: str = "default", **wanted: Any) -> list[pb.Consumer]:
    found: list[pb.Consumer] = []
    request = pb.ListConsumersRequest(**wanted)
    while True:
        page = await contracts.consumers.ListConsumers(request, **contracts.as_principal(workspace))
        found += page.consumers
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def remove(contracts: Contracts, consumer_id: str, *, workspace: str = "default") -> None:
    request = pb.RemoveConsumerRequest(consumer_id=consumer_id)
    await contracts.consumers.RemoveConsumer(request, **contracts.as_principal(workspace))


async def say(contracts: Contracts, service: str, *consumers: pb.OwnConsumer, workspace: str = "default") -> None:
    request = pb.ReplaceOwnConsumersRequest(workspace=workspace, consumers=consumers)
    await contracts.consumers.ReplaceOwnConsumers(request, **contracts.as_service(service))


@pytest.mark.both_engines("contracts")
async def test_a_consumer_is_registered_again_under_the_same_id(contracts: Contracts) -> None:
    first = await register(contracts, fields=["items[0].sku", "$['name']", "name"], contact="a@example.com")
    assert list(first.fields) == ["$.items[*].sku", "$.name"]
    assert (first.owner, first.contact, first.registered_by, first.service) == ("finance", "a@example.com", "ada", "")
    again = await register(contracts, fields=["name"], version_range=">=1.0.0 <3.0.0")
    assert (again.consumer_id, list(again.fields)) == (first.consumer_id, ["$.name"])
    assert again.created_at == first.created_at
    request = pb.GetConsumerRequest(consumer_id=first.consumer_id)
    assert await contracts.consumers.GetConsumer(request, **contracts.as_principal()) == again
    assert await listed(contracts) == [again]


async def test_fields_that_no_contract_declares_are_told(contracts: Contracts) -> None:
    early = await register(contracts, fields=["name", "total"])
    assert list(early.undeclared_fields) == ["$.name", "$.total"]
    await contracts.submit(document(), activate=True)
    [consumer] = await listed(contracts)
    assert list(consumer.undeclared_fields) == ["$.total"]


@pytest.mark.both_engines("contracts")
async def test_pages_hold_every_consumer_once_by_name_and_dataset(contracts: Contracts) -> None:
    names = [(f"report {number}", dataset) for number in range(3) for dataset in ("orders", "refunds")]
    for name, dataset in reversed(names):
        await register(contracts, name=name, dataset=dataset)
    assert [(each.name, each.dataset) for each in await listed(contracts, page_size=2)] == names
    of_one = await listed(contracts, page_size=1, dataset="refunds")
    assert [each.name for each in of_one] == ["report 0", "report 1", "report 2"]


async def test_a_consumer_of_another_workspace_is_neither_found_nor_removed(contracts: Contracts) -> None:
    consumer = await register(contracts)
    assert await listed(contracts, workspace="elsewhere") == []
    with refused("CONSUMER_NOT_FOUND"):
        await remove(contracts, consumer.consumer_id, workspace="elsewhere")
    await remove(contracts, consumer.consumer_id)
    with refused("CONSUMER_NOT_FOUND"):
        await remove(contracts, consumer.consumer_id)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"fields": ["$.a..b"]}, "FIELD_PATH_INVALID"),
        ({"fields": [".a"]}, "FIELD_PATH_INVALID"),
        ({"fields": ["a[?@.b]"]}, "FIELD_PATH_INVALID"),
        ({"fields": ["a" * 1001]}, "BAD_FIELD"),
        ({"fields": ["a" + ".a" * 70]}, "FIELD_PATH_INVALID"),
        ({"fields": ["$['a"]}, "FIELD_PATH_INVALID"),
        ({"version_range": "^1.0.0"}, "VERSION_RANGE_INVALID"),
        ({"version_range": ">=1.0.0 ||"}, "VERSION_RANGE_INVALID"),
        ({"version_range": "1.x " * 50}, "VERSION_RANGE_INVALID"),
        ({"dataset": "Orders"}, "BAD_FIELD"),
        ({"name": ""}, "BAD_FIELD"),
        ({"name": "a\x00b"}, "BAD_FIELD"),
        ({"fields": ["a\x00b"]}, "BAD_FIELD"),
        ({"contact": "a\nb"}, "BAD_FIELD"),
        ({"owner": ""}, "BAD_FIELD"),
    ],
)
async def test_what_is_no_path_and_no_range_is_refused(
    contracts: Contracts, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AioRpcError) as raised:
        await register(contracts, **fields)
    assert (failure_of(raised.value).code.name, failure_of(raised.value).reason) == ("INVALID_ARGUMENT", reason)
    assert await listed(contracts) == []


@pytest.mark.both_engines("contracts")
async def test_what_a_service_reads_is_replaced_as_a_whole(contracts: Contracts) -> None:
    orders = pb.OwnConsumer(name="mappings/shop", dataset="orders", fields=["$.name"], owner="ada")
    refunds = pb.OwnConsumer(name="mappings/shop", dataset="refunds")
    await say(contracts, "graph", orders, refunds)
    await say(contracts, "models", pb.OwnConsumer(name="models/demand", dataset="orders"))
    person = await register(contracts, name="mappings/shop")  # of the same name as the graph's
    before = {(each.service, each.dataset): each for each in await listed(contracts)}
    assert set(before) == {("graph", "orders"), ("graph", "refunds"), ("models", "orders"), ("", "orders")}
    assert before["graph", "orders"].owner == "ada"
    await say(contracts, "graph", orders)
    after = {(each.service, each.dataset): each for each in await listed(contracts)}
    assert set(after) == {("graph", "orders"), ("models", "orders"), ("", "orders")}
    assert after["graph", "orders"] == before["graph", "orders"]  # what is as before was not touched
    assert after["", "orders"] == person
    await say(contracts, "graph", workspace="elsewhere")
    assert len(await listed(contracts)) == 3


async def test_what_a_service_reads_is_removed_by_that_service_alone(contracts: Contracts) -> None:
    await say(contracts, "graph", pb.OwnConsumer(name="mappings/shop", dataset="orders"))
    [consumer] = await listed(contracts)
    with refused("CONSUMER_OF_SERVICE"):
        await remove(contracts, consumer.consumer_id)


async def test_a_service_says_each_name_and_dataset_once(contracts: Contracts) -> None:
    twice = [pb.OwnConsumer(name="mappings/shop", dataset="orders")] * 2
    with refused("BAD_FIELD"):
        await say(contracts, "graph", *twice)


@pytest.mark.parametrize("caller", ["ingest", "gateway"])
async def test_only_services_that_read_say_what_they_read(contracts: Contracts, caller: str) -> None:
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await say(contracts, caller)


@pytest.mark.both_engines("contracts")
async def test_every_declared_field_is_shown_with_who_reads_it_and_unused_ones_with_nobody(
    contracts: Contracts,
) -> None:
    await contracts.submit(document(properties=[STRING, ITEMS, ODD]), activate=True)
    await register(contracts, name="stock", fields=["items"])
    await register(contracts, name="search", fields=["items[*].sku"])
    await register(contracts, name="other", dataset="refunds")
    request = pb.ListContractFieldsRequest(contract_id="shop", page_size=2)
    found: list[pb.ContractField] = []
    while True:
        page = await contracts.consumers.ListContractFields(request, **contracts.as_principal())
        found += page.fields
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [(each.dataset, each.path, [one.name for one in each.consumers]) for each in found] == [
        ("orders", "$['it\\'s [odd]']", []),
        ("orders", "$.items", ["stock"]),
        ("orders", "$.items[*]", ["stock"]),
        ("orders", "$.items[*].sku", ["search", "stock"]),
        ("orders", "$.name", []),
    ]
    with refused("CONTRACT_NOT_FOUND"):
        unknown = pb.ListContractFieldsRequest(contract_id="none")
        await contracts.consumers.ListContractFields(unknown, **contracts.as_principal())


async def test_a_contract_without_a_version_in_force_has_no_fields_to_show(contracts: Contracts) -> None:
    await contracts.submit(document())
    request = pb.ListContractFieldsRequest(contract_id="shop")
    assert not (await contracts.consumers.ListContractFields(request, **contracts.as_principal())).fields
