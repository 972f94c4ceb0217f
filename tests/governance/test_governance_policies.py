"""Policy bundles: what is accepted, how one comes in force, and what the policies answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from counterfoil.governance.v1 import audit_pb2, changes_pb2, workspaces_pb2
from counterfoil.governance.v1 import policies_pb2 as pb
from counterfoil_governance.policy_text import shipped_policies, shipped_schema

from tests.governance.calls import Governance, refused

State = pb.PolicyBundle.State
NO_EXPORT_TO_SHOP = """
@id("no-export-to-shop")
@owner("privacy")
@description("Nothing goes to the shop.")
forbid (principal, action == Counterfoil::Action::"export", resource)
when { context.destination == "shop" };
"""
OVERFLOWING = """
@id("overflows")
@owner("privacy")
forbid (principal, action == Counterfoil::Action::"export", resource)
when { context.people * 9223372036854775807 > 0 };
"""
EXPORT: Mapping[str, Any] = {
    "scope": "graph.export",
    "purpose": "advertising",
    "destination": "shop",
    "people": 10,
    "without_consent": 0,
    "approved": True,
}


async def submit(
    governance: Governance, text: str, *, caller: dict[str, Any] | None = None, request_id: str = ""
) -> pb.PolicyBundle:
    request = pb.CreatePolicyBundleRequest(policies=text, reason="needed", request_id=request_id)
    return await governance.policies.CreatePolicyBundle(request, **(caller or governance.as_principal()))


async def change_of(governance: Governance, bundle: pb.PolicyBundle, **whose: Any) -> changes_pb2.Change:
    request = changes_pb2.GetChangeRequest(change_id=bundle.change_id)
    return await governance.changes.GetChange(request, **governance.as_principal(**whose))


async def approve(governance: Governance, bundle: pb.PolicyBundle, caller: dict[str, Any]) -> changes_pb2.Change:
    change = await change_of(governance, bundle)
    request = changes_pb2.ApproveChangeRequest(change_id=change.change_id, payload_sha256=change.payload_sha256)
    return await governance.changes.ApproveChange(request, **caller)


async def put_in_force(governance: Governance, text: str, *, by: str = "rex") -> pb.PolicyBundle:
    bundle = await submit(governance, text)
    reviewer = await governance.hire(by, roles=["reviewer"])
    assert (await approve(governance, bundle, reviewer)).state == changes_pb2.Change.State.APPLIED
    return bundle


async def check(
    governance: Governance,
    action: str,
    resource: tuple[str, str],
    context: Mapping[str, Any],
    *,
    attributes: Mapping[str, Any] | None = None,
    caller: dict[str, Any] | None = None,
    **fields: Any,
) -> pb.CheckPolicyResponse:
    request = pb.CheckPolicyRequest(
        action=action,
        resource_type=resource[0],
        resource_id=resource[1],
        attributes=json.dumps(attributes or {}).encode(),
        context=json.dumps(context).encode(),
        **fields,
    )
    return await governance.policies.CheckPolicy(request, **(caller or governance.as_principal()))


async def bundle_in_force(governance: Governance, **whose: Any) -> pb.PolicyBundle:
    return await governance.policies.GetPolicyBundle(pb.GetPolicyBundleRequest(), **governance.as_principal(**whose))


async def test_every_workspace_begins_with_the_shipped_policies_in_force(governance: Governance) -> None:
    await governance.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(workspace_id="acme"), **governance.as_principal()
    )
    for workspace in ("default", "acme"):
        bundle = await bundle_in_force(governance, workspace=workspace)
        assert (bundle.version, bundle.state, bundle.created_by) == (1, State.ACTIVE, "platform")
        assert (bundle.policies, bundle.schema) == (shipped_policies(), shipped_schema())
        assert bundle.activated_at == bundle.created_at
        assert bundle.workspace == ""


async def test_lists_the_policies_in_force_with_owner_and_text(governance: Governance) -> None:
    seen, request = [], pb.ListPoliciesRequest(page_size=4)
    while True:
        page = await governance.policies.ListPolicies(request, **governance.as_principal())
        seen += page.policies
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [policy.policy_id for policy in seen] == [
        "scope-permits-call",
        "scope-permits-act",
        "promotion-needs-second-person",
        "use-needs-consent",
        "restricted-needs-ingest-admin",
        "export-needs-consent",
        "export-needs-second-person",
        "bundle-needs-second-person",
    ]
    assert all(policy.owner and policy.description and policy.text.endswith(";") for policy in seen)
    assert {policy.effect for policy in seen[2:]} == {pb.Policy.Effect.FORBID}


PLAIN = '@id("a") @owner("b") permit (principal, action, resource)'
EXPORTING = '@id("a") @owner("b") forbid (principal, action == Counterfoil::Action::"export", resource)'


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("// nothing", "POLICY_NONE", "no policy"),
        ("permit (principal, action, resource) when {", "POLICY_SYNTAX", "line 1: unexpected end of input"),
        ('\n\n@owner("a") permit (principal, action, resource);', "POLICY_ID", "line 3"),
        ('@id("Caps") @owner("a") permit (principal, action, resource);', "POLICY_ID", "lower-case"),
        ('@id("a") permit (principal, action, resource);', "POLICY_OWNER", "@owner"),
        (f"{shipped_policies()}\n{shipped_policies()}", "POLICY_ID_REPEATED", "scope-permits-call is used in line 3"),
        (PLAIN.replace("principal", "principal == ?principal") + ";", "POLICY_TEMPLATE", "write them out"),
        (f"\n{EXPORTING}\nwhen {{ context.peeple > 1 }};", "POLICY_SCHEMA", "line 2: a: attribute `peeple`"),
        (f'{EXPORTING} when {{ context.people > "1" }};', "POLICY_SCHEMA", "a:"),
        # Each but the shortest would overflow the stack of Cedar's parser and end the process.
        (f"{PLAIN} when {{ {'(' * 2000}true{')' * 2000} }};", "POLICY_TOO_DEEP", "50"),
        (f"{PLAIN} when {{ {'if true then true else ' * 6000}true }};", "POLICY_TOO_DEEP", "50"),
        (f"{PLAIN} when {{ {'true && ' * 300}true }};", "POLICY_TOO_DEEP", "several"),
        (f"{PLAIN} when {{ {'true && ' * 30000}true }};", "POLICY_TOO_DEEP", "several"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else "",
)
async def test_a_faulty_bundle_is_refused_with_the_line_of_each_fault(
    governance: Governance, text: str, reason: str, said: str
) -> None:
    with refused("POLICIES_INVALID") as refusal:
        await submit(governance, text)
    assert refusal.failure is not None
    assert refusal.failure.violations[0].reason == reason
    assert said in refusal.failure.violations[0].description
    assert (await bundle_in_force(governance)).version == 1


async def test_semicolons_in_strings_and_comments_end_no_policy(governance: Governance) -> None:
    text = (
        shipped_policies()
        + '// a comment; with "quotes\n@id("odd") @owner("a;b") @description("say \\"no\\"; or // yes")\n'
        + 'forbid (principal, action == Counterfoil::Action::"export", resource) // why;\n'
        + 'when { context.purpose == "}; permit(principal, action, resource);" };'
    )
    bundle = await submit(governance, text)
    request = pb.DiffPolicyBundlesRequest(version=bundle.version)
    [found] = (await governance.policies.DiffPolicyBundles(request, **governance.as_principal())).differences
    assert (found.policy_id, found.HasField("before")) == ("odd", False)
    assert (found.after.owner, found.after.description) == ("a;b", 'say "no"; or // yes')


async def test_a_bundle_comes_in_force_when_a_second_person_approves_it(governance: Governance) -> None:
    bundle = await submit(governance, shipped_policies() + NO_EXPORT_TO_SHOP)
    assert (bundle.version, bundle.state, bundle.created_by) == (2, State.PROPOSED, "admin")
    change = await change_of(governance, bundle)
    assert (change.kind, change.resource, change.requester, change.quorum) == (
        "policy_bundle.activate",
        "policy-bundles/2",
        "admin",
        1,
    )
    assert change.policy_id == "bundle-needs-second-person"
    assert json.loads(change.payload)["sha256"] == bundle.sha256
    with refused("VOTE_OWN_CHANGE"):
        await approve(governance, bundle, governance.as_principal())
    assert (await bundle_in_force(governance)).version == 1
    governance.clock.move(timedelta(hours=1))
    applied = await approve(governance, bundle, await governance.hire("rex", roles=["reviewer"]))
    assert (applied.state, applied.detail) == (changes_pb2.Change.State.APPLIED, "Version 2 is in force.")
    now = await bundle_in_force(governance)
    assert (now.version, now.state, now.activated_at) == (2, State.ACTIVE, applied.applied_at)
    listed = await governance.policies.ListPolicyBundles(pb.ListPolicyBundlesRequest(), **governance.as_principal())
    assert [(one.version, one.state, one.policies) for one in listed.policy_bundles] == [
        (2, State.ACTIVE, ""),
        (1, State.RETIRED, ""),
    ]


async def test_a_forbid_of_the_new_bundle_is_in_force_and_a_revert_takes_it_out(governance: Governance) -> None:
    exporting = {"resource": ("PersonSet", "buyers"), "context": EXPORT}
    assert (await check(governance, "export", **exporting)).allowed
    await put_in_force(governance, shipped_policies() + NO_EXPORT_TO_SHOP)
    refusal = await check(governance, "export", **exporting)
    assert (refusal.allowed, list(refusal.policy_ids), refusal.version) == (False, ["no-export-to-shop"], 2)
    before = await check(governance, "export", **exporting, version=1)
    assert (before.allowed, list(before.policy_ids)) == (True, ["scope-permits-act"])
    first = await governance.policies.GetPolicyBundle(pb.GetPolicyBundleRequest(version=1), **governance.as_principal())
    reverted = await put_in_force(governance, first.policies, by="pat")
    assert (reverted.version, reverted.sha256) == (3, first.sha256)
    assert (await check(governance, "export", **exporting)).allowed


async def test_a_rejected_bundle_never_comes_in_force(governance: Governance) -> None:
    bundle = await submit(governance, shipped_policies() + NO_EXPORT_TO_SHOP)
    reviewer = await governance.hire("rex", roles=["reviewer"])
    request = changes_pb2.RejectChangeRequest(change_id=bundle.change_id, reason="the shop pays")
    await governance.changes.RejectChange(request, **reviewer)
    with refused("VOTE_EXISTS"):
        await approve(governance, bundle, reviewer)
    other = await governance.hire("pat", roles=["reviewer"])
    with refused("CHANGE_NOT_PENDING"):
        await approve(governance, bundle, other)
    shown = await governance.policies.GetPolicyBundle(pb.GetPolicyBundleRequest(version=2), **governance.as_principal())
    assert shown.state == State.REJECTED
    assert (await bundle_in_force(governance)).version == 1


async def test_a_bundle_that_nobody_approved_in_time_is_rejected(governance: Governance) -> None:
    bundle = await submit(governance, shipped_policies() + NO_EXPORT_TO_SHOP)
    await governance.hire("rex", roles=["reviewer"])
    governance.clock.move(timedelta(days=7))
    with refused("CHANGE_EXPIRED"):
        await approve(governance, bundle, governance.as_hired("rex"))
    shown = await governance.policies.GetPolicyBundle(pb.GetPolicyBundleRequest(version=2), **governance.as_principal())
    assert shown.state == State.REJECTED


async def test_a_bundle_made_for_another_one_does_not_undo_it(governance: Governance) -> None:
    stale = await submit(governance, shipped_policies() + OVERFLOWING)
    await put_in_force(governance, shipped_policies() + NO_EXPORT_TO_SHOP)
    with refused("POLICY_BUNDLE_OUTDATED") as refusal:
        await approve(governance, stale, await governance.hire("pat", roles=["reviewer"]))
    assert refusal.failure is not None
    assert refusal.failure.metadata == {"in_force": "3", "base": "1"}
    assert (await change_of(governance, stale)).state == changes_pb2.Change.State.PENDING
    assert not (await change_of(governance, stale)).votes


async def test_the_same_request_id_submits_once(governance: Governance) -> None:
    first = await submit(governance, shipped_policies(), request_id="once")
    assert await submit(governance, shipped_policies(), request_id="once") == first
    assert (await submit(governance, shipped_policies(), request_id="twice")).version == 3


@pytest.mark.parametrize(
    "locking",
    [
        '@id("all") @owner("a") forbid (principal, action, resource);',
        '@id("all") @owner("a") forbid (principal, action == Counterfoil::Action::"activate", resource);',
        """@id("all") @owner("a") forbid (principal, action == Counterfoil::Action::"call",
        resource == Counterfoil::Method::"counterfoil.governance.v1.ChangeService/ApproveChange");""",
        """@id("all") @owner("a") forbid (principal != Counterfoil::Principal::"admin", action, resource);""".replace(
            'principal != Counterfoil::Principal::"admin"', "principal"
        ).replace(";", ' unless { principal == Counterfoil::Principal::"admin" };'),
        '@id("all") @owner("a") forbid (principal in Counterfoil::Role::"reviewer", action, resource);',
    ],
    ids=["everything", "activate", "approve", "all-but-admin", "the-only-reviewer"],
)
async def test_a_bundle_that_would_lock_everybody_out_is_refused(governance: Governance, locking: str) -> None:
    await governance.hire("rex", roles=["reviewer"])
    with refused("POLICY_LOCKOUT") as refusal:
        await submit(governance, shipped_policies() + locking)
    assert refusal.failure is not None
    assert "CreatePolicyBundle" in refusal.failure.detail


async def test_a_lockout_is_found_at_the_latest_when_a_second_person_approves(governance: Governance) -> None:
    everything = '@id("all") @owner("a") forbid (principal, action, resource);'
    bundle = await submit(governance, shipped_policies() + everything)  # nobody but admin is there to judge it by
    with refused("POLICY_LOCKOUT"):
        await approve(governance, bundle, await governance.hire("rex", roles=["reviewer"]))
    assert (await bundle_in_force(governance)).version == 1


async def test_a_second_person_is_asked_for_even_when_no_policy_does(governance: Governance) -> None:
    without = shipped_policies().partition('@id("bundle-needs-second-person")')[0]
    await put_in_force(governance, without)
    bundle = await submit(governance, shipped_policies())
    assert (bundle.state, (await change_of(governance, bundle)).policy_id) == (
        State.PROPOSED,
        "bundle-needs-second-person",
    )
    with refused("VOTE_OWN_CHANGE"):
        await approve(governance, bundle, governance.as_principal())


async def test_who_the_policies_forbid_to_activate_proposes_nothing(governance: Governance) -> None:
    forbidding = """@id("not-by-eve") @owner("a")
    forbid (principal == Counterfoil::Principal::"eve", action == Counterfoil::Action::"activate", resource);"""
    await put_in_force(governance, shipped_policies() + forbidding)
    eve = await governance.hire("eve", roles=["steward", "reviewer"])
    with refused("POLICY_DENIED") as refusal:
        await submit(governance, shipped_policies(), caller=eve)
    assert refusal.failure is not None
    assert refusal.failure.metadata["policy_id"] == "not-by-eve"
    bundle = await submit(governance, shipped_policies())
    with refused("POLICY_DENIED"):
        await approve(governance, bundle, eve)


@pytest.mark.parametrize(
    ("context", "policies"),
    [
        ({}, ["scope-permits-act"]),
        ({"without_consent": 1}, ["export-needs-consent"]),
        ({"approved": False}, ["export-needs-second-person"]),
        ({"approved": False, "without_consent": 1}, ["export-needs-consent", "export-needs-second-person"]),
        ({"scope": "graph.unknown"}, ["default-deny"]),
    ],
    ids=str,
)
async def test_exports_are_answered_by_the_shipped_policies(
    governance: Governance, context: dict[str, Any], policies: list[str]
) -> None:
    answer = await check(governance, "export", ("PersonSet", "buyers"), {**EXPORT, **context})
    assert (answer.allowed, sorted(answer.policy_ids), list(answer.errors)) == (
        policies == ["scope-permits-act"],
        policies,
        [],
    )


@pytest.mark.parametrize(("tier", "approved", "allowed"), [(1, False, True), (2, False, False), (3, True, True)])
async def test_promotions_need_a_second_person_from_the_medium_tier_on(
    governance: Governance, tier: int, approved: bool, allowed: bool
) -> None:
    attributes = {"kind": "forecast", "impact_tier": tier, "purpose": "planning", "created_by": "ada"}
    context = {"scope": "models.write", "approved": approved}
    answer = await check(governance, "promote", ("Model", "churn"), context, attributes=attributes)
    assert answer.allowed is allowed
    assert list(answer.policy_ids) == ["scope-permits-act" if allowed else "promotion-needs-second-person"]


@pytest.mark.parametrize(
    ("personal", "people", "without", "allowed"),
    [(False, 0, 0, True), (True, 0, 0, True), (True, 3, 5, True), (True, 0, 5, False), (False, 0, 5, True)],
)
async def test_uses_are_refused_when_nobody_consented(
    governance: Governance, personal: bool, people: int, without: int, allowed: bool
) -> None:
    context = {"scope": "models.write", "purpose": "measurement", "personal": personal}
    answer = await check(
        governance, "use", ("Dataset", "orders"), {**context, "people": people, "without_consent": without}
    )
    assert (answer.allowed, list(answer.policy_ids)) == (
        allowed,
        ["scope-permits-act" if allowed else "use-needs-consent"],
    )


async def test_an_erroring_forbid_refuses_and_is_named(governance: Governance) -> None:
    await put_in_force(governance, shipped_policies() + OVERFLOWING)
    answer = await check(governance, "export", ("PersonSet", "buyers"), EXPORT)
    assert (answer.allowed, list(answer.policy_ids)) == (False, ["overflows"])
    assert "integer overflow" in answer.errors[0]
    both = await check(governance, "export", ("PersonSet", "buyers"), {**EXPORT, "without_consent": 1})
    assert (both.allowed, sorted(both.policy_ids)) == (False, ["export-needs-consent", "overflows"])


@pytest.mark.parametrize(
    ("action", "resource", "attributes", "context"),
    [
        ("export", ("PersonSet", "x"), {}, {key: EXPORT[key] for key in EXPORT if key != "approved"}),
        ("export", ("PersonSet", "x"), {}, {**EXPORT, "more": 1}),
        ("export", ("PersonSet", "x"), {"colour": "red"}, EXPORT),
        ("export", ("PersonSet", "x"), {}, {**EXPORT, "people": 1.5}),
        ("export", ("PersonSet", "x"), {}, {**EXPORT, "people": 1e30}),
        ("export", ("PersonSet", "x"), {}, {**EXPORT, "people": None}),
        ("export", ("Model", "x"), {}, EXPORT),
        ("export", ("Spaceship", "x"), {}, EXPORT),
        ("abduct", ("PersonSet", "x"), {}, EXPORT),
        ("promote", ("Model", "x"), {}, {"scope": "models.write", "approved": True}),
    ],
    ids=[
        "missing",
        "more",
        "attribute",
        "float",
        "huge",
        "null",
        "type",
        "unknown-type",
        "unknown-action",
        "bare-model",
    ],
)
async def test_a_question_that_does_not_fit_the_schema_is_refused(
    governance: Governance, action: str, resource: tuple[str, str], attributes: dict[str, Any], context: dict[str, Any]
) -> None:
    answer = await check(governance, action, resource, context, attributes=attributes)
    assert (answer.allowed, list(answer.policy_ids), len(answer.errors)) == (False, ["default-deny"], 1)


async def test_attributes_that_are_no_object_are_told(governance: Governance) -> None:
    request = pb.CheckPolicyRequest(action="use", resource_type="Dataset", resource_id="x", context=b"[]")
    with refused("QUESTION_MALFORMED"):
        await governance.policies.CheckPolicy(request, **governance.as_principal())


async def test_policies_can_name_roles(governance: Governance) -> None:
    text = """@id("no-export-by-analysts") @owner("privacy")
    forbid (principal in Counterfoil::Role::"analyst", action == Counterfoil::Action::"export", resource);"""
    await put_in_force(governance, shipped_policies() + text)
    analyst = await governance.hire("ann", roles=["analyst"])
    mine = await check(governance, "export", ("PersonSet", "buyers"), EXPORT, caller=analyst)
    asked_for = await check(governance, "export", ("PersonSet", "buyers"), EXPORT, principal_id="ann")
    assert mine == asked_for
    assert (mine.allowed, list(mine.policy_ids)) == (False, ["no-export-by-analysts"])
    assert (await check(governance, "export", ("PersonSet", "buyers"), EXPORT)).allowed


async def test_a_question_for_another_principal_uses_its_keys(governance: Governance) -> None:
    await governance.hire("rob", human=False, scopes=frozenset({"models.write"}))
    denied = await check(governance, "export", ("PersonSet", "x"), EXPORT, principal_id="rob")
    assert (denied.allowed, list(denied.policy_ids)) == (False, ["default-deny"])
    with refused("PRINCIPAL_NOT_FOUND"):
        await check(governance, "export", ("PersonSet", "x"), EXPORT, principal_id="nobody")


async def test_bundles_of_another_workspace_are_not_found(governance: Governance) -> None:
    await governance.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(workspace_id="acme"), **governance.as_principal()
    )
    bundle = await submit(governance, shipped_policies())
    with refused("POLICY_BUNDLE_NOT_FOUND"):
        await governance.policies.GetPolicyBundle(
            pb.GetPolicyBundleRequest(version=2), **governance.as_principal(workspace="acme")
        )
    with refused("CHANGE_NOT_FOUND"):
        await change_of(governance, bundle, workspace="acme")


async def test_every_deed_is_in_the_audit_log(governance: Governance) -> None:
    await put_in_force(governance, shipped_policies() + NO_EXPORT_TO_SHOP)
    listed = await governance.audit.ListAuditEntries(
        audit_pb2.ListAuditEntriesRequest(page_size=100), **governance.as_principal()
    )
    said = [(entry.principal, entry.action, entry.resource.split("/")[0]) for entry in listed.entries]
    assert said == [
        ("service:governance", "workspace.create", "workspaces"),
        ("service:governance", "key.create", "keys"),
        ("admin", "policy_bundle.create", "policy-bundles"),
        ("admin", "change.create", "changes"),
        ("admin", "principal.create", "principals"),
        ("admin", "key.create", "keys"),
        ("rex", "change.approve", "changes"),
        ("rex", "policy_bundle.activate", "policy-bundles"),
        ("rex", "change.apply", "changes"),
    ]
