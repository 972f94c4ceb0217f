"""Lineage through the gateway: OpenLineage's own client, Marquez's reads, and what our services tell of themselves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openlineage.client import OpenLineageClient, event_v2
from openlineage.client.facet_v2 import column_lineage_dataset, schema_dataset, sql_job
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpCompression, HttpConfig, HttpTransport

from tests.contracts.lineage_world import THREE_CTES
from tests.system.installation import until
from tests.system.lineage_story import nightly_event
from tests.system.story import MODEL, World
from tests.system.tenant import Tenant, ok, problem

RUN = "0197227a-1111-4000-8000-000000000001"
WAREHOUSE = "postgres://warehouse:5432"
PRODUCER = "https://example.com/scheduler"


def client_of(tenant: Tenant, *, compression: HttpCompression | None = None) -> OpenLineageClient:
    """Return OpenLineage's client as anybody configures it."""
    config = HttpConfig(
        url=tenant.installation.url,
        auth=ApiKeyTokenProvider({"apiKey": tenant.key}),
        compression=compression,
    )
    return OpenLineageClient(transport=HttpTransport(config))


def run_event(job: str, *, at: str, state: event_v2.RunState, sql: str = "", **data: Any) -> event_v2.RunEvent:
    """Return an event as the client's users build it."""
    facets: dict[str, Any] = {"sql": sql_job.SQLJobFacet(query=sql)} if sql else {}
    return event_v2.RunEvent(
        eventTime=at,
        eventType=state,
        run=event_v2.Run(runId=RUN),
        job=event_v2.Job(namespace="airflow", name=job, facets=facets),
        producer=PRODUCER,
        **data,
    )


@pytest.fixture(scope="module")
def emitted(tenant: Tenant) -> Tenant:
    """A workspace to which the unmodified client sent a run, a job and a dataset."""
    client = client_of(tenant)
    orders = event_v2.InputDataset(WAREHOUSE, "raw.orders")
    customers = event_v2.InputDataset(WAREHOUSE, "raw.customers")
    value = event_v2.OutputDataset(WAREHOUSE, "marts.customer_value")
    client.emit(run_event("value", at="2025-06-01T03:00:00Z", state=event_v2.RunState.START, sql=THREE_CTES))
    client.emit(
        run_event(
            "value",
            at="2025-06-01T03:05:00Z",
            state=event_v2.RunState.COMPLETE,
            sql=THREE_CTES,
            inputs=[orders, customers],
            outputs=[value],
        )
    )
    told = column_lineage_dataset.ColumnLineageDatasetFacet(
        fields={
            "best": column_lineage_dataset.Fields(
                inputFields=[column_lineage_dataset.InputField(WAREHOUSE, "marts.customer_value", "revenue_rank")]
            )
        }
    )
    board = event_v2.OutputDataset(WAREHOUSE, "board", facets={"columnLineage": told})
    client.emit(
        event_v2.JobEvent(
            eventTime="2025-06-01T04:00:00Z",
            job=event_v2.Job("airflow", "report"),
            producer=PRODUCER,
            inputs=[event_v2.InputDataset(WAREHOUSE, "marts.customer_value")],
            outputs=[board],
        )
    )
    fields = [
        schema_dataset.SchemaDatasetFacetFields("id", "BIGINT"),
        schema_dataset.SchemaDatasetFacetFields("amount"),
    ]
    schema = schema_dataset.SchemaDatasetFacet(fields=fields)
    client_of(tenant, compression=HttpCompression.GZIP).emit(
        event_v2.DatasetEvent(
            eventTime="2025-06-01T02:00:00Z",
            dataset=event_v2.StaticDataset(WAREHOUSE, "raw.orders", facets={"schema": schema}),
            producer=PRODUCER,
        )
    )
    return tenant


def columns(tenant: Tenant, **asked: str) -> set[tuple[str, str]]:
    """Return column edges as `dataset.field`."""
    found = ok(tenant.http.get("/v1/lineage/columns", params={"namespace": WAREHOUSE, **asked}))
    return {
        (f"{each['source']['dataset']}.{each['source']['field']}", each["target"].get("field", ""))
        for each in found["edges"]
    }


def test_the_sql_of_a_job_tells_every_column_of_the_three_cte_insert(emitted: Tenant):
    found = columns(emitted, dataset="marts.customer_value", direction="UPSTREAM")
    direct = {field: {origin for origin, target in found if target == field} for _, field in found if field}
    assert direct == {
        "customer_id": {"raw.orders.customer_id"},
        "region": {"raw.customers.region"},
        "order_count": {"raw.orders.id"},
        "revenue": {"raw.orders.amount", "raw.orders.discount"},
        "last_order_at": {"raw.orders.created_at"},
        "revenue_rank": {"raw.customers.region", "raw.orders.amount", "raw.orders.discount"},
    }
    assert {origin for origin, target in found if not target} == {
        "raw.orders.status",
        "raw.orders.customer_id",
        "raw.customers.customer_id",
    }


