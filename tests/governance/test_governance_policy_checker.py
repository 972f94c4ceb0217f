"""Policy checks of other services against a running governance: what a second person approves is in force there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from counterfoil.governance.v1 import changes_pb2, policies_pb2, principals_pb2, workspaces_pb2
from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import PolicyChecker, PolicyDeniedError, PolicyUnavailableError, Question
from counterfoil_governance.policy_text import shipped_policies
from counterfoil_governance.scopes import ALL_SCOPES

from tests.governance.calls import Governance, MovableClock, governance_in

ANN = Caller("default", "ann", frozenset({"graph.export"}), "", frozenset({"analyst"}))
EXPORT = Question(
    "export",
    "PersonSet",
    "buyers",
    context={
        "scope": "graph.export",
        "purpose": "advertising",
        "destination": "shop",
        "people": 3,
        "without_consent": 0,
        "approved": True,
    },
)
FORBID = """
@id("no-export-by-analysts") @owner("privacy")
forbid (principal in Counterfoil::Role::"analyst", action == Counterfoil::Action::"export", resource);
"""


@asynccontextmanager
async def checking(governance: Governance) -> AsyncIterator[PolicyChecker]:
    checker = PolicyChecker(governance.channel, governance.signers["graph"], governance.clock)
    task = asyncio.create_task(checker.run())
    async with asyncio.timeout(60):
        await checker.current()
    yield checker
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def put_in_force(governance: Governance, text: str, *, approver: dict[str, Any]) -> None:
    bundle = await governance.policies.CreatePolicyBundle(
        policies_pb2.CreatePolicyBundleRequest(policies=text, reason="needed"), **governance.as_principal()
    )
    found = await governance.changes.GetChange(
        changes_pb2.GetChangeRequest(change_id=bundle.change_id), **governance.as_principal()
    )
    vote = changes_pb2.ApproveChangeRequest(change_id=found.change_id, payload_sha256=found.payload_sha256)
    await governance.changes.ApproveChange(vote, **approver)


async def test_a_forbid_is_in_force_elsewhere_once_it_is_approved(governance: Governance) -> None:
    reviewer = await governance.hire("rex", roles=["reviewer"])
    async with checking(governance) as checker:
        assert (await checker.require(ANN, EXPORT)).bundle_version == 1
        await put_in_force(governance, shipped_policies() + FORBID, approver=reviewer)
        async with asyncio.timeout(60):
            while (await checker.ask(ANN, EXPORT)).bundle_version == 1:
                await asyncio.sleep(0.002)  # what arrives by the stream has no event of its own
        with pytest.raises(PolicyDeniedError) as refusal:
            await checker.require(ANN, EXPORT)
        assert refusal.value.metadata["policy_id"] == "no-export-by-analysts"


async def test_a_new_workspace_is_known_at_once(governance: Governance) -> None:
    async with checking(governance) as checker:
        with pytest.raises(PolicyUnavailableError):
            await checker.ask(Caller("acme", "admin", ALL_SCOPES, ""), EXPORT)
        await governance.workspaces.CreateWorkspace(
            workspaces_pb2.CreateWorkspaceRequest(workspace_id="acme"), **governance.as_principal()
        )
        assert (await checker.require(Caller("acme", "admin", ALL_SCOPES, ""), EXPORT)).bundle_version == 1


ONLY_BY_EVE = """
@id("only-eve-and-rex") @owner("governance")
forbid (principal, action, resource)
unless { [Counterfoil::Principal::"eve", Counterfoil::Principal::"rex"].contains(principal) };
"""


async def test_whoever_sets_the_environment_gets_in_whatever_the_policies_say(
    tmp_path: Path, clock: MovableClock
) -> None:
    first, second, third = (hashlib.sha256(name.encode()).hexdigest() for name in ("first", "second", "third"))
    method = Question(
        "call",
        "Method",
        "counterfoil.governance.v1.PrincipalService/CreatePrincipal",
        attributes={"scope": "governance.write", "service": "governance", "writes": True},
    )
    admin = Caller("default", "admin", ALL_SCOPES, "")
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=first) as governance:
        await governance.hire("eve")
        reviewer = await governance.hire("rex")
        await put_in_force(governance, shipped_policies() + ONLY_BY_EVE, approver=reviewer)
        for name in ("eve", "rex"):  # who were the only ones to govern, and leave
            await governance.principals.DisablePrincipal(
                principals_pb2.DisablePrincipalRequest(principal_id=name), **governance.as_principal()
            )
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=first) as governance, checking(governance) as locked:
        assert not (await locked.ask(admin, method)).allowed
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=second) as governance, checking(governance) as open_:
        answer = await open_.require(admin, method)
        assert answer.bundle_version == 3
        bundle = await governance.policies.GetPolicyBundle(
            policies_pb2.GetPolicyBundleRequest(), **governance.as_principal()
        )
        assert (bundle.policies, bundle.created_by) == (shipped_policies(), "platform")
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=third) as governance, checking(governance) as same:
        assert (await same.require(admin, method)).bundle_version == 3
