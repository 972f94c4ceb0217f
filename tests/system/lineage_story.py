"""A request for every public method of lineage, about events that a scheduler sent by OpenLineage's route."""

from __future__ import annotations

from typing import Any

from counterfoil.contracts.v1 import lineage_pb2

from tests.system.story import Step, World

NAMESPACE = "nightly"
_PRODUCER = "https://example.com/scheduler"


def nightly_event(job: str, *, reads: str, writes: str, made_of: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the event that a nightly job read one dataset and wrote another, with what its fields are made of."""
    facets: dict[str, Any] = {}
    if made_of is not None:
        facets["columnLineage"] = {
            "_producer": _PRODUCER,
            "_schemaURL": "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json",
            "fields": {
                field: {"inputFields": [{"namespace": NAMESPACE, "name": reads, "field": origin}]}
                for field, origin in made_of.items()
            },
        }
    return {
        "eventType": "COMPLETE",
        "eventTime": "2025-06-01T03:00:00Z",
        "producer": _PRODUCER,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": "0197227a-0000-4000-8000-000000000001"},
        "job": {"namespace": NAMESPACE, "name": job},
        "inputs": [{"namespace": NAMESPACE, "name": reads}],
        "outputs": [{"namespace": NAMESPACE, "name": writes, "facets": facets}],
    }


def _send_event(world: World) -> None:
    told = nightly_event("load", reads="orders", writes="revenue", made_of={"total": "net"})
    assert world.tenant.http.post("/api/v1/lineage", json=told).status_code == 201


LINEAGE_STORY: dict[str, Step] = {
    "LineageService/GetLineage": Step(
        lambda w: lineage_pb2.GetLineageRequest(node_id=f"job:{NAMESPACE}:load"), before=_send_event
    ),
    "LineageService/GetColumnLineage": Step(
        lambda w: lineage_pb2.GetColumnLineageRequest(namespace=NAMESPACE, dataset="orders", field="net")
    ),
    "LineageService/GetImpact": Step(
        lambda w: lineage_pb2.GetImpactRequest(namespace=NAMESPACE, dataset="orders", fields=["net"])
    ),
    "LineageService/ListLineageNodes": Step(lambda w: lineage_pb2.ListLineageNodesRequest(namespace=NAMESPACE)),
    "LineageService/AnalyzeSql": Step(
        lambda w: lineage_pb2.AnalyzeSqlRequest(sql="INSERT INTO daily SELECT sum(amount) AS total FROM sales")
    ),
}
"""`Service/Method` to its question, in order."""