def test_a_dataset_that_says_it_of_itself_has_its_schema(emitted: Tenant):
    path = f"/api/v1/namespaces/{quote(WAREHOUSE, safe='')}/datasets/raw.orders"
    dataset = ok(emitted.http.get(path))
    assert [(field["name"], field["type"]) for field in dataset["fields"]] == [("id", "BIGINT"), ("amount", None)]
    versions = ok(emitted.http.get(f"{path}/versions"))
    assert dataset["currentVersion"] in {version["version"] for version in versions["versions"]}
    one = ok(emitted.http.get(f"{path}/versions/{dataset['currentVersion']}"))
    assert one["fields"] == dataset["fields"]


def test_marquezs_readers_find_runs_jobs_and_graphs(emitted: Tenant):
    http = emitted.http
    assert {each["name"] for each in ok(http.get("/api/v1/namespaces"))["namespaces"]} >= {"airflow", WAREHOUSE}
    job = ok(http.get("/api/v1/namespaces/airflow/jobs/value"))
    assert job["latestRun"]["state"] == "COMPLETED"
    assert job["latestRun"]["durationMs"] == 300_000
    assert {each["name"] for each in job["inputs"]} == {"raw.orders", "raw.customers"}
    [run] = ok(http.get("/api/v1/namespaces/airflow/jobs/value/runs"))["runs"]
    assert ok(http.get(f"/api/v1/jobs/runs/{run['id']}"))["outputDatasetVersions"][0]["datasetVersionId"]["name"] == (
        "marts.customer_value"
    )
    facets = ok(http.get(f"/api/v1/jobs/runs/{run['id']}/facets", params={"type": "job"}))
    assert facets["facets"]["sql"]["query"] == THREE_CTES
    graph = ok(http.get("/api/v1/lineage", params={"nodeId": "job:airflow:value", "depth": 20}))["graph"]
    nodes = {node["id"]: node for node in graph}
    assert {"origin": "job:airflow:value", "destination": f"dataset:{WAREHOUSE}:marts.customer_value"} in (
        nodes["job:airflow:value"]["outEdges"]
    )
    assert f"dataset:{WAREHOUSE}:board" in nodes
    wanted = {"nodeId": f"datasetField:{WAREHOUSE}:board:best", "depth": 20}
    fields = ok(http.get("/api/v1/column-lineage", params=wanted))["graph"]
    assert f"datasetField:{WAREHOUSE}:raw.orders:amount" in {node["id"] for node in fields}
    found = ok(http.get("/api/v1/search", params={"q": "customer_val", "filter": "dataset"}))
    assert [each["name"] for each in found["results"]] == ["marts.customer_value"]
    events = ok(
        http.get("/api/v1/events/lineage", params={"after": "2025-06-01T03:01:00Z", "before": "2025-06-01T03:30:00Z"})
    )
    assert [each["eventType"] for each in events["events"]] == ["COMPLETE"]
    assert len(ok(http.get("/api/v1/stats/lineage-events", params={"period": "WEEK"}))) in (7, 8)


def test_a_batch_says_which_events_were_refused_and_why(tenant: Tenant):
    good = nightly_event("batch", reads="a", writes="b")
    answer = ok(tenant.http.post("/api/v1/lineage/batch", json=[good, {"eventTime": "now"}]))
    assert answer["status"] == "partial_success"
    assert answer["summary"]["successful"] == 1
    [failed] = answer["failed_events"]
    assert failed["index"] == 1
    assert failed["reason"].startswith("EVENT_INVALID: $")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "BAD_JSON"),
        (b"[]", 400, "EVENT_INVALID"),
        (b"[" * 100 + b"]" * 100, 400, "BODY_TOO_DEEP"),
        (
            json.dumps({**nightly_event("x", reads="a", writes="b"), "eventTime": "yesterday"}).encode(),
            400,
            "EVENT_INVALID",
        ),
        (json.dumps(nightly_event("x", reads="a" * 5000, writes="b")).encode(), 400, "NAME_INVALID"),
        (json.dumps(nightly_event("x", reads="a\0", writes="b")).encode(), 400, "NAME_INVALID"),
        (
            json.dumps({**nightly_event("x", reads="a", writes="b"), "note": "x" * (5 << 20)}).encode(),
            413,
            "BODY_TOO_LARGE",
        ),
    ],
    ids=["not JSON", "no event", "too deep", "no time", "long name", "NUL", "5 MB"],
)
def test_what_is_no_event_is_refused_with_its_reason(tenant: Tenant, body: bytes, status: int, reason: str):
    answer = tenant.http.post("/api/v1/lineage", content=body, headers={"content-type": "application/json"})
    assert problem(answer, status=status)["reason"] == reason


