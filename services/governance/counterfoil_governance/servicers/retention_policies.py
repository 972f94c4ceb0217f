"""RetentionPolicyService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import retention_policies_pb2 as pb
from counterfoil.governance.v1.retention_policies_pb2_grpc import RetentionPolicyServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import retention
from counterfoil_governance.entities import RetentionPolicy, RetentionReport
from counterfoil_governance.messages import retention_policy_message
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class RetentionPolicyServicer(RetentionPolicyServiceServicer):
    """Serves the retention policies of the caller's workspace, and those of all to the service that erases."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        feed: Feed,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def SetRetentionPolicy(self, request: pb.SetRetentionPolicyRequest, context: Context) -> pb.RetentionPolicy:
        """Set the policy of a dataset."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="SetRetentionPolicy",
                workspace=caller.workspace,
                answer=pb.RetentionPolicy,
                make=lambda: self._set(stores, request, caller=caller),
            )

    async def GetRetentionPolicy(self, request: pb.GetRetentionPolicyRequest, context: Context) -> pb.RetentionPolicy:
        """Return the policy of a dataset."""
        async with self._transactions.read() as stores:
            return retention_policy_message(await retention.get(stores, current_caller().workspace, request.dataset))

    async def ListRetentionPolicies(
        self, request: pb.ListRetentionPoliciesRequest, context: Context
    ) -> pb.ListRetentionPoliciesResponse:
        """List the workspace's policies by dataset."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListRetentionPolicies", workspace=workspace)
        async with self._transactions.read() as stores:
            found = await stores.retention_policies.list(
                workspace, after=page.after[0] if page.after else "", limit=page.limit + 1
            )
        shown = found[: page.limit]
        answer = pb.ListRetentionPoliciesResponse(retention_policies=map(retention_policy_message, shown))
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListRetentionPolicies", workspace=workspace, after=[shown[-1].dataset]
            )
        return answer

    async def DeleteRetentionPolicy(
        self, request: pb.DeleteRetentionPolicyRequest, context: Context
    ) -> pb.DeleteRetentionPolicyResponse:
        """Delete the policy of a dataset."""
        recorder = self._recorder(current_caller().workspace)
        async with self._transactions.begin() as stores:
            await retention.delete(stores, request.dataset, etag=request.etag, recorder=recorder)
        return pb.DeleteRetentionPolicyResponse()

    async def WatchRetentionPolicies(
        self, request: pb.WatchRetentionPoliciesRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream every workspace's policies."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def ReportRetention(self, request: pb.ReportRetentionRequest, context: Context) -> pb.ReportRetentionResponse:
        """Keep what a service did for a policy."""
        told = request.report
        done = RetentionReport(
            received_before=from_timestamp(told.received_before),
            records=told.records,
            quarantined=told.quarantined,
            held=told.held,
            completed_at=self._clock.now(),
            waiting_for=told.waiting_for,
        )
        async with self._transactions.begin() as stores:
            await retention.report(
                stores,
                request.dataset,
                done,
                remaining=told.remaining,
                recorder=self._recorder(request.workspace),
            )
        return pb.ReportRetentionResponse()

    async def _set(
        self, stores: Stores, request: pb.SetRetentionPolicyRequest, *, caller: Caller
    ) -> pb.RetentionPolicy:
        wanted = RetentionPolicy(
            workspace=caller.workspace,
            dataset=request.dataset,
            days=request.days,
            purpose=request.purpose,
            owner=request.owner or caller.principal,
            set_by=caller.principal,
            set_at=self._clock.now(),
        )
        recorder = self._recorder(caller.workspace)
        return retention_policy_message(
            await retention.set_policy(stores, wanted, etag=request.etag, recorder=recorder)
        )

    def _recorder(self, workspace: str) -> Recorder:
        return Recorder(workspace, current_caller().principal, self._ids, self._clock)
