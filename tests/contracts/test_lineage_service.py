"""Lineage as a principal tells and asks it."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import orjson
import pytest
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from tests.contracts.calls import Contracts, contracts_in, document, refused
from tests.contracts.lineage_world import (
    WAREHOUSE,
    Lineage,
    dataset,
    edges,
    event,
    facet,
    links,
    made_of,
    moment,
    reached,
)

pytestmark = pytest.mark.both_engines("contracts")

ORDERS = f"dataset:{WAREHOUSE}:orders"
LOAD = "job:nightly:load"
Kind = pb.ImpactItem.Kind


@pytest.fixture
async def lineage(contracts: Contracts) -> Lineage:
    return Lineage(contracts)


async def test_a_job_stands_between_what_it_reads_and_what_it_writes(lineage: Lineage) -> None:
    await lineage.kept(event("load", inputs=[dataset("orders")], outputs=[dataset("revenue")]))
    graph = await lineage.graph(ORDERS)
    assert edges(graph) == {("orders", "load"), ("load", "revenue")}
    assert [node.name for node in graph.nodes] == ["orders", "load", "revenue"]
    assert graph.nodes[1].latest_run.state == pb.LineageRun.State.COMPLETED


async def test_the_same_event_again_changes_nothing(lineage: Lineage) -> None:
    told = event("load", inputs=[dataset("orders")], outputs=[dataset("revenue")])
    await lineage.kept(told, told)
    before = await lineage.graph(ORDERS)
    await lineage.kept(told)
    assert await lineage.graph(ORDERS) == before
    listed = await lineage.stub.ListLineageEvents(pb.ListLineageEventsRequest(), **lineage.contracts.as_principal())
    assert listed.total_size == 1
    assert orjson.loads(listed.events[0].event) == told


async def test_an_edge_ends_with_the_run_that_leaves_it_out_and_can_be_asked_for_as_of_before(lineage: Lineage) -> None:
    await lineage.kept(
        event("load", at=0, inputs=[dataset("orders"), dataset("rates")], outputs=[dataset("revenue")]),
        event("load", at=2, inputs=[dataset("orders")], outputs=[dataset("revenue")]),
    )
    assert ("rates", "load") not in edges(await lineage.graph(LOAD))
    assert ("rates", "load") in edges(await lineage.graph(LOAD, as_of=to_timestamp(moment(1))))
    assert edges(await lineage.graph(LOAD, as_of=to_timestamp(moment(-1)))) == set()


async def test_what_was_known_then_can_be_asked_for_after_a_late_event(lineage: Lineage) -> None:
    await lineage.kept(event("load", at=5, inputs=[dataset("orders")], outputs=[dataset("revenue")]))
    learnt = (await lineage.graph(LOAD)).edges[0].known_from
    await lineage.kept(event("load", at=1, inputs=[dataset("orders"), dataset("rates")], outputs=[dataset("revenue")]))
    at_two = to_timestamp(moment(2))
    assert edges(await lineage.graph(LOAD, as_of=at_two, known_at=learnt)) == set()
    assert ("rates", "load") in edges(await lineage.graph(LOAD, as_of=at_two))
    assert ("rates", "load") not in edges(await lineage.graph(LOAD))


async def test_a_walk_goes_as_far_and_in_the_direction_that_is_asked(lineage: Lineage) -> None:
    await lineage.kept(
        event("load", inputs=[dataset("orders")], outputs=[dataset("revenue")]),
        event("report", inputs=[dataset("revenue")], outputs=[dataset("dashboard")]),
    )
    downstream = pb.GetLineageRequest.Direction.DOWNSTREAM
    revenue = f"dataset:{WAREHOUSE}:revenue"
    assert edges(await lineage.graph(revenue, direction=downstream)) == {("revenue", "report"), ("report", "dashboard")}
    assert edges(await lineage.graph(revenue, depth=1)) == {("load", "revenue"), ("revenue", "report")}
    with refused("LINEAGE_NODE_NOT_FOUND"):
        await lineage.graph("dataset:nowhere:nothing")


async def test_another_workspace_sees_nothing_of_it(lineage: Lineage) -> None:
    await lineage.kept(event("load", inputs=[dataset("orders")], outputs=[dataset("revenue")]))
    with refused("LINEAGE_NODE_NOT_FOUND"):
        await lineage.graph(ORDERS, workspace="other")
    listed = await lineage.stub.ListLineageNodes(
        pb.ListLineageNodesRequest(), **lineage.contracts.as_principal("other")
    )
    assert (listed.total_size, len(listed.nodes)) == (0, 0)


async def test_a_run_gathers_what_its_events_tell(lineage: Lineage) -> None:
    run = uuid.uuid4()
    nominal = facet("NominalTimeRunFacet", nominalStartTime=moment(-12).isoformat())
    await lineage.kept(
        event("load", at=0, state="START", run=run, inputs=[dataset("orders")], run_facets={"nominalTime": nominal}),
        event("load", at=1, run=run, outputs=[dataset("revenue", fields=["day", "total"])]),
    )
    request = pb.GetLineageRunRequest(run_id=str(run))
    found = await lineage.stub.GetLineageRun(request, **lineage.contracts.as_principal())
    assert found.state == pb.LineageRun.State.COMPLETED
    assert (found.started_at, found.ended_at) == (to_timestamp(moment(0)), to_timestamp(moment(1)))
    assert found.nominal_start_at == to_timestamp(moment(-12))
    assert ([each.name for each in found.inputs], [each.name for each in found.outputs]) == (["orders"], ["revenue"])
    assert ("orders", "load") in edges(await lineage.graph(ORDERS))


async def test_a_dataset_has_a_version_for_each_of_its_schemas(lineage: Lineage) -> None:
    for at, fields in enumerate((["id"], ["id"], ["id", "total"])):
        await lineage.kept(event("load", at=at, outputs=[dataset("revenue", fields=fields)]))
    request = pb.ListDatasetVersionsRequest(namespace=WAREHOUSE, name="revenue")
    answer = await lineage.stub.ListDatasetVersions(request, **lineage.contracts.as_principal())
    assert [[field.name for field in version.fields] for version in answer.versions] == [["id", "total"], ["id"]]


async def test_columns_are_followed_through_jobs(lineage: Lineage) -> None:
    await lineage.kept(
        event(
            "load",
            inputs=[dataset("orders")],
            outputs=[dataset("daily", columnLineage=made_of(total=[("orders", "net")]))],
        ),
        event(
            "report",
            inputs=[dataset("daily")],
            outputs=[dataset("board", columnLineage=made_of(sum=[("daily", "total")]))],
        ),
    )
    assert links(await lineage.columns("orders", "net")) == {
        ("orders.net", "daily.total"),
        ("daily.total", "board.sum"),
    }
    assert links(await lineage.columns("orders", "name")) == set()


async def test_sql_tells_columns_where_no_facet_does(lineage: Lineage) -> None:
    query = "INSERT INTO daily SELECT day, SUM(net) AS total FROM orders WHERE paid GROUP BY day"
    await lineage.kept(
        event(
            "load",
            inputs=[dataset("shop.orders", fields=["day", "net", "paid"])],
            outputs=[dataset("shop.daily")],
            job_facets={"sql": facet("SQLJobFacet", query=query)},
        )
    )
    found = await lineage.columns("shop.orders")
    assert links(found) == {
        ("shop.orders.day", "shop.daily.day"),
        ("shop.orders.net", "shop.daily.total"),
        ("shop.orders.paid", "shop.daily."),
        ("shop.orders.day", "shop.daily."),
    }
    kinds = {(each.source.field, each.subtype): each.kind for each in found.edges}
    assert kinds["paid", "FILTER"] == kinds["day", "GROUP_BY"] == pb.ColumnEdge.Kind.INDIRECT
    assert kinds["net", "AGGREGATION"] == pb.ColumnEdge.Kind.DIRECT


async def test_impact_follows_fields_where_they_are_told_and_takes_all_where_they_are_not(lineage: Lineage) -> None:
    model = dataset(
        "models/churn",
        datasetType=facet("DatasetTypeDatasetFacet", datasetType="MODEL"),
        version=facet("DatasetVersionDatasetFacet", datasetVersion="3"),
        columnLineage=facet(
            "ColumnLineageDatasetFacet",
            fields={},
            dataset=[{"namespace": WAREHOUSE, "name": "daily", "field": "total"}],
        ),
    )
    audience = dataset("vip", datasetType=facet("DatasetTypeDatasetFacet", datasetType="AUDIENCE"))
    receipt = {"counterfoil_receipt": facet("Receipt", receiptId="models.0197")}
    await lineage.kept(
        event(
            "load",
            inputs=[dataset("orders")],
            outputs=[dataset("daily", columnLineage=made_of(total=[("orders", "net")], day=[("orders", "day")]))],
        ),
        event("train", inputs=[dataset("daily")], outputs=[model]),
        event("select", inputs=[dataset("models/churn")], outputs=[audience], run_facets=receipt),
    )
    found = await lineage.impact("orders", "net")
    assert reached(found) == {
        "load": [],
        "daily": ["total"],
        "train": [],
        "models/churn@3": [],
        "select": [],
        "vip": [],
    }
    kinds = {item.name: item.kind for item in found.items}
    assert (kinds["daily"], kinds["models/churn"], kinds["vip"]) == (Kind.DATASET, Kind.MODEL_VERSION, Kind.AUDIENCE)
    assert {item.name for item in found.items if item.assumed} == {"select", "vip"}
    assert [each.receipt_id for each in found.receipts] == ["models.0197"]
    assert reached(await lineage.impact("orders", "day")) == {"load": [], "daily": ["day"]}
    assert "models/churn@3" in reached(await lineage.impact("orders"))
    assert (await lineage.impact("orders", "name")).items == []


async def test_the_impact_of_a_contract_is_that_of_the_fields_its_version_changes(lineage: Lineage) -> None:
    contracts = lineage.contracts
    properties = [{"name": "name", "logicalType": "string"}, {"name": "net", "logicalType": "integer"}]
    await contracts.submit(document(properties=properties), activate=True)
    changed = [properties[0], {"name": "net", "logicalType": "number"}]
    await contracts.submit(document(version="2.0.0", properties=changed))
    reads = [{"namespace": "counterfoil", "name": "orders", "field": field} for field in ("name", "net")]
    for source in reads:
        told = facet("ColumnLineageDatasetFacet", fields={source["field"]: {"inputFields": [source]}})
        await lineage.kept(
            event(
                f"copy {source['field']}",
                inputs=[dataset("orders", namespace="counterfoil")],
                outputs=[dataset(f"only_{source['field']}", columnLineage=told)],
            )
        )
    found = await lineage.impact("", contract_id="shop", version="2.0.0", namespace="")
    assert [(each.dataset, each.field) for each in found.changed] == [("orders", "net")]
    assert set(reached(found)) == {"copy net", "only_net"}
    whole = await lineage.impact("", contract_id="shop", namespace="")
    assert set(reached(whole)) == {"copy net", "only_net", "copy name", "only_name"}
    with refused("IMPACT_UNCLEAR"):
        await lineage.impact("orders", contract_id="shop")


async def test_a_statement_is_analysed_with_the_columns_of_contracts(lineage: Lineage) -> None:
    properties = [{"name": "name", "logicalType": "string"}, {"name": "net", "logicalType": "integer"}]
    await lineage.contracts.submit(document(properties=properties), activate=True)
    request = pb.AnalyzeSqlRequest(sql="CREATE TABLE copy AS SELECT * FROM orders")
    found = await lineage.stub.AnalyzeSql(request, **lineage.contracts.as_principal())
    assert list(found.columns) == ["name", "net"]
    assert [each.name for each in found.outputs] == ["copy"]
    with refused("SQL_UNREADABLE"):
        await lineage.stub.AnalyzeSql(pb.AnalyzeSqlRequest(sql="SELECT ("), **lineage.contracts.as_principal())


async def test_nodes_are_listed_by_pages_and_found_by_a_part_of_their_name(lineage: Lineage) -> None:
    await lineage.kept(event("load", inputs=[dataset("orders"), dataset("Order_lines")], outputs=[dataset("revenue")]))
    call = lineage.contracts.as_principal()
    names, token = [], ""
    while True:
        page = await lineage.stub.ListLineageNodes(pb.ListLineageNodesRequest(page_size=2, page_token=token), **call)
        names += [node.name for node in page.nodes]
        token = page.next_page_token
        if not token:
            break
    assert sorted(names) == ["Order_lines", "load", "orders", "revenue"]
    found = await lineage.stub.ListLineageNodes(pb.ListLineageNodesRequest(query="order"), **call)
    assert {node.name for node in found.nodes} == {"orders", "Order_lines"}
    jobs = await lineage.stub.ListLineageNodes(pb.ListLineageNodesRequest(kind=pb.LineageNode.Kind.JOB), **call)
    assert [node.name for node in jobs.nodes] == ["load"]


async def test_one_bad_event_does_not_cost_its_neighbours(lineage: Lineage) -> None:
    bad = event("load", outputs=[dataset("revenue", schema=facet("SchemaDatasetFacet", fields="none"))])
    results = await lineage.tell(bad, event("load", inputs=[dataset("orders")]))
    assert [(each.reason, each.path) for each in results] == [
        ("FACET_INVALID", "$.outputs[0].facets.schema.fields"),
        ("", ""),
    ]
    await lineage.graph(ORDERS)


async def test_what_was_told_outlives_a_restart(tmp_path: Path) -> None:
    async with contracts_in(tmp_path) as contracts:
        await Lineage(contracts).kept(event("load", inputs=[dataset("orders")], outputs=[dataset("revenue")]))
    async with contracts_in(tmp_path) as contracts:
        assert len((await Lineage(contracts).graph(ORDERS)).edges) == 2


async def test_a_graph_that_is_too_large_is_shown_in_part_and_says_so(lineage: Lineage) -> None:
    long = "x" * 900
    many = [dataset(f"{long}{number}") for number in range(900)]
    for at in range(6):
        await lineage.kept(event(f"load {at}", at=at, inputs=many, outputs=[dataset("revenue")]))
    graph = await lineage.graph(f"dataset:{WAREHOUSE}:revenue", depth=2)
    assert graph.truncated
    assert len(graph.edges) <= 5000
    assert graph.ByteSize() < 8 << 20
    found = await lineage.impact(f"{long}1")
    assert {item.name for item in found.items} == {*(f"load {at}" for at in range(6)), "revenue"}


async def test_a_flood_of_column_edges_is_kept_in_bounded_time(lineage: Lineage) -> None:
    flood = made_of(**{f"t{number}": [("orders", f"s{number}")] for number in range(10_000)})
    began = time.monotonic()
    await lineage.kept(event("load", inputs=[dataset("orders")], outputs=[dataset("revenue", columnLineage=flood)]))
    print(f"10,000 column edges of one event: {time.monotonic() - began:.1f} s")
    found = await lineage.columns("orders")
    assert found.truncated
    assert len(found.edges) == 5000