def test_a_gzip_bomb_is_refused(tenant: Tenant):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = tenant.http.post("/api/v1/lineage", content=gzip.compress(b" " * (1 << 26)), headers=headers)
    assert problem(answer, status=413)["reason"] == "BODY_TOO_LARGE"


def test_a_key_that_may_only_read_emits_nothing(tenant: Tenant):
    key = ok(tenant.http.post("/v1/keys", json={"principal_id": "admin", "scopes": ["contracts.read"]}))["api_key"]
    with tenant.installation.http(key) as client:
        answer = client.post("/api/v1/lineage", json=nightly_event("x", reads="a", writes="b"))
        assert problem(answer, status=403)["reason"] == "SCOPE_MISSING"
        ok(client.get("/api/v1/namespaces"))


def _impact(http: httpx.Client, **asked: Any) -> dict[str, Any]:
    return ok(http.get("/v1/impact", params={"dataset": "sales", **asked}))


def _when(done: Callable[[dict[str, Any]], bool], http: httpx.Client, **asked: Any) -> dict[str, Any]:
    """Return the impact once what the services tell has come."""

    def ask() -> dict[str, Any] | None:
        found = _impact(http, **asked)
        return found if done(found) else None

    return until(ask, seconds=60, what="the impact is not complete")


def test_the_impact_of_a_field_is_told_down_to_model_version_audience_and_receipts(worlds: tuple[World, World]):
    http = worlds[0].tenant.http
    audience = nightly_event("audience", reads="x", writes="vip")
    audience["inputs"] = [{"namespace": "counterfoil", "name": f"models/{MODEL}"}]
    audience["outputs"][0]["facets"] = {
        "datasetType": {"_producer": PRODUCER, "_schemaURL": f"{PRODUCER}/x.json", "datasetType": "AUDIENCE"}
    }
    audience["run"] = {"runId": RUN}
    assert http.post("/api/v1/lineage", json=audience).status_code == 201
    wanted = {
        ("MODEL_VERSION", f"models/{MODEL}"),
        ("AUDIENCE", "vip"),
        ("DATASET", f"forecasts/{MODEL}"),
        ("JOB", f"train/{MODEL}"),
    }

    def told(impact: dict[str, Any]) -> bool:
        return bool(impact.get("receipts")) and wanted <= {(item["kind"], item["name"]) for item in impact["items"]}

    found = _when(told, http, fields="amount")
    receipt = found["receipts"][0]["receipt_id"]
    assert ok(http.get(f"/v1/receipts/{receipt}"))["receipt_id"] == receipt
    assert not any(item["name"] == f"models/{MODEL}" for item in _impact(http, fields="note").get("items", []))


def test_the_import_and_the_lake_tell_where_a_dataset_comes_from(worlds: tuple[World, World]):
    http = worlds[0].tenant.http

    def ask() -> dict[str, Any] | None:
        wanted = {"node_id": "dataset:counterfoil:sales", "direction": "UPSTREAM"}
        answer = http.get("/v1/lineage", params=wanted)
        if answer.status_code != 200:
            return None
        names = {node["name"] for node in answer.json()["nodes"]}
        imported = any(name.endswith(".csv") for name in names)  # the file of the newest import
        [sales] = [node for node in answer.json()["nodes"] if node["node_id"] == "dataset:counterfoil:sales"]
        described = {"sold_at", "shop", "amount"} <= {field["name"] for field in sales["fields"]}
        return answer.json() if imported and described and {"import/sales", "lake/sales"} <= names else None

    until(ask, seconds=60, what="imports and lake were not told")


def test_the_graph_tells_which_fields_its_mappings_read(worlds: tuple[World, World]):
    http = worlds[0].tenant.http

    def ask() -> set[str] | None:
        answer = http.get("/v1/impact", params={"dataset": "events", "fields": "user_id"})
        names = {item["name"] for item in answer.json().get("items", [])} if answer.status_code == 200 else set()
        return names if "graph/persons" in names else None

    assert "graph/journeys" in until(ask, seconds=60, what="the graph was not told")
