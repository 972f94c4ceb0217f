"""OpenLineage events as producers send them, and who sends them to a running contracts service."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil.contracts.v1.lineage_pb2_grpc import LineageServiceStub

from tests.contracts.calls import Contracts

PRODUCER = "https://example.com/jobs"
SPEC = "https://openlineage.io/spec"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAREHOUSE = "postgres://warehouse:5432"
THREE_CTES = """
INSERT INTO marts.customer_value (customer_id, region, order_count, revenue, last_order_at, revenue_rank)
WITH orders AS (
  SELECT o.customer_id, o.id AS order_id, o.amount - COALESCE(o.discount, 0) AS net, o.created_at
  FROM raw.orders o WHERE o.status <> 'cancelled'
), stats AS (
  SELECT customer_id, COUNT(order_id) AS order_count, SUM(net) AS revenue, MAX(created_at) AS last_order_at
  FROM orders GROUP BY customer_id
), joined AS (
  SELECT c.region, s.* FROM stats s JOIN raw.customers c USING (customer_id)
)
SELECT customer_id, region, order_count, revenue, last_order_at,
       RANK() OVER (PARTITION BY region ORDER BY revenue DESC) AS revenue_rank
FROM joined
"""
"""A statement in which a CTE shadows a table, with `s.*`, USING and a window: six columns."""


def moment(hours: float) -> datetime:
    """Return the time so many hours after the beginning."""
    return START + timedelta(hours=hours)


def facet(kind: str, **values: Any) -> dict[str, Any]:
    """Return a facet with what every facet has."""
    return {"_producer": PRODUCER, "_schemaURL": f"{SPEC}/facets/1-0-0/{kind}.json", **values}


def dataset(name: str, *, namespace: str = WAREHOUSE, fields: Sequence[str] = (), **facets: Any) -> dict[str, Any]:
    """Return a dataset of an event."""
    if fields:
        listed = [{"name": field, "type": "VARCHAR"} for field in fields]
        facets["schema"] = facet("SchemaDatasetFacet", fields=listed)
    return {"namespace": namespace, "name": name, "facets": facets}


def made_of(**fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the facet that says which (dataset, field) of the warehouse each field is made of."""
    return facet(
        "ColumnLineageDatasetFacet",
        fields={
            field: {
                "inputFields": [{"namespace": WAREHOUSE, "name": name, "field": column} for name, column in origins]
            }
            for field, origins in fields.items()
        },
    )


def event(
    job: str,
    *,
    at: float = 0,
    state: str | None = "COMPLETE",
    inputs: Sequence[dict[str, Any]] = (),
    outputs: Sequence[dict[str, Any]] = (),
    run: uuid.UUID | None = None,
    run_facets: dict[str, Any] | None = None,
    job_facets: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a RunEvent, or a JobEvent when `state` is None."""
    told: dict[str, Any] = {
        "eventTime": moment(at).isoformat(),
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json",
        "job": {"namespace": "nightly", "name": job, "facets": job_facets or {}},
        "inputs": list(inputs),
        "outputs": list(outputs),
    }
    if state is not None:
        run_id = str(run or uuid.uuid5(uuid.NAMESPACE_URL, f"{job} {at}"))
        told |= {"eventType": state, "run": {"runId": run_id, "facets": run_facets or {}}}
    return told


class Lineage:
    """Sends events to a running contracts service and asks it."""

    def __init__(self, contracts: Contracts) -> None:
        self.contracts = contracts
        self.stub = LineageServiceStub(contracts.channel)

    async def tell(self, *events: dict[str, Any], workspace: str = "default") -> list[pb.LineageResult]:
        """Send events as a principal does; return what became of each."""
        request = pb.EmitLineageRequest(events=[pb.LineageEvent(event=orjson.dumps(each)) for each in events])
        answer = await self.stub.EmitLineage(request, **self.contracts.as_principal(workspace))
        return list(answer.results)

    async def kept(self, *events: dict[str, Any], workspace: str = "default") -> None:
        """Send events that must be kept."""
        results = await self.tell(*events, workspace=workspace)
        assert [each.reason for each in results] == [""] * len(events), results

    async def graph(self, node_id: str, *, workspace: str = "default", **question: Any) -> pb.LineageGraph:
        """Walk from a node."""
        request = pb.GetLineageRequest(node_id=node_id, **question)
        return await self.stub.GetLineage(request, **self.contracts.as_principal(workspace))

    async def columns(self, name: str, field: str = "", **question: Any) -> pb.ColumnLineage:
        """Walk from a field of a dataset of the warehouse."""
        request = pb.GetColumnLineageRequest(namespace=WAREHOUSE, dataset=name, field=field, **question)
        return await self.stub.GetColumnLineage(request, **self.contracts.as_principal())

    async def impact(self, name: str, *fields: str, **question: Any) -> pb.Impact:
        """Ask what a change of a dataset of the warehouse reaches."""
        request = pb.GetImpactRequest(**{"namespace": WAREHOUSE, "dataset": name, "fields": fields, **question})
        return await self.stub.GetImpact(request, **self.contracts.as_principal())


def edges(graph: pb.LineageGraph) -> set[tuple[str, str]]:
    """Return the edges by the last parts of their ends' names."""
    return {(each.source.rpartition(":")[2], each.target.rpartition(":")[2]) for each in graph.edges}


def links(lineage: pb.ColumnLineage) -> set[tuple[str, str]]:
    """Return the column edges as `dataset.field`."""
    return {
        (f"{each.source.dataset}.{each.source.field}", f"{each.target.dataset}.{each.target.field}")
        for each in lineage.edges
    }


def reached(impact: pb.Impact) -> dict[str, list[str]]:
    """Return the fields of each thing a change reaches, by name and version."""
    return {f"{item.name}@{item.version}" if item.version else item.name: list(item.fields) for item in impact.items}
