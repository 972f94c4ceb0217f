"""Lineage as somebody meets it in a browser: what is drawn is what the API answers, however large, at whatever time."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser import Console, unchanged
from tests.console.shop import DATASET, Shop
from tests.console.store import HOSTILE
from tests.console.test_console_pages import rows, table

PRODUCER = "https://example.org/shop/jobs"
WAREHOUSE = "postgres://warehouse:5432"
REVENUE = "daily_revenue"
AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
CENTRE = f"dataset:counterfoil:{DATASET}"
REVENUE_NODE = f"dataset:{WAREHOUSE}:{REVENUE}"


def _facet(name: str, version: str, **content: Any) -> dict[str, Any]:
    schema = f"https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": schema, **content}


def _event(job: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], *, kind: str = "COMPLETE") -> Any:
    """Return a run's event as an OpenLineage client sends it."""
    return {
        "eventType": kind,
        "eventTime": AT.isoformat(),
        "run": {"runId": str(uuid.uuid4())},
        "job": {"namespace": "nightly", "name": job},
        "inputs": inputs,
        "outputs": outputs,
        "producer": PRODUCER,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
    }


def _dataset(namespace: str, name: str, **facets: Any) -> dict[str, Any]:
    return {"namespace": namespace, "name": name, **({"facets": facets} if facets else {})}


def _made_of(field: str, kind: str, subtype: str) -> dict[str, Any]:
    transformation = {"type": kind, "subtype": subtype, "description": "", "masking": False}
    return {"namespace": "counterfoil", "name": DATASET, "field": field, "transformations": [transformation]}


@pytest.fixture(scope="module")
def told(shop: Shop) -> Shop:
    """Tell what a nightly job makes of the orders, and what a report of a hostile name makes of that."""
    revenue = _dataset(
        WAREHOUSE,
        REVENUE,
        schema=_facet(
            "SchemaDatasetFacet",
            "1-1-1",
            fields=[{"name": "day", "type": "DATE"}, {"name": "revenue", "type": "DOUBLE"}],
        ),
        columnLineage=_facet(
            "ColumnLineageDatasetFacet",
            "1-2-0",
            fields={
                "day": {"inputFields": [_made_of("placed_at", "DIRECT", "TRANSFORMATION")]},
                "revenue": {
                    "inputFields": [
                        _made_of("amount", "DIRECT", "AGGREGATION"),
                        _made_of("shipping", "INDIRECT", "FILTER"),
                    ]
                },
            },
        ),
    )
    orders = [_dataset("counterfoil", DATASET)]
    _tell(shop, _event("revenue", orders, [revenue]))
    _tell(shop, _event("report", [_dataset(WAREHOUSE, REVENUE)], [_dataset("reports", HOSTILE)], kind="FAIL"))
    return shop


def _tell(shop: Shop, event: Any) -> None:
    assert shop.tenant.http.post("/api/v1/lineage", json=event).status_code == 201


def _open(console: Console, **query: Any) -> Page:
    return console.open(f"/console/sources/lineage?{urlencode(query)}")


def _ends(page: Page) -> set[str]:
    """Return the ids of the nodes that are drawn."""
    return set(page.locator(".board .node[data-end]").evaluate_all("nodes => nodes.map(node => node.dataset.end)"))


def test_datasets_and_jobs_are_found_by_a_part_of_their_name(shop_console: Console, told: Shop):
    page, nodes = unchanged(lambda: told.get("/v1/lineage/nodes", page_size=50)["nodes"], lambda: _open(shop_console))
    assert [row[0].split("\n")[0] for row in rows(table(page, "Datasets and jobs"))] == [one["name"] for one in nodes]
    page.get_by_label("Name", exact=True).fill(REVENUE[3:9])
    page.get_by_role("button", name="Find").click()
    shop_console.settle()
    assert {row[0] for row in rows(table(page, "Datasets and jobs"))} == {REVENUE}
    page.get_by_role("link", name=REVENUE).click()
    shop_console.settle()
    expect(page.locator(".node.here")).to_contain_text(REVENUE)
    assert page.locator("img[src=x]").count() == 0


def test_the_drawing_has_every_node_and_edge_of_the_answer_and_walks_on(shop_console: Console, told: Shop):
    page, graph = unchanged(
        lambda: told.get("/v1/lineage", node_id=CENTRE, depth=4), lambda: _open(shop_console, node=CENTRE)
    )
    assert _ends(page) == {one["node_id"] for one in graph["nodes"]}
    assert page.locator(".board path.line").count() == len(graph["edges"])
    lefts = {
        name: page.locator(f'.board [data-end="{name}"]').bounding_box()
        for name in (CENTRE, "job:nightly:revenue", REVENUE_NODE)
    }
    xs = [box["x"] for box in lefts.values() if box]
    assert xs == sorted(xs), "what is made of something stands to its right"
    assert len(set(xs)) == 3
    page.locator(f'.board [data-end="{REVENUE_NODE}"]').focus()
    assert page.locator(".board path.near").count() == len(graph["edges"]), "all of it leads here or away from here"
    page.keyboard.press("Enter")
    shop_console.settle()
    expect(page.locator(".node.here")).to_contain_text(REVENUE)
    expect(page.locator("h1")).to_be_focused()
    page.get_by_role("button", name="Comes from").click()
    shop_console.settle()
    upstream = told.get("/v1/lineage", node_id=REVENUE_NODE, depth=4, direction="UPSTREAM")
    assert _ends(page) == {one["node_id"] for one in upstream["nodes"]}
    page.get_by_label("Depth").select_option("1")
    shop_console.settle()
    assert _ends(page) == {REVENUE_NODE, "job:nightly:revenue"}


