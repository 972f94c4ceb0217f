"""The policies that come with the platform: given to every workspace, and kept in step with a newer release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import bundle_sha256

from counterfoil_governance.entities import BundleState, PolicyBundle
from counterfoil_governance.errors import PoliciesInvalidError
from counterfoil_governance.policies import SUBMIT_METHOD, ask, calling
from counterfoil_governance.policy_text import check_policies, shipped_policies, shipped_schema
from counterfoil_governance.recording import Recorder
from counterfoil_governance.scopes import GOVERNANCE_WRITE
from counterfoil_governance.store import Stores

PLATFORM: Final = "platform"
"""Who submitted a bundle that holds the shipped policies, as long as a release may replace them."""
HIRE_METHODS: Final = (
    "counterfoil.governance.v1.PrincipalService/CreatePrincipal",
    "counterfoil.governance.v1.KeyService/CreateKey",
)
"""What finding a second person takes."""


async def ship_bundle(stores: Stores, *, workspace: str, now: datetime) -> PolicyBundle:
    """Put the policies that come with the platform in force in a new workspace, as version 1."""
    bundle = _shipped(workspace, version=1, now=now)
    await stores.bundles.add(bundle)
    await stores.bundles.publish(bundle)
    return bundle


async def keep_in_step(stores: Stores, *, recorder: Recorder) -> Sequence[PolicyBundle]:
    """Bring every workspace to the policies or, where it has its own, to the schema of this release.

    A workspace without policies gets those of the platform. Where nobody has replaced them, the newer ones of a
    release follow. Policies of a workspace's own stay as they are, held to the newer schema: without it every question
    that the release has added would be refused. Returns the bundles that do not fit that schema and stay with theirs.
    """
    for workspace in await stores.bundles.workspaces_without():
        bundle = await ship_bundle(stores, workspace=workspace, now=recorder.now)
        await _record(stores, bundle, recorder=recorder)
    left = []
    for in_force in await stores.bundles.outdated(shipped_policies(), shipped_schema(), platform=PLATFORM):
        newer = await _newer(stores, in_force, now=recorder.now)
        if newer is None:
            left.append(in_force)
        else:
            await _replace(stores, in_force, newer, recorder=recorder)
    return left


async def let_in(stores: Stores, caller: Caller, *, recorder: Recorder) -> None:
    """Put the platform's policies in force when those in force keep whom the environment lets in from governing.

    Without it a bundle that was sound for people who have left since could never be changed again.
    """
    in_force = await stores.bundles.in_force(caller.workspace)
    questions = [calling(method, GOVERNANCE_WRITE) for method in (SUBMIT_METHOD, *HIRE_METHODS)]
    if all(ask(in_force, caller, question, now=recorder.now).allowed for question in questions):
        return
    version = await stores.bundles.newest_version(caller.workspace) + 1
    await _replace(stores, in_force, _shipped(caller.workspace, version=version, now=recorder.now), recorder=recorder)


async def _newer(stores: Stores, in_force: PolicyBundle, *, now: datetime) -> PolicyBundle | None:
    """Return what follows a bundle of an older release; None when its policies do not fit the newer schema."""
    version = await stores.bundles.newest_version(in_force.workspace) + 1
    if in_force.created_by == PLATFORM:
        return _shipped(in_force.workspace, version=version, now=now)
    try:
        check_policies(in_force.policies, schema=shipped_schema())
    except PoliciesInvalidError:
        return None
    return replace(
        in_force,
        version=version,
        sha256=bundle_sha256(in_force.policies, shipped_schema()),
        schema=shipped_schema(),
        created_at=now,
        activated_at=now,
        reason=f"The policies of version {in_force.version}, held to the schema of a newer release.",
    )


async def _replace(stores: Stores, before: PolicyBundle, after: PolicyBundle, *, recorder: Recorder) -> None:
    await stores.bundles.set_state(replace(before, state=BundleState.RETIRED))
    await stores.bundles.add(after)
    await stores.bundles.publish(after)
    await _record(stores, after, recorder=recorder)


async def _record(stores: Stores, bundle: PolicyBundle, *, recorder: Recorder) -> None:
    resource = f"policy-bundles/{bundle.version}"
    details = {"sha256": bundle.sha256, "reason": bundle.reason}
    await recorder.record(stores, "policy_bundle.activate", resource, workspace=bundle.workspace, **details)


def _shipped(workspace: str, *, version: int, now: datetime) -> PolicyBundle:
    return PolicyBundle(
        workspace=workspace,
        version=version,
        state=BundleState.ACTIVE,
        sha256=bundle_sha256(shipped_policies(), shipped_schema()),
        policies=shipped_policies(),
        schema=shipped_schema(),
        created_by=PLATFORM,
        created_at=now,
        reason="The policies that come with the platform.",
        activated_at=now,
    )
