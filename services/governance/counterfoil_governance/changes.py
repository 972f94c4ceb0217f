"""Changes: what one person asks for, who votes on it, and until when it may be carried out.

States follow from votes and clock when they are asked for; no job moves them:
pending -> approved | rejected | expired; approved -> applied | failed | rejected | expired.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from counterfoil_chassis.clock import to_micros
from counterfoil_chassis.secrecy import derive_key

from counterfoil_governance.entities import Change, ChangeState, PrincipalKind, Standing, Verdict, Vote
from counterfoil_governance.errors import (
    ChangeAppliedError,
    ChangeExpiredError,
    ChangeNotApprovedError,
    ChangeNotPendingError,
    ChangeOwnerError,
    ChangePayloadDiffersError,
    ChangeRequesterError,
    ChangeRequestReusedError,
    VoteExistsError,
    VoteOwnChangeError,
    VotePayloadDiffersError,
    VoterNotHumanError,
)
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores

PENDING_FOR: Final = timedelta(days=7)
APPROVED_FOR: Final = timedelta(hours=24)
WATCHED_FOR: Final = timedelta(days=1)
"""How long after its end a change stays in the feed, so that a service that was away still sees how it ended."""
QUORUM: Final = 1
_BATCH: Final = 200


class Seal:
    """Seals votes: who edits a row of the database cannot make a seal that fits."""

    def __init__(self, secret: bytes) -> None:
        self._key = derive_key(secret, "vote seal")

    def seal(self, change: Change, vote: Vote) -> Vote:
        """Return the vote, sealed together with what of its change must stay the same."""
        return replace(vote, mac=self._mac(change, vote))

    def intact(self, change: Change, vote: Vote) -> bool:
        """Tell whether vote and change are what they were when the vote was sealed."""
        return hmac.compare_digest(vote.mac, self._mac(change, vote))

    def _mac(self, change: Change, vote: Vote) -> bytes:
        said = (
            change.workspace,
            change.change_id,
            change.service,
            change.kind,
            change.resource,
            change.requester,
            str(change.quorum),
            str(to_micros(change.pending_until)),
            vote.voter,
            vote.verdict.value,
            vote.reason,
            vote.payload_sha256,
            str(to_micros(vote.voted_at)),
        )
        parts = (text.encode() for text in said)
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


def standing(change: Change, *, seal: Seal, now: datetime) -> Standing:
    """Return where a change is. What was tampered with never leads to an approval."""
    counting = tuple(_counts(change, vote, seal=seal) for vote in change.votes)
    approvals = sorted(
        vote.voted_at
        for vote, counts in zip(change.votes, counting, strict=True)
        if counts and vote.verdict is Verdict.APPROVE
    )
    approved = len(approvals) >= change.quorum
    expires_at = approvals[change.quorum - 1] + APPROVED_FOR if approved else change.pending_until
    if change.outcome is not None:
        state = change.outcome
    elif any(vote.verdict is Verdict.REJECT for vote in change.votes):
        state = ChangeState.REJECTED  # whether it counts or not: doubt ends a change
    elif now >= expires_at:
        state = ChangeState.EXPIRED
    else:
        state = ChangeState.APPROVED if approved else ChangeState.PENDING
    return Standing(state, expires_at, counting)


async def create(stores: Stores, change: Change, *, seal: Seal, recorder: Recorder) -> Change:
    """Keep a new change, or return the one that this service made with the same request id.

    Raises ChangeRequesterError unless the requester is active, ChangeRequestReusedError when the id belongs to another.
    """
    known = await stores.changes.find(change.workspace, service=change.service, request_id=change.request_id)
    if known is not None:
        if _asked(known) != _asked(change):
            raise ChangeRequestReusedError(
                f"Request {change.request_id!r} of {change.service} made another change. Take a fresh id.",
                metadata={"change_id": known.change_id},
            )
        return known
    requester = await stores.principals.get(change.workspace, change.requester)
    if requester.disabled_at is not None:
        raise ChangeRequesterError(
            f"Principal {change.requester!r} is disabled and asks for nothing.",
            metadata={"principal": change.requester},
        )
    await stores.changes.add(change)
    await _publish(stores, change, seal=seal, now=recorder.now)
    await recorder.record(
        stores,
        "change.create",
        _resource(change),
        kind=change.kind,
        subject=change.resource,
        payload_sha256=change.payload_sha256,
        policy_id=change.policy_id,
        service=change.service,
    )
    return change


async def vote(
    stores: Stores,
    change_id: str,
    *,
    verdict: Verdict,
    payload_sha256: str | None,
    reason: str,
    seal: Seal,
    recorder: Recorder,
) -> Change:
    """Keep a person's vote; a rejection settles the change. `payload_sha256` None votes on the payload as it is.

    Raises ChangeNotFoundError, VoteOwnChangeError, VoterNotHumanError, VoteExistsError, ChangeExpiredError,
    ChangeNotPendingError, VotePayloadDiffersError.
    """
    now, voter = recorder.now, recorder.principal
    change = await stores.changes.get(recorder.workspace, change_id)
    await _check_voter(stores, change, voter)
    now_standing = standing(change, seal=seal, now=now)
    _check_open(change, now_standing.state, verdict)
    if payload_sha256 is not None and payload_sha256 != change.payload_sha256:
        raise VotePayloadDiffersError(
            "The change asks for something else than this vote names. Read the change again and vote on what it says.",
            metadata={"payload_sha256": change.payload_sha256},
        )
    cast = seal.seal(change, Vote(voter, verdict, reason, change.payload_sha256, now))
    await stores.changes.add_vote(change, cast)
    voted = replace(change, votes=(*change.votes, cast))
    if verdict is Verdict.REJECT:
        voted = replace(voted, outcome=ChangeState.REJECTED, settled_at=now)
        await stores.changes.settle(voted)
    await _publish(stores, voted, seal=seal, now=now)
    await recorder.record(
        stores,
        f"change.{verdict.value}",
        _resource(change),
        kind=change.kind,
        subject=change.resource,
        payload_sha256=change.payload_sha256,
        vote_mac=cast.mac.hex(),
    )
    return voted


async def report(
    stores: Stores,
    change_id: str,
    *,
    service: str,
    applied: bool,
    payload_sha256: str,
    detail: str,
    seal: Seal,
    recorder: Recorder,
) -> Change:
    """Settle an approved change as applied or failed, once; the same report again changes nothing.

    Raises ChangeNotFoundError, ChangeOwnerError, ChangeExpiredError, ChangeNotApprovedError,
    ChangePayloadDiffersError, ChangeAppliedError.
    """
    change = await stores.changes.get(recorder.workspace, change_id)
    if change.service != service:
        raise ChangeOwnerError(
            f"{change.service} asked for this change and carries it out, not {service}.",
            metadata={"service": change.service},
        )
    wanted = ChangeState.APPLIED if applied else ChangeState.FAILED
    state = standing(change, seal=seal, now=recorder.now).state
    _check_reportable(change, state, wanted, payload_sha256)
    if state is wanted:
        return change
    return await settle(stores, change, outcome=wanted, detail=detail, seal=seal, recorder=recorder)


async def settle(
    stores: Stores, change: Change, *, outcome: ChangeState, detail: str, seal: Seal, recorder: Recorder
) -> Change:
    """Keep how an approved change ended."""
    settled = replace(change, outcome=outcome, settled_at=recorder.now, detail=detail)
    await stores.changes.settle(settled)
    await _publish(stores, settled, seal=seal, now=recorder.now)
    action = "change.apply" if outcome is ChangeState.APPLIED else "change.fail"
    await recorder.record(
        stores,
        action,
        _resource(change),
        kind=change.kind,
        subject=change.resource,
        payload_sha256=change.payload_sha256,
    )
    return settled


async def listed(
    stores: Stores, workspace: str, *, state: ChangeState | None, before: str, limit: int, seal: Seal, now: datetime
) -> Sequence[Change]:
    """Return at most `limit` changes, newest first, below an id ("" = from the newest), of one state or of all."""
    stored = state if state in {ChangeState.REJECTED, ChangeState.APPLIED, ChangeState.FAILED} else None
    found: list[Change] = []
    while len(found) < limit:
        size = limit if state is None or stored else _BATCH
        rows = await stores.changes.list(
            workspace, outcome=stored, unsettled=state is not None and stored is None, before=before, limit=size
        )
        found += [row for row in rows if state is None or standing(row, seal=seal, now=now).state is state]
        if len(rows) < size:
            break
        before = rows[-1].change_id
    return found[:limit]


def _counts(change: Change, cast: Vote, *, seal: Seal) -> bool:
    return (
        cast.voter != change.requester
        and cast.payload_sha256 == change.payload_sha256
        and cast.voted_at < change.pending_until
        and seal.intact(change, cast)
    )


async def _check_voter(stores: Stores, change: Change, voter: str) -> None:
    if voter == change.requester:
        raise VoteOwnChangeError(
            "You asked for this change; another person has to vote on it.",
            metadata={"policy_id": change.policy_id, "change_id": change.change_id},
        )
    principal = await stores.principals.get(change.workspace, voter)
    if principal.kind is not PrincipalKind.HUMAN or principal.disabled_at is not None:
        raise VoterNotHumanError(
            f"Principal {voter!r} is no active person. Only people vote on changes.", metadata={"principal": voter}
        )
    if any(cast.voter == voter for cast in change.votes):
        raise VoteExistsError("You voted on this change already.", metadata={"change_id": change.change_id})


def _check_open(change: Change, state: ChangeState, verdict: Verdict) -> None:
    if state is ChangeState.EXPIRED:
        raise ChangeExpiredError(
            "This change has expired. Have it asked for again.", metadata={"change_id": change.change_id}
        )
    # What is approved and not carried out yet can still be stopped.
    open_to = {ChangeState.PENDING} | ({ChangeState.APPROVED} if verdict is Verdict.REJECT else set())
    if state not in open_to:
        raise ChangeNotPendingError(
            f"This change is {state.value}; it waits for no votes.", metadata={"state": state.value.upper()}
        )


def _check_reportable(change: Change, state: ChangeState, wanted: ChangeState, payload_sha256: str) -> None:
    known = {"change_id": change.change_id, "state": state.value.upper()}
    if state is ChangeState.EXPIRED:
        raise ChangeExpiredError("The approval of this change has expired. Have it asked for again.", metadata=known)
    if state in {ChangeState.PENDING, ChangeState.REJECTED}:
        raise ChangeNotApprovedError(
            f"This change is {state.value}: nothing may be done for it.",
            metadata={"policy_id": change.policy_id, **known},
        )
    if payload_sha256 != change.payload_sha256:
        raise ChangePayloadDiffersError(
            "What is to be carried out is not what was approved. Have it asked for as it is now.",
            metadata={"payload_sha256": change.payload_sha256, **known},
        )
    if state not in {ChangeState.APPROVED, wanted}:
        raise ChangeAppliedError(f"This change is {state.value} already.", metadata=known)


def _asked(change: Change) -> tuple[object, ...]:
    return change.kind, change.resource, change.payload, change.requester, change.reason, change.policy_id


async def _publish(stores: Stores, change: Change, *, seal: Seal, now: datetime) -> None:
    now_standing = standing(change, seal=seal, now=now)
    end = change.settled_at or now_standing.expires_at
    await stores.changes.publish(change, now_standing, until=end + WATCHED_FOR)
    await stores.changes.unpublish(at=now)


def _resource(change: Change) -> str:
    return f"changes/{change.change_id}"
