"""Whatever is done, in whatever order and however late: no approval without a second person, nothing after its time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from counterfoil.governance.v1 import changes_pb2 as pb
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.status import failure_of
from counterfoil_governance.changes import APPROVED_FOR, PENDING_FOR, Seal, standing
from counterfoil_governance.entities import Change, ChangeState, Verdict, Vote
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.governance.calls import Governance

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SEAL, FORGED = Seal(b"s" * 32), Seal(b"f" * 32)
PEOPLE = ("ada", "rex", "pat", "sam")
State = pb.Change.State


def change(quorum: int) -> Change:
    return Change(
        workspace="acme",
        change_id="c",
        service="models",
        request_id="1",
        kind="model.promote",
        resource="models/churn",
        payload=b"{}",
        requester="ada",
        reason="",
        policy_id="p",
        quorum=quorum,
        created_at=BEGIN,
        pending_until=BEGIN + PENDING_FOR,
    )


ages = st.one_of(
    st.sampled_from([timedelta(0), PENDING_FOR, PENDING_FOR - timedelta(microseconds=1), APPROVED_FOR]),
    st.timedeltas(timedelta(0), timedelta(days=10)),
)
votes = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.sampled_from([Verdict.APPROVE, Verdict.APPROVE, Verdict.REJECT]),
        st.sampled_from(["as it is", "as it is", "another payload", "forged", "moved"]),
        ages,
    ),
    max_size=4,
    unique_by=lambda vote: vote[0],
)


def cast(asked: Change, voter: str, verdict: Verdict, how: str, age: timedelta) -> Vote:
    """Return a vote as it lies in the store: honest, or tampered with in one way."""
    sha256 = asked.payload_sha256 if how != "another payload" else "0" * 64
    vote = Vote(voter, verdict, "", sha256, BEGIN + age)
    sealed = (FORGED if how == "forged" else SEAL).seal(asked, vote)
    return replace(sealed, voted_at=sealed.voted_at + timedelta(seconds=1)) if how == "moved" else sealed


@settings(max_examples=500)
@given(quorum=st.integers(1, 3), said=votes, age=ages)
@example(quorum=1, said=[("rex", Verdict.APPROVE, "as it is", timedelta(0))], age=APPROVED_FOR)
@example(quorum=1, said=[("ada", Verdict.APPROVE, "as it is", timedelta(0))], age=timedelta(0))
def test_a_change_is_approved_by_a_quorum_of_distinct_second_persons_or_not_at_all(
    quorum: int, said: list[tuple[str, Verdict, str, timedelta]], age: timedelta
) -> None:
    asked = change(quorum)
    asked = replace(asked, votes=tuple(cast(asked, *vote) for vote in said))
    now = standing(asked, seal=SEAL, now=BEGIN + age)
    good = sorted(
        at
        for voter, verdict, how, at in said
        if voter != "ada" and verdict is Verdict.APPROVE and how == "as it is" and at < PENDING_FOR
    )
    rejected = any(verdict is Verdict.REJECT for _, verdict, _, _ in said)
    if rejected:
        expected = ChangeState.REJECTED
    elif len(good) >= quorum:
        expected = ChangeState.APPROVED if age < good[quorum - 1] + APPROVED_FOR else ChangeState.EXPIRED
    else:
        expected = ChangeState.PENDING if age < PENDING_FOR else ChangeState.EXPIRED
    assert now.state is expected


@settings(max_examples=200)
@given(said=votes, first=ages, second=ages)
def test_what_has_expired_stays_expired(
    said: list[tuple[str, Verdict, str, timedelta]], first: timedelta, second: timedelta
) -> None:
    asked = change(1)
    asked = replace(asked, votes=tuple(cast(asked, *vote) for vote in said))
    earlier, later = sorted([first, second])
    if standing(asked, seal=SEAL, now=BEGIN + earlier).state is ChangeState.EXPIRED:
        assert standing(asked, seal=SEAL, now=BEGIN + later).state is ChangeState.EXPIRED


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("approve"), st.sampled_from(["admin", "rex", "pat", "robot"]), st.booleans()),
        st.tuples(st.just("reject"), st.sampled_from(["admin", "rex", "pat", "robot"]), st.just(None)),
        st.tuples(st.just("report"), st.booleans(), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1, 23, 24, 24 * 7]), st.just(None)),
    ),
    max_size=10,
)
_numbers = itertools.count()


@dataclass
class Model:
    """What the service should hold of one change; hours since it was asked for."""

    now: int = 0
    voters: list[str] = field(default_factory=list)
    approved_at: int | None = None
    settled: str = ""

    def state(self) -> str:
        if self.settled:
            return self.settled
        if self.approved_at is not None:
            return "APPROVED" if self.now < self.approved_at + 24 else "EXPIRED"
        return "PENDING" if self.now < 24 * 7 else "EXPIRED"

    def vote(self, voter: str, verdict: str, *, right_payload: bool) -> str:
        state = self.state()
        for refusal, reason in (
            (voter == "admin", "VOTE_OWN_CHANGE"),
            (voter == "robot", "VOTER_NOT_HUMAN"),
            (voter in self.voters, "VOTE_EXISTS"),
            (state == "EXPIRED", "CHANGE_EXPIRED"),
            (state not in {"PENDING", *(["APPROVED"] if verdict == "reject" else [])}, "CHANGE_NOT_PENDING"),
            (not right_payload, "VOTE_PAYLOAD_DIFFERS"),
        ):
            if refusal:
                return reason
        self.voters.append(voter)
        if verdict == "approve":
            self.approved_at = self.now
        else:
            self.settled = "REJECTED"
        return ""

    def report(self, *, applied: bool, right_payload: bool) -> str:
        state, wanted = self.state(), "APPLIED" if applied else "FAILED"
        for refusal, reason in (
            (state == "EXPIRED", "CHANGE_EXPIRED"),
            (state in {"PENDING", "REJECTED"}, "CHANGE_NOT_APPROVED"),
            (not right_payload, "CHANGE_PAYLOAD_DIFFERS"),
            (state not in {"APPROVED", wanted}, "CHANGE_APPLIED"),
        ):
            if refusal:
                return reason
        self.settled = wanted
        return ""


async def reason_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failure_of(error).reason
    return ""


async def step(governance: Governance, asked: pb.Change, model: Model, operation: tuple[str, Any, Any]) -> None:
    name, subject, right = operation
    sha256 = asked.payload_sha256 if right is not False else payload_sha256({"another": 1})
    if name == "wait":
        governance.clock.move(timedelta(hours=subject))
        model.now += subject
    elif name == "report":
        call = Changes(governance.channel, governance.signers["models"]).report(
            workspace="default", change_id=asked.change_id, payload_sha256=sha256, applied=subject
        )
        assert await reason_of(call) == model.report(applied=subject, right_payload=right)
    elif name == "approve":
        request = pb.ApproveChangeRequest(change_id=asked.change_id, payload_sha256=sha256)
        call = governance.changes.ApproveChange(request, **governance.as_principal(principal=subject))
        assert await reason_of(call) == model.vote(subject, "approve", right_payload=right)
    else:
        against = pb.RejectChangeRequest(change_id=asked.change_id, reason="no")
        call = governance.changes.RejectChange(against, **governance.as_principal(principal=subject))
        assert await reason_of(call) == model.vote(subject, "reject", right_payload=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
@example(operations=[("approve", "rex", True), ("wait", 24, None), ("report", True, True)])
@example(operations=[("approve", "rex", True), ("report", True, True), ("wait", 24 * 7, None), ("report", True, True)])
@example(operations=[("approve", "admin", True), ("approve", "robot", True), ("report", True, True)])
async def test_the_service_follows_the_model(governance: Governance, operations: list[tuple[str, Any, Any]]) -> None:
    number = next(_numbers)
    if not governance.hired:
        for name in ("rex", "pat"):
            await governance.hire(name)
        await governance.hire("robot", human=False)
    asked = await Changes(governance.channel, governance.signers["models"]).create(
        workspace="default",
        kind="model.promote",
        resource="models/churn",
        payload={"number": number},
        requester="admin",
        reason="why",
        policy_id="p",
        request_id=str(number),
    )
    model = Model()
    for operation in operations:
        await step(governance, asked, model, operation)
        request = pb.GetChangeRequest(change_id=asked.change_id)
        now = await governance.changes.GetChange(request, **governance.as_principal())
        assert State.Name(now.state) == model.state()
