"""Nodes and edges: in a state, at a time; mappings that change; what cannot be read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from counterfoil.graph.v1 import journeys_pb2, mappings_pb2, nodes_pb2
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.status import failure_of

from tests.graph.world import SHOP, Client, World, day

R = nodes_pb2.ListNeighborsRequest


async def neighbors(client: Client, node_id: str, **fields: Any) -> list[tuple[str, str, str, int]]:
    answer = await client(client.nodes.ListNeighbors, R(node_id=node_id, **fields))
    return [(each.edge.type, each.node.node_id, each.node.name, each.edge.records) for each in answer.neighbors]


async def test_nodes_are_read_as_they_were_described_and_valid(client: Client) -> None:
    await client.mapped(SHOP)
    dates = {"start": "2017-02-01", "end": "2017-03-01"}
    await client.append("campaigns", {"campaign": 18, "name": "A", **dates, "kind": "A"})
    first = await client(client.nodes.GetNode, nodes_pb2.GetNodeRequest(node_id="campaign.18"))
    assert (first.type, first.key, first.name, first.attributes) == ("campaign", "18", "A", b'{"kind":"A"}')
    assert (first.valid_from, first.valid_to) == (to_timestamp(day(31)), to_timestamp(day(59)))
    assert (first.position, first.HasField("known_from")) == ("0:0", True)
    # the same dates described anew replace the description; other dates stand beside it
    await client.append("campaigns", {"campaign": 18, "name": "B", **dates})
    await client.append("campaigns", {"campaign": 18, "name": "C", "start": "2017-06-01"})

    async def name(**fields: Any) -> str:
        request = nodes_pb2.GetNodeRequest(node_id="campaign.18", **fields)
        return str((await client(client.nodes.GetNode, request)).name)

    assert [await name(), await name(as_of=to_timestamp(day(40)))] == ["C", "B"]
    assert await name(as_of=to_timestamp(day(40)), known_at=first.known_from) == "A"
    for fields in ({"as_of": to_timestamp(day(100))}, {"known_at": to_timestamp(day(0))}):
        request = nodes_pb2.GetNodeRequest(node_id="campaign.18", **fields)
        assert (await client.refused(client.nodes.GetNode, request)).reason == "NODE_NOT_FOUND"
    for node_id, reason in (("campaign.19", "NODE_NOT_FOUND"), ("nonsense", "NODE_ID_INVALID")):
        refused = await client.refused(client.nodes.GetNode, nodes_pb2.GetNodeRequest(node_id=node_id))
        assert refused.reason == reason
    await client.append("campaigns", *({"campaign": f"c{n}", "start": "2018-01-01"} for n in range(3)))
    listed = nodes_pb2.ListNodesRequest(type="campaign", page_size=2)
    keys = []
    while True:
        answer = await client(client.nodes.ListNodes, listed)
        keys += [(node.key, node.name) for node in answer.nodes]
        if not answer.next_page_token:
            break
        listed.page_token = answer.next_page_token
    assert keys == [("18", "C"), ("c0", ""), ("c1", ""), ("c2", "")]
    valid = nodes_pb2.ListNodesRequest(type="campaign", as_of=to_timestamp(day(40)))
    assert [node.name for node in (await client(client.nodes.ListNodes, valid)).nodes] == ["B"]


async def test_neighbours_of_persons_and_of_nodes_that_nothing_describes(client: Client) -> None:
    await client.mapped(SHOP)
    await client.append("members", {"household": 1, "campaign": 18}, {"household": 2, "campaign": 18})
    known = (await client.graph()).state.known_at
    await client.append("members", {"household": 1, "campaign": 18}, {"household": 1, "campaign": "x"})
    person = await client.person("household_id", "1")
    node_id = f"person.{person.person_id}"
    assert await neighbors(client, node_id) == [
        ("assigned_to", "campaign.18", "", 2),
        ("assigned_to", "campaign.x", "", 1),
    ]
    assert await neighbors(client, node_id, known_at=known) == [("assigned_to", "campaign.18", "", 1)]
    assert await neighbors(client, node_id, direction=R.IN) == []
    assert await neighbors(client, node_id, edge_type="other") == []
    await client.append("campaigns", {"campaign": 18, "name": "A", "start": "2017-02-01"})
    assert (await neighbors(client, node_id))[0] == ("assigned_to", "campaign.18", "A", 2)
    members = await client(client.nodes.ListNeighbors, R(node_id="campaign.18", page_size=1))
    rest = R(node_id="campaign.18", page_size=1, page_token=members.next_page_token)
    others = await client(client.nodes.ListNeighbors, rest)
    assert [*members.neighbors, *others.neighbors][0].node.node_id == node_id
    assert (len(others.neighbors), others.next_page_token) == (1, "")
    assert members.neighbors[0].edge.to_node_id == "campaign.18"
    for nobody in ("person.per_x", "campaign.nobody-heard-of"):
        assert (await client.refused(client.nodes.ListNeighbors, R(node_id=nobody))).reason == "NODE_NOT_FOUND"


async def test_a_mapping_with_faults_is_refused_with_each_one_and_its_path(client: Client) -> None:
    document = """
