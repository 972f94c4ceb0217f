"""Two promises that are broken: one incident is ended where it was noticed, one where incidents are kept.

Then something more is watched, and a total is reported.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from counterfoil.governance.v1 import incidents_pb2
from counterfoil.ingest.v1 import monitors_pb2, reconciliations_pb2

from tests.system.installation import until
from tests.system.story import Step, World
from tests.system.tenant import ok

STOCK = """
apiVersion: v3.1.0
kind: DataContract
id: shop-stock
name: Stock
version: 1.0.0
status: active
team: {name: Warehouse}
schema:
  - name: stock
    logicalType: object
    properties:
      - {name: message_id, logicalType: string, required: true}
      - {name: item, logicalType: string}
    quality:
      - metric: rowCount
        mustBeGreaterThan: 0
        description: There is something in stock.
        severity: error
        scheduler: cron
        schedule: 0 0 1 1 *
        customProperties:
          - {property: dataBreaker, value: true}
      - name: items
        type: sql
        query: SELECT count(DISTINCT item) FROM {object}
        mustBeGreaterOrEqualTo: 2
        scheduler: cron
        schedule: 0 0 1 1 *
"""
HELD, NOTED = "stock.rowCount", "stock.items"
NEVER = "0 0 1 1 *"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()


def _promise(world: World) -> None:
    """Put the contract in force and break one of its promises."""
    world.tenant.activate(STOCK)

    def known() -> bool | None:
        return True if world.tenant.http.get(f"/v1/monitors/{NOTED}").status_code == 200 else None

    until(known, seconds=60, what="nobody watches the contract's promises")
    ok(world.tenant.http.post(f"/v1/monitors/{NOTED}:evaluate", json={}))


def _incident(world: World, monitor_id: str) -> dict[str, Any]:
    """Return a monitor's incident once governance has it."""

    def opened() -> dict[str, Any] | None:
        found = ok(world.tenant.http.get("/v1/incidents"))["incidents"]
        return next((each for each in found if each["resource"] == f"monitors/{monitor_id}"), None)

    return until(opened, seconds=60, what=f"{monitor_id} opened no incident")


def _wait_for_ends(world: World) -> None:
    def over() -> bool | None:
        incidents = ok(world.tenant.http.get("/v1/incidents", params={"dataset": "stock"}))["incidents"]
        monitors = ok(world.tenant.http.get("/v1/monitors", params={"dataset": "stock"}))["monitors"]
        ended = all(each["state"] == "RESOLVED" for each in incidents)
        return True if ended and not any(each["incident_id"] for each in monitors) else None

    until(over, seconds=60, what="the incidents have not ended on both sides")


def _total(**values: Any) -> reconciliations_pb2.ReportedTotal:
    """Return a total of nothing, which is what is in stock."""
    return reconciliations_pb2.ReportedTotal(dataset="stock", day=YESTERDAY, **values)


def _reported(world: World) -> str:
    return str(world.answers["ReconciliationService/ReportTotals"]["reconciliations"][1]["reconciliation_id"])


MONITORS_STORY: dict[str, Step] = {
    "MonitorService/EvaluateMonitor": Step(
        lambda w: monitors_pb2.EvaluateMonitorRequest(monitor_id=HELD), before=_promise
    ),
    "IncidentService/AcknowledgeIncident": Step(
        lambda w: incidents_pb2.AcknowledgeIncidentRequest(
            incident_id=_incident(w, NOTED)["incident_id"], note="I call the warehouse"
        )
    ),
    "IncidentService/ResolveIncident": Step(
        lambda w: incidents_pb2.ResolveIncidentRequest(
            incident_id=_incident(w, NOTED)["incident_id"], reason="one item is enough", accept_breach=True
        )
    ),
    "MonitorService/ResumeMonitor": Step(
        lambda w: monitors_pb2.ResumeMonitorRequest(monitor_id=HELD, reason="it is sold out", accept_breach=True),
        before=lambda w: _incident(w, HELD),
    ),
    "MonitorService/GetMonitor": Step(lambda w: monitors_pb2.GetMonitorRequest(monitor_id=HELD), before=_wait_for_ends),
    "MonitorService/ListMonitors": Step(lambda w: monitors_pb2.ListMonitorsRequest(dataset="stock")),
    "IncidentService/GetIncident": Step(
        lambda w: incidents_pb2.GetIncidentRequest(incident_id=_incident(w, HELD)["incident_id"])
    ),
    "IncidentService/ListIncidents": Step(lambda w: incidents_pb2.ListIncidentsRequest(dataset="stock")),
    "MonitorService/CreateMonitor": Step(
        lambda w: monitors_pb2.CreateMonitorRequest(
            dataset="stock", name="soon", metric="delay", threshold=60, schedule=NEVER, request_id="soon"
        )
    ),
    "MonitorService/UpdateMonitor": Step(
        lambda w: monitors_pb2.UpdateMonitorRequest(monitor_id="stock.soon", severity="error", data_breaker=True)
    ),
    "MonitorService/DeleteMonitor": Step(lambda w: monitors_pb2.DeleteMonitorRequest(monitor_id="stock.soon")),
    "ReconciliationService/ReportTotals": Step(
        lambda w: reconciliations_pb2.ReportTotalsRequest(
            totals=[_total(reported_by="warehouse"), _total(match={"item": "mug"}, reported_by="shop")]
        )
    ),
    "ReconciliationService/DeleteReconciliation": Step(
        lambda w: reconciliations_pb2.DeleteReconciliationRequest(reconciliation_id=_reported(w))
    ),
    "ReconciliationService/ListReconciliations": Step(
        lambda w: reconciliations_pb2.ListReconciliationsRequest(dataset="stock")
    ),
}
"""`Service/Method` to its question, in order."""
