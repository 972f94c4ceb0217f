"""What needs a second person within governance itself: a policy bundle is submitted, and put in force by approval."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import orjson
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.identity import Caller

from counterfoil_governance import changes, policies
from counterfoil_governance.changes import Seal
from counterfoil_governance.entities import BundleState, Change, ChangeState, PolicyBundle, Verdict
from counterfoil_governance.policy_text import CheckedPolicies
from counterfoil_governance.recording import SERVICE, Recorder
from counterfoil_governance.store import Stores


async def submit_bundle(
    stores: Stores, *, caller: Caller, checked: CheckedPolicies, reason: str, seal: Seal, recorder: Recorder
) -> PolicyBundle:
    """Keep a new policy bundle and ask for the change that puts it in force.

    Raises PolicyDeniedError, PolicyLockoutError, ChangeRequesterError.
    """
    now, change_id = recorder.now, recorder.ids.new()
    submission = await policies.submit(
        stores, caller=caller, checked=checked, reason=reason, change_id=change_id, now=now
    )
    bundle = submission.bundle
    await recorder.record(stores, "policy_bundle.create", resource_of(bundle), sha256=bundle.sha256)
    change = Change(
        workspace=caller.workspace,
        change_id=change_id,
        service=SERVICE,
        request_id=change_id,
        kind=policies.ACTIVATE_KIND,
        resource=resource_of(bundle),
        payload=canonical_json(dict(submission.payload)),
        requester=caller.principal,
        reason=reason,
        policy_id=submission.policy_id,
        quorum=changes.QUORUM,
        created_at=now,
        pending_until=now + changes.PENDING_FOR,
    )
    await changes.create(stores, change, seal=seal, recorder=recorder)
    return bundle


async def approve(
    stores: Stores,
    change_id: str,
    *,
    caller: Caller,
    payload_sha256: str,
    reason: str,
    seal: Seal,
    recorder: Recorder,
) -> Change:
    """Vote for a change; governance's own are carried out with the vote that completes them, or the vote is refused."""
    change = await changes.vote(
        stores,
        change_id,
        verdict=Verdict.APPROVE,
        payload_sha256=payload_sha256,
        reason=reason,
        seal=seal,
        recorder=recorder,
    )
    now = recorder.now
    approved = changes.standing(change, seal=seal, now=now).state is ChangeState.APPROVED
    if not approved or change.service != SERVICE or change.kind != policies.ACTIVATE_KIND:
        return change
    payload = orjson.loads(change.payload)
    bundle = await policies.activate(stores, change, payload=payload, approver=caller, now=now)
    details = {"sha256": bundle.sha256, "change": change.change_id}
    await recorder.record(stores, "policy_bundle.activate", resource_of(bundle), **details)
    detail = f"Version {bundle.version} is in force."
    return await changes.settle(
        stores, change, outcome=ChangeState.APPLIED, detail=detail, seal=seal, recorder=recorder
    )


async def reject(stores: Stores, change_id: str, *, reason: str, seal: Seal, recorder: Recorder) -> Change:
    """Vote against a change; the policy bundle that waited for it is rejected with it."""
    change = await changes.vote(
        stores, change_id, verdict=Verdict.REJECT, payload_sha256=None, reason=reason, seal=seal, recorder=recorder
    )
    if change.service == SERVICE and change.kind == policies.ACTIVATE_KIND:
        await policies.reject(stores, change.workspace, int(orjson.loads(change.payload)["version"]))
    return change


def shown(bundle: PolicyBundle, *, now: datetime) -> PolicyBundle:
    """Return a bundle as people see it: one whose change nobody approved in time is rejected."""
    if bundle.state is BundleState.PROPOSED and now >= bundle.created_at + changes.PENDING_FOR:
        return replace(bundle, state=BundleState.REJECTED)
    return bundle


def resource_of(bundle: PolicyBundle) -> str:
    """Return the name of a bundle in changes and audit entries."""
    return f"policy-bundles/{bundle.version}"
