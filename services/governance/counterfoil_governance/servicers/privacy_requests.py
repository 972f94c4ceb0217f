"""PrivacyRequestService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import privacy_requests_pb2 as pb
from counterfoil.governance.v1.privacy_requests_pb2_grpc import PrivacyRequestServiceServicer
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import privacy
from counterfoil_governance.consents import Pseudonyms
from counterfoil_governance.entities import PrivacyRequest
from counterfoil_governance.errors import ErasureReporterError
from counterfoil_governance.messages import privacy_request_message
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class PrivacyRequestServicer(PrivacyRequestServiceServicer):
    """Serves the privacy requests of the caller's workspace, and their erasures to the services that carry them out."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        feed: Feed,
        pseudonyms: Pseudonyms,
        consent_pseudonyms: Pseudonyms,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._pseudonyms = pseudonyms
        self._consent_pseudonyms = consent_pseudonyms
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def CreatePrivacyRequest(
        self, request: pb.CreatePrivacyRequestRequest, context: Context
    ) -> pb.PrivacyRequest:
        """Ask for the erasure of one person."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="CreatePrivacyRequest",
                workspace=caller.workspace,
                answer=pb.PrivacyRequest,
                make=lambda: self._create(stores, request, caller=caller),
            )

    async def GetPrivacyRequest(self, request: pb.GetPrivacyRequestRequest, context: Context) -> pb.PrivacyRequest:
        """Return one request with what each service reported."""
        async with self._transactions.read() as stores:
            found = await stores.privacy_requests.get(current_caller().workspace, request.privacy_request_id)
            return (await self._messages(stores, [found]))[0]

    async def ListPrivacyRequests(
        self, request: pb.ListPrivacyRequestsRequest, context: Context
    ) -> pb.ListPrivacyRequestsResponse:
        """List the workspace's requests, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListPrivacyRequests", workspace=workspace)
        async with self._transactions.read() as stores:
            found = await stores.privacy_requests.list(
                workspace, before=page.after[0] if page.after else "", limit=page.limit + 1
            )
            shown = found[: page.limit]
            answer = pb.ListPrivacyRequestsResponse(privacy_requests=await self._messages(stores, shown))
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListPrivacyRequests", workspace=workspace, after=[shown[-1].privacy_request_id]
            )
        return answer

    async def WatchErasures(self, request: pb.WatchErasuresRequest, context: Context) -> AsyncIterator[WatchResponse]:
        """Stream every workspace's erasures, each with the key of its hashes."""
        async for response in self._feed.stream(request.after_revision):
            if response.HasField("put"):
                erasure = pb.Erasure()
                response.put.resource.Unpack(erasure)
                erasure.hash_key = self._pseudonyms.key(erasure.workspace)
                response.put.resource.Pack(erasure, deterministic=True)
            yield response

    async def ReportErasure(self, request: pb.ReportErasureRequest, context: Context) -> pb.ReportErasureResponse:
        """Keep what a service did for an erasure."""
        caller = current_caller()
        if request.report.service not in ("", caller.service):
            raise ErasureReporterError(
                f"{caller.service} reports what it did itself, not what {request.report.service} did.",
                metadata={"service": caller.service},
            )
        async with self._transactions.begin() as stores:
            await privacy.report(
                stores,
                request.privacy_request_id,
                service=caller.service,
                erased=request.report.erased,
                remaining=request.report.remaining,
                recorder=Recorder(request.workspace, caller.principal, self._ids, self._clock),
            )
        return pb.ReportErasureResponse()

    async def ReportErasureHeld(
        self, request: pb.ReportErasureHeldRequest, context: Context
    ) -> pb.ReportErasureHeldResponse:
        """Keep which legal holds an erasure waits for."""
        recorder = Recorder(request.workspace, current_caller().principal, self._ids, self._clock)
        async with self._transactions.begin() as stores:
            await privacy.report_held(stores, request.privacy_request_id, request.legal_hold_ids, recorder=recorder)
        return pb.ReportErasureHeldResponse()

    async def _create(
        self, stores: Stores, request: pb.CreatePrivacyRequestRequest, *, caller: Caller
    ) -> pb.PrivacyRequest:
        now, workspace = self._clock.now(), caller.workspace
        named = [(each.type, each.value) for each in request.identifiers]
        hashes = {self._pseudonyms.subject(workspace, type=type_, value=value): type_ for type_, value in named}
        asked = PrivacyRequest(
            workspace=workspace,
            privacy_request_id=self._ids.new(),
            identifier_types=tuple(hashes.values()),
            identifier_hashes=tuple(hashes),
            reference=request.reference,
            created_by=caller.principal,
            created_at=now,
            due_at=privacy.due_at(now),
        )
        subjects = {self._consent_pseudonyms.subject(workspace, type=type_, value=value) for type_, value in named}
        recorder = Recorder(workspace, caller.principal, self._ids, self._clock)
        made = await privacy.create(stores, asked, subjects=sorted(subjects), recorder=recorder)
        return (await self._messages(stores, [made]))[0]

    async def _messages(self, stores: Stores, requests: Sequence[PrivacyRequest]) -> Sequence[pb.PrivacyRequest]:
        held = await privacy.held_by(stores, requests, now=self._clock.now())
        return [
            privacy_request_message(
                each, completed=privacy.is_reported(each), held_by=held.get(each.privacy_request_id, ())
            )
            for each in requests
        ]
