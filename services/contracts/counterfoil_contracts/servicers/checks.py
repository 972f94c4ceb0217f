"""CheckService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.contracts.v1 import checks_pb2 as pb
from counterfoil.contracts.v1.checks_pb2_grpc import CheckServiceServicer
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_contracts import checks, contracts, drafting
from counterfoil_contracts.check_entities import Check, CheckState, ProfileSubject, TrialSubject, Wanted
from counterfoil_contracts.check_errors import CheckSubjectError
from counterfoil_contracts.check_store import CheckStore, CheckTransactions
from counterfoil_contracts.entities import ContractVersion
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.servicers.check_translation import to_check, to_profile
from counterfoil_contracts.shipping import Shipping
from counterfoil_contracts.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class CheckServicer(CheckServiceServicer):
    """Serves the checks of the caller's workspace, and those of every workspace that wait to ingest."""

    def __init__(
        self,
        transactions: CheckTransactions,
        *,
        versions: Transactions,
        shipping: Shipping,
        feed: Feed,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._transactions = transactions
        self._versions = versions
        self._shipping = shipping
        self._feed = feed
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def CreateCheck(self, request: pb.CreateCheckRequest, context: Context) -> pb.Check:
        """Ask for a check."""
        workspace = current_caller().workspace
        wanted = await self._wanted(request)

        async def make(store: CheckStore) -> pb.Check:
            return to_check(await checks.ask(store, wanted))

        async with self._transactions.begin() as store:
            return await self._idempotency.once(
                store.connection,
                request,
                method="CreateCheck",
                workspace=workspace,
                answer=pb.Check,
                make=lambda: make(store),
            )

    async def GetCheck(self, request: pb.GetCheckRequest, context: Context) -> pb.Check:
        """Return one check with its results."""
        async with self._transactions.read() as store:
            return to_check(await store.get(current_caller().workspace, request.check_id))

    async def ListChecks(self, request: pb.ListChecksRequest, context: Context) -> pb.ListChecksResponse:
        """List the workspace's checks, newest first, without their results."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListChecks", workspace=workspace)
        async with self._transactions.read() as store:
            found = await store.list(workspace, before=page.after[0] if page.after else "", limit=page.limit + 1)
        answer = pb.ListChecksResponse(checks=[to_check(each) for each in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListChecks", workspace=workspace, after=[answer.checks[-1].check_id]
            )
        return answer

    async def DraftContract(self, request: pb.DraftContractRequest, context: Context) -> pb.DraftContractResponse:
        """Draft a contract from a profile."""
        async with self._transactions.read() as store:
            check = await store.get(current_caller().workspace, request.check_id)
        subject = checks.require_profile(check)
        profile = to_profile(pb.ReportCheckRequest.FromString(check.result).profiled)
        named = drafting.Named(request.contract_id, owner=request.owner, dataset=request.dataset)
        drafted = await asyncio.to_thread(drafting.draft, profile, subject, named)
        return pb.DraftContractResponse(document=drafted.document, open_questions=drafted.open_questions)

    async def WatchChecks(self, request: pb.WatchChecksRequest, context: Context) -> AsyncIterator[WatchResponse]:
        """Stream the checks of every workspace that wait to be run."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def ReportCheck(self, request: pb.ReportCheckRequest, context: Context) -> pb.ReportCheckResponse:
        """Keep what a check found."""
        async with self._transactions.begin() as store:
            await checks.report(
                store,
                workspace=request.workspace,
                check_id=request.check_id,
                failed=bool(request.error_reason),
                result=request.SerializeToString(deterministic=True),
                now=self._clock.now(),
            )
        return pb.ReportCheckResponse()

    async def _wanted(self, request: pb.CreateCheckRequest) -> Wanted:
        if request.WhichOneof("subject") == "profile":
            asked = request.profile
            return Wanted(self._check(request, ProfileSubject(asked.dataset, asked.type, asked.event)))
        version = await self._tried(request.trial)
        subject = TrialSubject(version.contract_id, version.version, version.document_sha256)
        return Wanted(self._check(request, subject), version.compiled)

    async def _tried(self, trial: pb.TrialRequest) -> ContractVersion:
        caller = current_caller()
        if bool(trial.document) == bool(trial.contract_id or trial.version):
            raise CheckSubjectError("Try a document, or name a contract_id with its version: one of the two.")
        if trial.document:
            checked = await asyncio.to_thread(check_document, trial.document)
            now = self._clock.now()
            return contracts.draft(
                trial.document, checked, workspace=caller.workspace, created_by=caller.principal, now=now
            )
        await self._shipping.ensure(caller.workspace)
        async with self._versions.read() as stores:
            return await contracts.get_version(
                stores, workspace=caller.workspace, contract_id=trial.contract_id, version=trial.version
            )

    def _check(self, request: pb.CreateCheckRequest, subject: TrialSubject | ProfileSubject) -> Check:
        caller = current_caller()
        return Check(
            workspace=caller.workspace,
            check_id=self._ids.new(),
            state=CheckState.PENDING,
            subject=subject,
            records=request.records or checks.USUAL_RECORDS,
            created_by=caller.principal,
            created_at=self._clock.now(),
        )
