"""Policy bundles: which is in force, submitting and activating another, and asking them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import Answer, Policies, Question, bundle_sha256

from counterfoil_governance.entities import BundleState, Change, Policy, PolicyBundle, PrincipalKind
from counterfoil_governance.errors import PolicyBundleOutdatedError, PolicyLockoutError
from counterfoil_governance.policy_text import CheckedPolicies, read_policies
from counterfoil_governance.scopes import GOVERNANCE_APPROVE, GOVERNANCE_WRITE
from counterfoil_governance.store import Stores

ACTIVATE_KIND: Final = "policy_bundle.activate"
SECOND_PERSON: Final = "bundle-needs-second-person"
"""The policy that a change of policies names when no policy in force asks for a second person: the platform does."""
SUBMIT_METHOD: Final = "counterfoil.governance.v1.PolicyService/CreatePolicyBundle"
APPROVE_METHOD: Final = "counterfoil.governance.v1.ChangeService/ApproveChange"


@dataclass(frozen=True)
class Submission:
    """A bundle that was accepted, and the change that has to be approved for it; the change is still to be kept."""

    bundle: PolicyBundle
    policy_id: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One policy that is not the same in two bundles; None = it is not in that one."""

    policy_id: str
    before: Policy | None
    after: Policy | None


async def find_bundle(stores: Stores, workspace: str, version: int) -> PolicyBundle:
    """Return a version, or the one in force for version 0; raise PolicyBundleNotFoundError."""
    return await (stores.bundles.get(workspace, version) if version else stores.bundles.in_force(workspace))


async def submit(
    stores: Stores, *, caller: Caller, checked: CheckedPolicies, reason: str, change_id: str, now: datetime
) -> Submission:
    """Keep a new bundle, proposed, when the policies in force let the caller propose it.

    Raises PolicyDeniedError, PolicyLockoutError.
    """
    in_force = await stores.bundles.in_force(caller.workspace)
    version = await stores.bundles.newest_version(caller.workspace) + 1
    policy_id = _needs(in_force, caller, version=version, now=now)
    bundle = PolicyBundle(
        workspace=caller.workspace,
        version=version,
        state=BundleState.PROPOSED,
        sha256=bundle_sha256(checked.text, checked.schema),
        policies=checked.text,
        schema=checked.schema,
        created_by=caller.principal,
        created_at=now,
        reason=reason,
        change_id=change_id,
    )
    await guard_lockout(stores, bundle, in_force=in_force, now=now)
    await stores.bundles.add(bundle)
    payload = {
        "version": version,
        "sha256": bundle.sha256,
        "base_version": in_force.version,
        "base_sha256": in_force.sha256,
    }
    return Submission(bundle, policy_id, payload)


async def activate(
    stores: Stores, change: Change, *, payload: Mapping[str, Any], approver: Caller, now: datetime
) -> PolicyBundle:
    """Put the bundle of an approved change in force and retire the one before.

    Raises PolicyBundleOutdatedError when that one is not the one the change was made for, PolicyDeniedError when the
    policies in force refuse it although it is approved, PolicyLockoutError.
    """
    in_force = await stores.bundles.in_force(change.workspace)
    bundle = await stores.bundles.get(change.workspace, int(payload["version"]))
    intact = bundle.sha256 == payload["sha256"] == bundle_sha256(bundle.policies, bundle.schema)
    if bundle.state is not BundleState.PROPOSED or not intact or in_force.version != payload["base_version"]:
        raise PolicyBundleOutdatedError(
            f"Version {in_force.version} is in force, and this change was made for version {payload['base_version']}. "
            "Submit the bundle again, with what changed since.",
            metadata={"in_force": str(in_force.version), "base": str(payload["base_version"])},
        )
    ask(in_force, approver, activation(bundle.version, scope=GOVERNANCE_APPROVE, approved=True), now=now).require()
    await guard_lockout(stores, bundle, in_force=in_force, now=now)
    await stores.bundles.set_state(replace(in_force, state=BundleState.RETIRED))
    activated = replace(bundle, state=BundleState.ACTIVE, activated_at=now)
    await stores.bundles.set_state(activated)
    await stores.bundles.publish(activated)
    return activated


async def reject(stores: Stores, workspace: str, version: int) -> None:
    """Refuse a proposed bundle for good."""
    bundle = await stores.bundles.get(workspace, version)
    if bundle.state is BundleState.PROPOSED:
        await stores.bundles.set_state(replace(bundle, state=BundleState.REJECTED))


