"""LegalHoldService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import legal_holds_pb2 as pb
from counterfoil.governance.v1.legal_holds_pb2_grpc import LegalHoldServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import legal_holds
from counterfoil_governance.consents import Pseudonyms
from counterfoil_governance.entities import LegalHold
from counterfoil_governance.messages import legal_hold_message
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class LegalHoldServicer(LegalHoldServiceServicer):
    """Serves the legal holds of the caller's workspace, and those of all to the services that keep what is held."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        feed: Feed,
        pseudonyms: Pseudonyms,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """Take the `pseudonyms` of erasures: who holds a person and who erases one name them alike."""
        self._transactions = transactions
        self._feed = feed
        self._pseudonyms = pseudonyms
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def CreateLegalHold(self, request: pb.CreateLegalHoldRequest, context: Context) -> pb.LegalHold:
        """Keep a dataset or a person."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="CreateLegalHold",
                workspace=caller.workspace,
                answer=pb.LegalHold,
                make=lambda: self._create(stores, request, caller=caller),
            )

    async def GetLegalHold(self, request: pb.GetLegalHoldRequest, context: Context) -> pb.LegalHold:
        """Return one hold."""
        async with self._transactions.read() as stores:
            found = await legal_holds.get(stores, current_caller().workspace, request.legal_hold_id)
        return legal_hold_message(found, now=self._clock.now())

    async def ListLegalHolds(self, request: pb.ListLegalHoldsRequest, context: Context) -> pb.ListLegalHoldsResponse:
        """List the workspace's holds, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListLegalHolds", workspace=workspace)
        async with self._transactions.read() as stores:
            found = await stores.legal_holds.list(
                workspace, before=page.after[0] if page.after else "", limit=page.limit + 1
            )
        shown, now = found[: page.limit], self._clock.now()
        answer = pb.ListLegalHoldsResponse(legal_holds=[legal_hold_message(each, now=now) for each in shown])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListLegalHolds", workspace=workspace, after=[shown[-1].legal_hold_id]
            )
        return answer

    async def ReleaseLegalHold(self, request: pb.ReleaseLegalHoldRequest, context: Context) -> pb.LegalHold:
        """End a hold."""
        async with self._transactions.begin() as stores:
            released = await legal_holds.release(
                stores, request.legal_hold_id, reason=request.reason, recorder=self._recorder(current_caller())
            )
        return legal_hold_message(released, now=self._clock.now())

    async def WatchLegalHolds(
        self, request: pb.WatchLegalHoldsRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream every workspace's holds that are not released, each with the key of its hashes."""
        async for response in self._feed.stream(request.after_revision):
            if response.HasField("put"):
                held = pb.HeldData()
                response.put.resource.Unpack(held)
                held.hash_key = self._pseudonyms.key(held.workspace)
                response.put.resource.Pack(held, deterministic=True)
            yield response

    async def _create(self, stores: Stores, request: pb.CreateLegalHoldRequest, *, caller: Caller) -> pb.LegalHold:
        workspace, now = caller.workspace, self._clock.now()
        hashes = {
            self._pseudonyms.subject(workspace, type=each.type, value=each.value): each.type
            for each in request.identifiers
        }
        hold = LegalHold(
            workspace=workspace,
            legal_hold_id=self._ids.new(),
            dataset=request.dataset,
            identifier_types=tuple(hashes.values()),
            identifier_hashes=tuple(hashes),
            reason=request.reason,
            owner=request.owner or caller.principal,
            expires_at=from_timestamp(request.expires_at) if request.HasField("expires_at") else None,
            created_by=caller.principal,
            created_at=now,
        )
        return legal_hold_message(await legal_holds.create(stores, hold, recorder=self._recorder(caller)), now=now)

    def _recorder(self, caller: Caller) -> Recorder:
        return Recorder(caller.workspace, caller.principal, self._ids, self._clock)