def test_fields_are_drawn_with_what_they_are_made_of_and_what_a_change_of_one_reaches(
    shop_console: Console, told: Shop
):
    page = _open(shop_console, node=REVENUE_NODE, level="columns")
    edges = told.get("/v1/lineage/columns", namespace=WAREHOUSE, dataset=REVENUE, depth=4)["edges"]
    assert page.locator(".board path.line").count() == len(edges)
    assert page.locator(".board path.indirect").count() == sum(one["kind"] == "INDIRECT" for one in edges) > 0
    page.locator(".node.here .column", has_text="revenue").click()
    shop_console.settle()
    expect(page.locator(".column.chosen")).to_have_text("revenue")
    assert page.locator(".column", has_text="placed_at").count() == 0, "the day is made of that"
    impact = told.get("/v1/impact", namespace=WAREHOUSE, dataset=REVENUE, fields="revenue")
    shown = rows(table(page, "What a change reaches"))
    assert [row[1] for row in shown] == [one["name"] for one in impact["items"]]
    assert HOSTILE in {row[1] for row in shown}
    page.get_by_text("As a table").click()
    assert len(rows(table(page, "Column edges"))) == sum(one["target"]["field"] == "revenue" for one in edges)
    assert page.locator("img[src=x]").count() == 0


def test_it_is_shown_as_it_was(shop_console: Console, told: Shop):
    before = (AT - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    page = _open(shop_console, node=CENTRE)
    page.get_by_label("As it was at").fill(before)
    page.get_by_label("As it was at").press("Tab")
    page.wait_for_url("**valid=*")
    shop_console.settle()
    assert _ends(page) == {CENTRE}
    page.get_by_role("button", name="Now").click()
    shop_console.settle()
    assert len(_ends(page)) > 1
    page = _open(shop_console, node=CENTRE, known=before)
    assert _ends(page) <= {CENTRE}, "nothing had been told by then"


def test_a_graph_too_large_to_read_is_cut_and_says_so(shop_console: Console, told: Shop):
    wide = [_event(f"reader-{number}", [_dataset("big", "wide")], []) for number in range(400)]
    assert told.tenant.http.post("/api/v1/lineage/batch", json=wide).status_code in (200, 201)
    page = _open(shop_console, node="dataset:big:wide", depth=1)
    expect(page.locator(".notice")).to_contain_text("The nearest 300 of 401 nodes are drawn.")
    assert len(_ends(page)) == 300
    page.get_by_role("button", name="Show all of it").click()
    inside = page.locator(".board").bounding_box()
    frame = page.locator(".board-view").bounding_box()
    assert inside is not None
    assert frame is not None
    assert inside["width"] <= frame["width"] + 2


def test_a_node_that_nobody_told_of_says_where_to_go(shop_console: Console, told: Shop):
    page = shop_console.page
    page.goto(f"{shop_console.url}/console/sources/lineage?node=dataset:counterfoil:nobody")
    expect(page.get_by_text("Nothing is known of this node.")).to_be_visible()
    assert page.locator(".problem").count() == 0
    shop_console.complaints.clear()


@pytest.mark.parametrize("seed", range(3))
def test_no_two_boxes_of_a_drawing_overlap_and_edges_run_to_the_right_unless_in_a_circle(
    shop_console: Console, told: Shop, seed: int
):
    chance = random.Random(seed)
    graphs = []
    for _ in range(60):
        names = [f"n{number}" for number in range(chance.randrange(1, 25))]
        nodes = [{"id": name, "width": 100, "height": chance.randrange(20, 90)} for name in names]
        pairs = [sorted(chance.choices(range(len(names)), k=2)) for _ in range(chance.randrange(40))]
        edges = [{"source": names[a], "target": names[b]} for a, b in pairs if a != b]
        graphs.append([nodes, edges])
    page = shop_console.open("/console/sources/lineage")
    found = page.evaluate(
        "async graphs => { const {layers} = await import('/console/js/layers.js');"
        " return graphs.map(([nodes, edges]) => Object.fromEntries(layers(nodes, edges).places)) }",
        graphs,
    )
    for (nodes, edges), places in zip(graphs, found, strict=True):
        assert all(places[one["source"]]["x"] < places[one["target"]]["x"] for one in edges)
        boxes = [(places[one["id"]]["x"], places[one["id"]]["y"], one["height"]) for one in nodes]
        for index, (x, y, height) in enumerate(boxes):
            for other_x, other_y, other_height in boxes[:index]:
                apart = y >= other_y + other_height - 1e-6 or other_y >= y + height - 1e-6
                assert abs(x - other_x) >= 100 or apart