def ask(bundle: PolicyBundle, caller: Caller, question: Question, *, now: datetime) -> Answer:
    """Return what a bundle answers."""
    return parsed(bundle).answer(caller, question, at=now)


def parsed(bundle: PolicyBundle) -> Policies:
    """Return a bundle ready to be asked."""
    return _parsed(bundle.version, bundle.policies, bundle.schema)


def activation(version: int, *, scope: str, approved: bool) -> Question:
    """Return the question whether a bundle may come in force."""
    context = MappingProxyType({"scope": scope, "approved": approved})
    return Question("activate", "PolicyBundle", str(version), context=context)


def differences(before: PolicyBundle, after: PolicyBundle) -> Sequence[Difference]:
    """Return the policies that are not the same in both, by id."""
    old = {policy.policy_id: policy for policy in read_policies(before.policies)}
    new = {policy.policy_id: policy for policy in read_policies(after.policies)}
    names = sorted(old.keys() | new.keys())
    found = (Difference(name, old.get(name), new.get(name)) for name in names)
    return [difference for difference in found if difference.before != difference.after]


async def guard_lockout(stores: Stores, bundle: PolicyBundle, *, in_force: PolicyBundle, now: datetime) -> None:
    """Raise PolicyLockoutError when a bundle would leave nobody who can submit another and a second who can approve it.

    Asked of the accepted keys as they are. A workspace that lacks a second person anyhow is judged when its bundle is
    to come in force, which takes that second person.
    """
    callers, people = await _governors(stores, bundle.workspace, now=now)
    if not _pair(in_force, callers, people, now=now):
        return
    if not _pair(bundle, callers, people, now=now):
        raise PolicyLockoutError(
            "Under this bundle no two people with keys could change the policies again. Permit one to call "
            f"{SUBMIT_METHOD}, another to call {APPROVE_METHOD}, and both to activate a bundle; then submit it again.",
            metadata={"submit": SUBMIT_METHOD, "approve": APPROVE_METHOD},
        )


def _needs(in_force: PolicyBundle, caller: Caller, *, version: int, now: datetime) -> str:
    """Return the policy that asks for a second person; raise PolicyDeniedError when even that would not do."""
    alone = ask(in_force, caller, activation(version, scope=GOVERNANCE_WRITE, approved=False), now=now)
    if alone.allowed:
        return SECOND_PERSON
    ask(in_force, caller, activation(version, scope=GOVERNANCE_WRITE, approved=True), now=now).require()
    return alone.policy_ids[0]


async def _governors(stores: Stores, workspace: str, *, now: datetime) -> tuple[Sequence[Caller], frozenset[str]]:
    """Return the accepted keys as callers, and which of their principals are people."""
    keys = [key for key in await stores.keys.unrevoked(workspace) if key.accepted(now)]
    names = sorted({key.principal_id for key in keys})
    principals = {name: await stores.principals.get(workspace, name) for name in names}
    callers = [
        Caller(workspace, key.principal_id, frozenset(key.scopes), "", frozenset(principals[key.principal_id].roles))
        for key in keys
    ]
    return callers, frozenset(name for name, found in principals.items() if found.kind is PrincipalKind.HUMAN)


def _pair(bundle: PolicyBundle, callers: Sequence[Caller], people: frozenset[str], *, now: datetime) -> bool:
    """Tell whether somebody can submit a bundle that another, a person, can approve."""
    submitters, approvers = set(), set()
    for caller in callers:
        if _may(bundle, caller, method=SUBMIT_METHOD, scope=GOVERNANCE_WRITE, now=now):
            submitters.add(caller.principal)
        if caller.principal in people and _may(
            bundle, caller, method=APPROVE_METHOD, scope=GOVERNANCE_APPROVE, now=now
        ):
            approvers.add(caller.principal)
    return bool(submitters) and bool(approvers) and len(submitters | approvers) > 1


def _may(bundle: PolicyBundle, caller: Caller, *, method: str, scope: str, now: datetime) -> bool:
    if scope not in caller.scopes:
        return False
    questions = (calling(method, scope), activation(bundle.version + 1, scope=scope, approved=True))
    return all(ask(bundle, caller, question, now=now).allowed for question in questions)


def calling(method: str, scope: str) -> Question:
    """Return what the gateway asks before it calls a method of governance that writes."""
    attributes = MappingProxyType({"scope": scope, "service": "governance", "writes": True})
    return Question("call", "Method", method, attributes=attributes)


@functools.lru_cache(maxsize=16)
def _parsed(version: int, policies: str, schema: str) -> Policies:
    return Policies(version=version, policies=policies, schema=schema)
