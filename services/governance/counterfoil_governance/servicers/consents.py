"""ConsentService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from typing import Final

import grpc
from counterfoil.governance.v1 import consents_pb2 as pb
from counterfoil.governance.v1.consents_pb2_grpc import ConsentServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_timestamp, to_timestamp
from counterfoil_chassis.errors import BadFieldError, FieldViolation
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_governance import consents
from counterfoil_governance.consents import ConsentAnswer, Pseudonyms
from counterfoil_governance.entities import Consent
from counterfoil_governance.messages import CONSENT_BASES, CONSENT_STATES, consent_message
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]

_STATES: Final = {number: state for state, number in CONSENT_STATES.items()}
_BASES: Final = {number: basis for basis, number in CONSENT_BASES.items()}


class ConsentServicer(ConsentServiceServicer):
    """Serves the consent ledger of the caller's workspace; a service that acts for itself names the workspace."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        pseudonyms: Pseudonyms,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._transactions = transactions
        self._pseudonyms = pseudonyms
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def RecordConsents(self, request: pb.RecordConsentsRequest, context: Context) -> pb.RecordConsentsResponse:
        """Record consents and withdrawals, all of them or none."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="RecordConsents",
                workspace=caller.workspace,
                answer=pb.RecordConsentsResponse,
                make=lambda: self._record(stores, request, caller=caller),
            )

    async def ListConsents(self, request: pb.ListConsentsRequest, context: Context) -> pb.ListConsentsResponse:
        """List what was recorded of one subject, newest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListConsents", workspace=workspace)
        subject = self._pseudonyms.subject(workspace, type=request.subject_type, value=request.subject_value)
        below = int(page.after[0]) if page.after else None
        async with self._transactions.read() as stores:
            found = await stores.consents.list(
                workspace, subject, purpose=request.purpose, below=below, limit=page.limit + 1
            )
            revision = await stores.consents.revision(workspace)
            everything = await stores.consents.of_subjects(workspace, [subject], purpose="", revision=revision)
        holding = {consent.revision for consent in consents.latest(everything).values()}
        shown = [consent_message(each, holds=each.revision in holding) for each in found[: page.limit]]
        answer = pb.ListConsentsResponse(consents=shown)
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListConsents", workspace=workspace, after=[str(shown[-1].revision)]
            )
        return answer

    async def CheckConsents(self, request: pb.CheckConsentsRequest, context: Context) -> pb.CheckConsentsResponse:
        """Tell for each person whether the purpose is allowed."""
        caller = current_caller()
        # Who speaks for a principal never names another workspace: what it says of one counts for nothing.
        workspace = request.workspace if caller.service else caller.workspace
        if not workspace:
            missing = FieldViolation("workspace", "REQUIRED", "a service that asks for itself names the workspace")
            raise BadFieldError("correct the fields: workspace", violations=[missing])
        at = from_timestamp(request.at) if request.HasField("at") else self._clock.now()
        people = [
            [self._pseudonyms.subject(workspace, type=each.type, value=each.value) for each in person.subjects]
            for person in request.people
        ]
        async with self._transactions.read() as stores:
            answers, revision = await consents.check(
                stores, workspace, purpose=request.purpose, people=people, revision=request.ledger_revision, at=at
            )
        return pb.CheckConsentsResponse(
            verdicts=[_verdict(answer) for answer in answers], ledger_revision=revision, at=to_timestamp(at)
        )

    async def _record(
        self, stores: Stores, request: pb.RecordConsentsRequest, *, caller: Caller
    ) -> pb.RecordConsentsResponse:
        recorder = Recorder(caller.workspace, caller.principal, self._ids, self._clock)
        new = [
            consents.with_content(self._new(each, caller=caller), index=index, now=recorder.now)
            for index, each in enumerate(request.consents)
        ]
        done = await consents.record(stores, new, recorder=recorder)
        return pb.RecordConsentsResponse(
            recorded=done.recorded, superseded=done.superseded, ledger_revision=done.revision
        )

    def _new(self, sent: pb.NewConsent, *, caller: Caller) -> Consent:
        return Consent(
            workspace=caller.workspace,
            consent_id=self._ids.new(),
            subject=self._pseudonyms.subject(caller.workspace, type=sent.subject.type, value=sent.subject.value),
            purpose=sent.purpose,
            state=_STATES[sent.state],
            basis=_BASES[sent.basis],
            happened_at=from_timestamp(sent.happened_at),
            expires_at=from_timestamp(sent.expires_at) if sent.HasField("expires_at") else None,
            evidence=sent.evidence,
            content=b"",
            recorded_at=self._clock.now(),
            recorded_by=caller.principal,
        )


def _verdict(answer: ConsentAnswer) -> pb.ConsentVerdict:
    found = answer.consent
    if found is None:
        return pb.ConsentVerdict(allowed=answer.allowed, reason=answer.reason)
    basis = CONSENT_BASES[found.basis] if answer.allowed else pb.Consent.Basis.BASIS_UNSPECIFIED
    return pb.ConsentVerdict(allowed=answer.allowed, reason=answer.reason, consent_id=found.consent_id, basis=basis)