mapping: shop
datasets:
  sales:
    tim: sold_at
    identifiers: [{type: household_id}]
    touchpoints: [{type: seen, channel: {const: mail}, time: {campaign: end}}]
    conversions: [{type: Basket, key: basket, when: {field: kind}}]
  identity_decisions: {nodes: [{type: person, key: x}]}
"""
    found = await client(client.mappings.CheckMapping, mappings_pb2.CheckMappingRequest(document=document))
    assert not found.valid
    assert {(each.path, each.reason) for each in found.findings} == {
        ("$.datasets.sales.tim", "MAPPING_UNKNOWN_KEY"),
        ("$.datasets.sales.identifiers[0].field", "MAPPING_KEY_MISSING"),
        ("$.datasets.sales.touchpoints[0].time", "MAPPING_VALUE"),
        ("$.datasets.sales.touchpoints[0].campaign", "MAPPING_KEY_MISSING"),
        ("$.datasets.sales.conversions[0].type", "MAPPING_NAME"),
        ("$.datasets.sales.conversions[0].when", "MAPPING_VALUE"),
        ("$.datasets.identity_decisions", "MAPPING_RESERVED"),
        ("$.datasets.identity_decisions.nodes[0].type", "MAPPING_RESERVED"),
    }
    request = mappings_pb2.CreateMappingRequest(document=document)
    refused = await client.refused(client.mappings.CreateMapping, request)
    assert (refused.reason, len(refused.violations)) == ("MAPPING_INVALID", 8)
    listed = await client(client.mappings.ListMappings, mappings_pb2.ListMappingsRequest())
    assert [(each.mapping_id, each.version, each.created_by) for each in listed.mappings] == [("events", 1, "platform")]


async def test_types_are_declared_in_one_place(client: Client) -> None:
    one = "mapping: one\nidentifier_types: {crm: {rank: 5}}\ndatasets: {a: {identifiers: [{type: crm, field: id}]}}"
    await client.mapped(one)
    other = one.replace("mapping: one", "mapping: two").replace("rank: 5", "rank: 6")
    request = mappings_pb2.CreateMappingRequest(document=other)
    refused = await client.refused(client.mappings.CreateMapping, request)
    assert [(each.field, each.reason) for each in refused.violations] == [
        ("$.identifier_types.crm", "MAPPING_TYPE_CONFLICT")
    ]


async def test_a_changed_mapping_reads_the_log_again_and_a_new_one_keeps_cited_states(client: Client) -> None:
    first = await client.mapped(SHOP)
    await client.append("sales", {"household": 1, "basket": 1, "amount": 1, "sold_at": "2017-01-01T00:00:00Z"})
    await client.allowed("measurement", ("household_id", "1"))
    cited, rows = await client.read()
    # a dataset that nothing was seen of changes nothing that is there
    await client.mapped("mapping: more\ndatasets: {later: {nodes: [{type: thing, key: id}]}}")
    state = {name: getattr(cited, name) for name in ("log_epoch", "next_offset", "mappings_sha256", "consent_at")}
    assert await client.read(**state, ledger_revision=cited.ledger_revision) == (cited, rows)
    assert (await client.read())[0].mappings_sha256 != cited.mappings_sha256
    assert (await client.mapped(SHOP)).version == first.version == 1
    changed = await client.mapped(SHOP.replace("value: amount, ", ""))
    assert changed.version == 2
    await client.caught_up(1)
    assert [row["value_micros"] for row in (await client.read())[1]] == [0]
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.read(**state)
    assert failure_of(failure.value).reason == "GRAPH_REBUILT"


async def test_what_cannot_be_read_is_counted_and_stops_nothing(client: Client) -> None:
    await client.mapped(SHOP)
    good = {"household": 1, "basket": 1, "amount": 1, "sold_at": "2017-01-01T00:00:00Z"}
    bad = [
        ("TIME_MISSING", {"sold_at": None}),
        ("TIME_INVALID", {"sold_at": "yesterday"}),
        ("TIME_INVALID", {"sold_at": 1483228800}),
        ("TIME_INVALID", {"sold_at": "0001-01-01T00:00:00+14:00"}),
        ("TIME_INVALID", {"sold_at": "2017-02-30T00:00:00Z"}),
        ("IDENTIFIER_MISSING", {"household": " "}),
        ("IDENTIFIER_INVALID", {"household": {"id": 1}}),
        ("IDENTIFIER_INVALID", {"household": True}),
        ("IDENTIFIER_INVALID", {"household": "a\0b"}),
        ("IDENTIFIER_TOO_LONG", {"household": "x" * 501}),
        ("KEY_MISSING", {"basket": None}),
        ("KEY_INVALID", {"basket": "x" * 501}),
        ("VALUE_INVALID", {"amount": "many"}),
        ("VALUE_INVALID", {"amount": 1e300}),
        ("VALUE_INVALID", {"amount": 1e308}),
        ("VALUE_INVALID", {"amount": 10**18}),
        ("VALUE_INVALID", {"amount": False}),
    ]
    await client.append("sales", good, *(good | changes for _, changes in bad), good | {"basket": 2})
    await client.append("members", {"household": 1})
    graph = await client.graph()
    found = {(each.dataset, each.reason): each.records for each in graph.unread}
    expected: dict[tuple[str, str], int] = {("members", "CAMPAIGN_MISSING"): 1}
    for reason, _ in bad:
        expected["sales", reason] = expected.get(("sales", reason), 0) + 1
    assert found == expected
    assert (graph.persons, graph.conversions, graph.touchpoints) == (1, 2, 0)


async def test_a_journey_of_ten_thousand_touches_is_paged_and_streamed(client: Client) -> None:
    await client.mapped(SHOP)
    sale = {"household": 1, "amount": 1}
    sales = [{**sale, "basket": n, "sold_at": (day(0) + timedelta(seconds=n)).isoformat()} for n in range(10_000)]
    for start in range(0, len(sales), 5_000):
        await client.append("sales", *sales[start : start + 5_000])
    await client.allowed("measurement", ("household_id", "1"))
    reading, rows = await client.read()
    assert (reading.persons, len(rows), len({row["event_id"] for row in rows})) == (1, 10_000, 10_000)
    assert [row["time_us"] for row in rows] == sorted(row["time_us"] for row in rows)
    person = await client.person("household_id", "1")
    assert person.conversions == 10_000
    request = journeys_pb2.ListJourneyEventsRequest(person_id=person.person_id, page_size=1000)
    seen: list[str] = []
    while True:
        answer = await client(client.journeys.ListJourneyEvents, request)
        seen += [each.event_id for each in answer.events]
        if len(seen) == 1000:  # what comes in meanwhile is not shown: every page is of the first one's state
            await client.append("sales", {**sale, "basket": "x", "sold_at": "2016-01-01T00:00:00Z"})
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert seen == [row["event_id"] for row in rows]
    window = journeys_pb2.ListJourneyEventsRequest(person_id=person.person_id, until=to_timestamp(day(-1)))
    found = await client(client.journeys.ListJourneyEvents, window)
    assert [(each.type, each.records, each.dataset, each.position) for each in found.events] == [
        ("basket", 1, "sales", "0:10000")
    ]


async def test_a_campaign_without_a_beginning_is_a_touchpoint_without_a_time(client: Client, world: World) -> None:
    await client.mapped(SHOP)
    await client.append("members", {"household": 1, "campaign": 18})
    await client.allowed("measurement", ("household_id", "1"))
    assert (await client.read())[1] == []
    person = await client.person("household_id", "1")
    request = journeys_pb2.ListJourneyEventsRequest(person_id=person.person_id)
    (event,) = (await client(client.journeys.ListJourneyEvents, request)).events
    assert (event.campaign, event.HasField("happened_at"), event.identifier_type) == ("18", False, "household_id")
    other = world.client(workspace="zeta")
    assert (await other.refused(other.journeys.ListJourneyEvents, request)).reason == "PERSON_NOT_FOUND"
