"""ReconciliationService: translate, delegate, translate back."""

from __future__ import annotations

from typing import Final

import grpc
from counterfoil.ingest.v1 import reconciliations_pb2 as pb
from counterfoil.ingest.v1.reconciliations_pb2_grpc import ReconciliationServiceServicer
from counterfoil_chassis.clock import Clock, from_timestamp, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_ingest.errors import TotalInvalidError
from counterfoil_ingest.monitoring import Monitoring
from counterfoil_ingest.plans import Plans
from counterfoil_ingest.read_errors import DatasetNotFoundError
from counterfoil_ingest.reconciling import Reconciling
from counterfoil_ingest.store import ReconciliationTransactions
from counterfoil_ingest.totals import Reconciliation, State, Total

_STATES: Final = {
    State.WAITING: pb.Reconciliation.WAITING,
    State.MATCHED: pb.Reconciliation.MATCHED,
    State.GAP: pb.Reconciliation.GAP,
    State.ERROR: pb.Reconciliation.ERROR,
}

Context = grpc.aio.ServicerContext[Message, Message]


class ReconciliationServicer(ReconciliationServiceServicer):
    """Serves the totals that are reported of the caller's workspace."""

    def __init__(
        self,
        reconciling: Reconciling,
        transactions: ReconciliationTransactions,
        *,
        monitoring: Monitoring,
        plans: Plans,
        pager: Pager,
        clock: Clock,
    ) -> None:
        self._reconciling = reconciling
        self._transactions = transactions
        self._monitoring = monitoring
        self._plans = plans
        self._pager = pager
        self._clock = clock

    async def ReportTotals(self, request: pb.ReportTotalsRequest, context: Context) -> pb.ReportTotalsResponse:
        """Keep totals and compare them; the dataset's monitor tells of a gap."""
        caller = current_caller()
        totals = [total_of(each) for each in request.totals]
        dataset = totals[0].dataset
        if any(each.dataset != dataset for each in totals):
            raise TotalInvalidError("One request reports totals of one dataset. Send one for each.")
        if not self._plans.knows(caller.workspace, dataset):
            raise DatasetNotFoundError(
                f"There is no dataset `{dataset}`. List the datasets, or activate a contract for it.",
                metadata={"dataset": dataset},
            )
        subject = self._plans.subject(caller.workspace, dataset)
        await self._reconciling.report(subject, totals, now=self._clock.now(), principal=caller.principal)
        await self._monitoring.evaluate_totals(caller.workspace, dataset)
        async with self._transactions.read() as store:
            found = await store.get(caller.workspace, [each.identity for each in totals])
        by_id = {each.reconciliation_id: each for each in found}
        kept = [by_id[each.identity] for each in totals if each.identity in by_id]
        return pb.ReportTotalsResponse(reconciliations=[_message(each) for each in kept])

    async def ListReconciliations(
        self, request: pb.ListReconciliationsRequest, context: Context
    ) -> pb.ListReconciliationsResponse:
        """List the totals of the caller's workspace, the newest day first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListReconciliations", workspace=workspace)
        day, last = page.after or ("", "")
        state = State(request.state) if request.state else None
        async with self._transactions.read() as store:
            found = await store.list(
                workspace, dataset=request.dataset, state=state, after=(day, last), limit=page.limit + 1
            )
        shown = found[: page.limit]
        answer = pb.ListReconciliationsResponse(reconciliations=[_message(each) for each in shown])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request,
                method="ListReconciliations",
                workspace=workspace,
                after=[shown[-1].total.day, shown[-1].reconciliation_id],
            )
        return answer

    async def DeleteReconciliation(
        self, request: pb.DeleteReconciliationRequest, context: Context
    ) -> pb.DeleteReconciliationResponse:
        """Withdraw a total."""
        caller = current_caller()
        dataset = await self._reconciling.withdraw(
            caller.workspace, request.reconciliation_id, principal=caller.principal
        )
        await self._monitoring.evaluate_totals(caller.workspace, dataset)
        return pb.DeleteReconciliationResponse()


def total_of(message: pb.ReportedTotal) -> Total:
    """Return a total as it is reported."""
    return Total(
        dataset=message.dataset,
        day=message.day,
        reported=message.reported,
        day_property=message.day_property,
        source_id=message.source_id,
        match=tuple(sorted(message.match.items())),
        sum_of=message.sum_of,
        tolerance_percent=message.tolerance_percent,
        reported_by=message.reported_by,
        judge_after=from_timestamp(message.judge_after) if message.HasField("judge_after") else None,
    )


def _message(each: Reconciliation) -> pb.Reconciliation:
    total = each.total
    return pb.Reconciliation(
        reconciliation_id=each.reconciliation_id,
        total=pb.ReportedTotal(
            dataset=total.dataset,
            day=total.day,
            day_property=total.day_property,
            source_id=total.source_id,
            match=dict(total.match),
            sum_of=total.sum_of,
            reported=total.reported,
            tolerance_percent=total.tolerance_percent,
            reported_by=total.reported_by,
            judge_after=to_timestamp(total.judge_after) if total.judge_after else None,
        ),
        state=_STATES[each.state],
        received=each.received,
        detail=each.detail,
        reported_at=to_timestamp(each.reported_at),
        compared_at=to_timestamp(each.compared_at) if each.compared_at else None,
    )
