"""ChangeService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import orjson
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import changes_pb2 as pb
from counterfoil.governance.v1.changes_pb2_grpc import ChangeServiceServicer
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.errors import FieldViolation
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import approvals, changes
from counterfoil_governance.changes import Seal
from counterfoil_governance.entities import Change
from counterfoil_governance.errors import ChangePayloadError
from counterfoil_governance.messages import CHANGE_STATES, change_message
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]

_STATES: Final = {number: state for state, number in CHANGE_STATES.items()}


class ChangeServicer(ChangeServiceServicer):
    """Serves the changes of the caller's workspace to people who vote, and to the services that carry them out."""

    def __init__(
        self, transactions: Transactions, *, feed: Feed, seal: Seal, pager: Pager, clock: Clock, ids: Ids
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._seal = seal
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def GetChange(self, request: pb.GetChangeRequest, context: Context) -> pb.Change:
        """Return one change with its votes."""
        async with self._transactions.read() as stores:
            return self._message(await stores.changes.get(current_caller().workspace, request.change_id))

    async def ListChanges(self, request: pb.ListChangesRequest, context: Context) -> pb.ListChangesResponse:
        """List the workspace's changes, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListChanges", workspace=workspace)
        async with self._transactions.read() as stores:
            found = await changes.listed(
                stores,
                workspace,
                state=_STATES.get(request.state),
                before=page.after[0] if page.after else "",
                limit=page.limit + 1,
                seal=self._seal,
                now=self._clock.now(),
            )
        answer = pb.ListChangesResponse(changes=[self._message(change) for change in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListChanges", workspace=workspace, after=[answer.changes[-1].change_id]
            )
        return answer

    async def ApproveChange(self, request: pb.ApproveChangeRequest, context: Context) -> pb.Change:
        """Vote for a change."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            return self._message(
                await approvals.approve(
                    stores,
                    request.change_id,
                    caller=caller,
                    payload_sha256=request.payload_sha256,
                    reason=request.reason,
                    seal=self._seal,
                    recorder=self._recorder(caller),
                )
            )

    async def RejectChange(self, request: pb.RejectChangeRequest, context: Context) -> pb.Change:
        """Vote against a change."""
        async with self._transactions.begin() as stores:
            return self._message(
                await approvals.reject(
                    stores,
                    request.change_id,
                    reason=request.reason,
                    seal=self._seal,
                    recorder=self._recorder(current_caller()),
                )
            )

    async def CreateChange(self, request: pb.CreateChangeRequest, context: Context) -> pb.Change:
        """Ask for a change on a principal's behalf."""
        now = self._clock.now()
        change = Change(
            workspace=request.workspace,
            change_id=self._ids.new(),
            service=current_caller().service,
            request_id=request.request_id,
            kind=request.kind,
            resource=request.resource,
            payload=_canonical(request.payload),
            requester=request.requester,
            reason=request.reason,
            policy_id=request.policy_id,
            quorum=changes.QUORUM,
            created_at=now,
            pending_until=now + changes.PENDING_FOR,
        )
        recorder = Recorder(request.workspace, request.requester, self._ids, self._clock)
        async with self._transactions.begin() as stores:
            kept = await changes.create(stores, change, seal=self._seal, recorder=recorder)
        return self._message(kept, for_service=True)

    async def WatchChanges(self, request: pb.WatchChangesRequest, context: Context) -> AsyncIterator[WatchResponse]:
        """Stream every workspace's changes that are not long over."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def ReportChange(self, request: pb.ReportChangeRequest, context: Context) -> pb.Change:
        """Say what became of an approved change."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            settled = await changes.report(
                stores,
                request.change_id,
                service=caller.service,
                applied=request.applied,
                payload_sha256=request.payload_sha256,
                detail=request.detail,
                seal=self._seal,
                recorder=Recorder(request.workspace, caller.principal, self._ids, self._clock),
            )
        return self._message(settled, for_service=True)

    def _recorder(self, caller: Caller) -> Recorder:
        return Recorder(caller.workspace, caller.principal, self._ids, self._clock)

    def _message(self, change: Change, *, for_service: bool = False) -> pb.Change:
        now_standing = changes.standing(change, seal=self._seal, now=self._clock.now())
        return change_message(change, now_standing, for_service=for_service)


def _canonical(payload: bytes) -> bytes:
    value: Any
    try:
        value = orjson.loads(payload)
        if isinstance(value, dict):
            return canonical_json(value)
    except ValueError:
        value = None
    raise ChangePayloadError(
        "The payload is no JSON object as I-JSON (RFC 7493) allows: objects of texts, lists, and numbers below 2^53.",
        violations=[FieldViolation("payload", "CHANGE_PAYLOAD", "must be a JSON object")],
    )
