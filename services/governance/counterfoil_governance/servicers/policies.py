"""PolicyService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import orjson
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import policies_pb2 as pb
from counterfoil.governance.v1.policies_pb2_grpc import PolicyServiceServicer
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.errors import FieldViolation
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import Question
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import approvals, policies, principals
from counterfoil_governance.changes import Seal
from counterfoil_governance.entities import PolicyBundle
from counterfoil_governance.errors import QuestionMalformedError
from counterfoil_governance.messages import bundle_message, policy_message
from counterfoil_governance.policy_text import CheckedPolicies, check_policies, read_policies, shipped_schema
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class PolicyServicer(PolicyServiceServicer):
    """Serves the policy bundles of the caller's workspace; services follow those in force of all."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        feed: Feed,
        seal: Seal,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._seal = seal
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def CreatePolicyBundle(self, request: pb.CreatePolicyBundleRequest, context: Context) -> pb.PolicyBundle:
        """Submit a new bundle."""
        caller = current_caller()
        # A second for the largest bundle: beside the loop, and before anybody waits for the transaction.
        checked = await asyncio.to_thread(check_policies, request.policies, schema=shipped_schema())
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="CreatePolicyBundle",
                workspace=caller.workspace,
                answer=pb.PolicyBundle,
                make=lambda: self._create(stores, checked, reason=request.reason, caller=caller),
            )

    async def GetPolicyBundle(self, request: pb.GetPolicyBundleRequest, context: Context) -> pb.PolicyBundle:
        """Return one bundle with its text."""
        async with self._transactions.read() as stores:
            bundle = await policies.find_bundle(stores, current_caller().workspace, request.version)
        return bundle_message(self._shown(bundle))

    async def ListPolicyBundles(
        self, request: pb.ListPolicyBundlesRequest, context: Context
    ) -> pb.ListPolicyBundlesResponse:
        """List the workspace's bundles, newest first, without their texts."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListPolicyBundles", workspace=workspace)
        below = int(page.after[0]) if page.after else None
        async with self._transactions.read() as stores:
            found = await stores.bundles.list(workspace, below=below, limit=page.limit + 1)
        shown = [bundle_message(self._shown(bundle), with_text=False) for bundle in found[: page.limit]]
        answer = pb.ListPolicyBundlesResponse(policy_bundles=shown)
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListPolicyBundles", workspace=workspace, after=[str(shown[-1].version)]
            )
        return answer

    async def DiffPolicyBundles(
        self, request: pb.DiffPolicyBundlesRequest, context: Context
    ) -> pb.DiffPolicyBundlesResponse:
        """Tell which policies a version adds, removes or changes."""
        workspace = current_caller().workspace
        async with self._transactions.read() as stores:
            after = await policies.find_bundle(stores, workspace, request.version)
            before = await policies.find_bundle(stores, workspace, request.base_version)
        return pb.DiffPolicyBundlesResponse(
            differences=[
                pb.PolicyDifference(
                    policy_id=found.policy_id,
                    before=None if found.before is None else policy_message(found.before),
                    after=None if found.after is None else policy_message(found.after),
                )
                for found in policies.differences(before, after)
            ]
        )

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        """List the policies in force in the order of their text."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListPolicies", workspace=workspace)
        async with self._transactions.read() as stores:
            bundle = await stores.bundles.in_force(workspace)
        # A page goes on in the bundle that is in force by then: its version is no part of the question.
        begin = int(page.after[0]) if page.after else 0
        found = read_policies(bundle.policies)
        answer = pb.ListPoliciesResponse(policies=[policy_message(each) for each in found[begin : begin + page.limit]])
        if len(found) > begin + page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListPolicies", workspace=workspace, after=[str(begin + page.limit)]
            )
        return answer

    async def CheckPolicy(self, request: pb.CheckPolicyRequest, context: Context) -> pb.CheckPolicyResponse:
        """Tell what a bundle would answer."""
        caller = current_caller()
        question = Question(
            request.action,
            request.resource_type,
            request.resource_id,
            attributes=_object(request.attributes, "attributes"),
            context=_object(request.context, "context"),
        )
        async with self._transactions.read() as stores:
            bundle = await policies.find_bundle(stores, caller.workspace, request.version)
            if request.principal_id and request.principal_id != caller.principal:
                caller = await principals.as_caller(
                    stores, caller.workspace, request.principal_id, now=self._clock.now()
                )
        answer = policies.ask(bundle, caller, question, now=self._clock.now())
        return pb.CheckPolicyResponse(
            allowed=answer.allowed, policy_ids=answer.policy_ids, errors=answer.errors, version=bundle.version
        )

    async def WatchPolicyBundles(
        self, request: pb.WatchPolicyBundlesRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream the bundle in force of every workspace."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def LookupPolicyBundle(self, request: pb.LookupPolicyBundleRequest, context: Context) -> pb.PolicyBundle:
        """Return the bundle in force of one workspace."""
        async with self._transactions.read() as stores:
            return bundle_message(await stores.bundles.in_force(request.workspace), for_service=True)

    async def _create(
        self, stores: Stores, checked: CheckedPolicies, *, reason: str, caller: Caller
    ) -> pb.PolicyBundle:
        bundle = await approvals.submit_bundle(
            stores,
            caller=caller,
            checked=checked,
            reason=reason,
            seal=self._seal,
            recorder=Recorder(caller.workspace, caller.principal, self._ids, self._clock),
        )
        return bundle_message(bundle)

    def _shown(self, bundle: PolicyBundle) -> PolicyBundle:
        return approvals.shown(bundle, now=self._clock.now())


def _object(text: bytes, field: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text or b"{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise QuestionMalformedError(
            f"{field} is no JSON object. Send an object such as {{}}.",
            violations=[FieldViolation(field, "QUESTION_MALFORMED", "must be a JSON object")],
        )
    return value
