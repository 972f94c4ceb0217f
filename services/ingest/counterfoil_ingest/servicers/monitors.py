"""MonitorService: what is watched of datasets, as it is; and what of it governance and watchers are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import incidents_pb2
from counterfoil.ingest.v1 import monitors_pb2 as pb
from counterfoil.ingest.v1.monitors_pb2_grpc import MonitorServiceServicer
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from counterfoil_ingest.monitoring import Monitoring, Watched
from counterfoil_ingest.monitors import ITSELF, Monitor, Origin, Result, Setting, State, Step
from counterfoil_ingest.plans import etag_of
from counterfoil_ingest.store import MonitorTransactions

_STATES: Final = {
    State.PENDING: pb.Monitor.PENDING,
    State.PASSING: pb.Monitor.PASSING,
    State.FAILING: pb.Monitor.FAILING,
    State.ERROR: pb.Monitor.ERROR,
    State.LEARNING: pb.Monitor.LEARNING,
}
_ORIGINS: Final = {
    Origin.CONTRACT: pb.Monitor.CONTRACT,
    Origin.DEFAULT: pb.Monitor.DEFAULT,
    Origin.CONFIGURED: pb.Monitor.CONFIGURED,
}
_DEFAULT_SEVERITY: Final = "warning"
_CHANGED: Final = (
    "property", "threshold", "owner", "severity", "schedule", "data_breaker", "auto_resume", "description", "enabled",
)  # fmt: skip

Context = grpc.aio.ServicerContext[Message, Message]


class MonitorServicer(MonitorServiceServicer):
    """Serves the monitors of the caller's workspace, and the held datasets of all to services."""

    def __init__(
        self,
        monitoring: Monitoring,
        transactions: MonitorTransactions,
        *,
        idempotency: Idempotency,
        feed: Feed,
        pager: Pager,
    ) -> None:
        self._monitoring = monitoring
        self._transactions = transactions
        self._idempotency = idempotency
        self._feed = feed
        self._pager = pager

    async def GetMonitor(self, request: pb.GetMonitorRequest, context: Context) -> pb.Monitor:
        """Return one monitor with its last results."""
        return await self._whole(self._monitoring.find(current_caller().workspace, request.monitor_id))

    async def ListMonitors(self, request: pb.ListMonitorsRequest, context: Context) -> pb.ListMonitorsResponse:
        """List the monitors of the workspace's datasets, by id."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListMonitors", workspace=workspace)
        after = page.after[0] if page.after else ""
        found = [
            each
            for each in self._monitoring.watched(workspace)
            if each.monitor.monitor_id > after
            and request.dataset in ("", each.monitor.dataset)
            and request.state in (pb.Monitor.STATE_UNSPECIFIED, each.monitor.state)
            and (each.monitor.held or not request.held_only)
        ]
        shown = found[: page.limit]
        answer = pb.ListMonitorsResponse(monitors=[monitor_message(each) for each in shown])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListMonitors", workspace=workspace, after=[shown[-1].monitor.monitor_id]
            )
        return answer

    async def CreateMonitor(self, request: pb.CreateMonitorRequest, context: Context) -> pb.Monitor:
        """Watch something more of a dataset."""
        caller = current_caller()
        setting = Setting(
            workspace=caller.workspace,
            dataset=request.dataset,
            name=request.name,
            metric=request.metric,
            property=request.property,
            threshold=request.threshold if request.HasField("threshold") else None,
            owner=request.owner,
            severity=request.severity or _DEFAULT_SEVERITY,
            schedule=request.schedule,
            data_breaker=request.data_breaker,
            auto_resume=request.auto_resume,
            description=request.description,
        )
        async with self._transactions.begin() as store:

            async def make() -> pb.Monitor:
                return monitor_message(await self._monitoring.create(store, setting, principal=caller.principal))

            return await self._idempotency.once(
                store.connection,
                request,
                method="CreateMonitor",
                workspace=caller.workspace,
                answer=pb.Monitor,
                make=make,
            )

    async def UpdateMonitor(self, request: pb.UpdateMonitorRequest, context: Context) -> pb.Monitor:
        """Set a monitor otherwise."""
        caller = current_caller()
        changed = {name: getattr(request, name) for name in _CHANGED if request.HasField(name)}
        updated = await self._monitoring.update(
            caller.workspace, request.monitor_id, etag=request.etag, principal=caller.principal, **changed
        )
        return await self._whole(updated)

    async def DeleteMonitor(self, request: pb.DeleteMonitorRequest, context: Context) -> pb.DeleteMonitorResponse:
        """Watch something no more."""
        caller = current_caller()
        await self._monitoring.delete(
            caller.workspace, request.monitor_id, etag=request.etag, principal=caller.principal
        )
        return pb.DeleteMonitorResponse()

    async def EvaluateMonitor(self, request: pb.EvaluateMonitorRequest, context: Context) -> pb.Monitor:
        """Evaluate one monitor now."""
        return await self._whole(await self._monitoring.evaluate(current_caller().workspace, request.monitor_id))

    async def ResumeMonitor(self, request: pb.ResumeMonitorRequest, context: Context) -> pb.Monitor:
        """End a monitor's incident and release what it holds."""
        caller = current_caller()
        resumed = await self._monitoring.resume(
            caller.workspace,
            request.monitor_id,
            reason=request.reason,
            accept_breach=request.accept_breach,
            principal=caller.principal,
        )
        return await self._whole(resumed)

    async def WatchHolds(self, request: pb.WatchHoldsRequest, context: Context) -> AsyncIterator[WatchResponse]:
        """Stream the datasets of every workspace that are held."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def _whole(self, watched: Watched) -> pb.Monitor:
        monitor = watched.monitor
        return monitor_message(watched, await self._monitoring.results(monitor.workspace, monitor.monitor_id))


def monitor_message(watched: Watched, results: Sequence[Result] = ()) -> pb.Monitor:
    """Return a monitor as callers see it."""
    promise, monitor, setting = watched.promise, watched.monitor, watched.setting
    return pb.Monitor(
        monitor_id=monitor.monitor_id,
        dataset=monitor.dataset,
        contract_id=monitor.contract_id,
        contract_version=monitor.contract_version,
        owner=monitor.owner,
        description=promise.description,
        severity=promise.severity,
        metric=promise.metric,
        property=promise.about,
        expectation=promise.expectation,
        schedule=promise.schedule,
        data_breaker=promise.data_breaker,
        auto_resume=promise.auto_resume,
        state=_STATES[monitor.state],
        held=monitor.held,
        incident_id=monitor.incident_id,
        failing_since=_time(monitor.failing_since),
        evaluated_at=_time(monitor.evaluated_at),
        next_evaluation_at=to_timestamp(watched.next_at) if setting is None or setting.enabled else None,
        measured=monitor.measured,
        unit=promise.unit,
        detail=monitor.detail,
        results=[_result(each) for each in results],
        origin=_ORIGINS[promise.origin],
        threshold=setting.threshold if setting else None,
        enabled=setting is None or setting.enabled,
        etag=etag_of(setting) if setting else "",
    )


def hold_message(monitor: Monitor) -> pb.Hold:
    """Return what a monitor holds or finds broken, as services see it."""
    return pb.Hold(
        workspace=monitor.workspace,
        dataset=monitor.dataset,
        monitor_id=monitor.monitor_id,
        incident_id=monitor.incident_id,
        detail=monitor.detail,
        since=_time(monitor.opened_at or monitor.failing_since),
        recovered_at=_time(monitor.recovered_at),
        held=monitor.held,
        metric=monitor.metric,
        days=monitor.days,
    )


def report_message(step: Step, now: datetime) -> incidents_pb2.ReportIncidentRequest:
    """Return what governance is told of a step: how its incident is, or how it ended."""
    monitor, over = step.after, dict[str, Any]()
    if step.ended is not None:
        monitor = step.before
        over = {
            "resolved_at": to_timestamp(now),
            "resolved_by": step.ended.by,
            "reason": step.ended.reason,
            "breach_accepted": step.ended.accepted,
        }
    return incidents_pb2.ReportIncidentRequest(incident=_incident(monitor, detail=step.after.detail, **over))


def disowned_message(workspace: str, incident_id: str, now: datetime) -> incidents_pb2.ReportIncidentRequest:
    """Return what governance is told of an incident that no monitor knows."""
    incident = incidents_pb2.Incident(
        workspace=workspace,
        incident_id=incident_id,
        resolved_at=to_timestamp(now),
        resolved_by=ITSELF,
        reason="No monitor knows of it any more.",
    )
    return incidents_pb2.ReportIncidentRequest(incident=incident)


def _incident(monitor: Monitor, *, detail: str, **over: Any) -> incidents_pb2.Incident:
    return incidents_pb2.Incident(
        workspace=monitor.workspace,
        incident_id=monitor.incident_id,
        resource=f"monitors/{monitor.monitor_id}",
        dataset=monitor.dataset,
        contract_id=monitor.contract_id,
        contract_version=monitor.contract_version,
        owner=monitor.owner,
        severity=monitor.severity,
        summary=monitor.promised,
        detail=detail,
        holds_data=monitor.held,
        opened_at=_time(monitor.opened_at),
        recovered_at=_time(monitor.recovered_at),
        **over,
    )


def _result(result: Result) -> pb.MonitorResult:
    return pb.MonitorResult(
        evaluated_at=to_timestamp(result.evaluated_at),
        state=_STATES[result.state],
        measured=result.measured,
        detail=result.detail,
    )


def _time(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else to_timestamp(moment)
