"""Retention policies and legal holds: set, held, released, watched by who keeps data, and written down."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import audit_pb2, consents_pb2, legal_holds_pb2, privacy_requests_pb2
from counterfoil.governance.v1 import retention_policies_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from tests.governance.calls import Governance, MovableClock, refused

State = legal_holds_pb2.LegalHold.State
ADA = ("email", "Ada.Lovelace@example.com ")


async def hold(
    governance: Governance,
    *,
    dataset: str = "",
    person: tuple[str, str] | None = None,
    workspace: str = "default",
    ends: datetime | None = None,
) -> legal_holds_pb2.LegalHold:
    wanted = legal_holds_pb2.CreateLegalHoldRequest(
        dataset=dataset,
        identifiers=[consents_pb2.Subject(type=person[0], value=person[1])] if person else [],
        reason="case 17",
        owner="legal",
        expires_at=to_timestamp(ends) if ends else None,
    )
    return await governance.legal_holds.CreateLegalHold(wanted, **governance.as_principal(workspace=workspace))


async def release(governance: Governance, legal_hold_id: str) -> legal_holds_pb2.LegalHold:
    wanted = legal_holds_pb2.ReleaseLegalHoldRequest(legal_hold_id=legal_hold_id, reason="the case is closed")
    return await governance.legal_holds.ReleaseLegalHold(wanted, **governance.as_principal())


async def set_policy(
    governance: Governance, dataset: str = "visits", *, days: int = 30, etag: str = ""
) -> pb.RetentionPolicy:
    wanted = pb.SetRetentionPolicyRequest(dataset=dataset, days=days, purpose="measurement", owner="data", etag=etag)
    return await governance.retention_policies.SetRetentionPolicy(wanted, **governance.as_principal())


async def get_policy(governance: Governance, dataset: str = "visits") -> pb.RetentionPolicy:
    wanted = pb.GetRetentionPolicyRequest(dataset=dataset)
    return await governance.retention_policies.GetRetentionPolicy(wanted, **governance.as_principal())


async def report(governance: Governance, **counts: int | str) -> None:
    done = pb.RetentionReport(received_before=to_timestamp(datetime(2026, 10, 1, tzinfo=UTC)), **counts)
    wanted = pb.ReportRetentionRequest(workspace="default", dataset="visits", report=done)
    await governance.retention_policies.ReportRetention(wanted, **governance.as_service("ingest"))


async def erase_ada(governance: Governance) -> privacy_requests_pb2.PrivacyRequest:
    wanted = privacy_requests_pb2.CreatePrivacyRequestRequest(
        kind=privacy_requests_pb2.PrivacyRequest.Kind.ERASURE,
        identifiers=[consents_pb2.Subject(type=ADA[0], value=ADA[1].upper())],
    )
    return await governance.privacy_requests.CreatePrivacyRequest(wanted, **governance.as_principal())


async def get_request(governance: Governance, privacy_request_id: str) -> privacy_requests_pb2.PrivacyRequest:
    wanted = privacy_requests_pb2.GetPrivacyRequestRequest(privacy_request_id=privacy_request_id)
    return await governance.privacy_requests.GetPrivacyRequest(wanted, **governance.as_principal())


async def state_of(stream: AsyncIterator[WatchResponse]) -> dict[str, WatchResponse]:
    """Return what a new watcher is told, by key."""
    seen = {}
    async for response in stream:
        if response.WhichOneof("change") == "heartbeat":
            break
        seen[response.put.key] = response
    return seen


async def deeds(governance: Governance) -> list[str]:
    wanted = audit_pb2.ListAuditEntriesRequest(page_size=100)
    listed = await governance.audit.ListAuditEntries(wanted, **governance.as_principal())
    return [entry.action for entry in listed.entries]


async def test_a_hold_is_kept_without_the_identifiers_and_ends_with_a_reason(governance: Governance):
    made = await hold(governance, person=ADA)
    assert (made.state, list(made.identifier_types), made.owner) == (State.ACTIVE, ["email"], "legal")
    wanted = legal_holds_pb2.WatchLegalHoldsRequest()
    stream = governance.legal_holds.WatchLegalHolds(wanted, **governance.as_service("ingest"))
    told = await state_of(stream)
    stream.cancel()
    held = legal_holds_pb2.HeldData()
    told[f"default/{made.legal_hold_id}"].put.resource.Unpack(held)
    expected = hmac.digest(held.hash_key, b"email\0ada.lovelace@example.com", hashlib.sha256)
    assert list(held.identifier_hashes) == [expected]
    assert b"lovelace" not in held.SerializeToString().lower()
    released = await release(governance, made.legal_hold_id)
    assert (released.state, released.release_reason) == (State.RELEASED, "the case is closed")
    assert await release(governance, made.legal_hold_id) == released
    stream = governance.legal_holds.WatchLegalHolds(wanted, **governance.as_service("graph"))
    assert await state_of(stream) == {}
    stream.cancel()
    done = await deeds(governance)
    assert done.count("legal_hold.create") == done.count("legal_hold.release") == 1


async def test_a_hold_ends_at_its_time(governance: Governance, clock: MovableClock):
    made = await hold(governance, dataset="visits", ends=clock.now() + timedelta(days=1))
    asked = legal_holds_pb2.GetLegalHoldRequest(legal_hold_id=made.legal_hold_id)
    clock.move(timedelta(hours=23))
    assert (await governance.legal_holds.GetLegalHold(asked, **governance.as_principal())).state == State.ACTIVE
    clock.move(timedelta(hours=1))
    assert (await governance.legal_holds.GetLegalHold(asked, **governance.as_principal())).state == State.EXPIRED


async def test_a_hold_names_one_thing_in_its_own_workspace_that_is_not_over(governance: Governance):
    with refused("LEGAL_HOLD_TARGET"):
        await hold(governance)
    with refused("LEGAL_HOLD_TARGET"):
        await hold(governance, dataset="visits", person=ADA)
    with refused("LEGAL_HOLD_PERIOD"):
        await hold(governance, dataset="visits", ends=datetime(2001, 1, 1, tzinfo=UTC))
    other = await hold(governance, dataset="visits", workspace="other")
    with refused("LEGAL_HOLD_NOT_FOUND"):
        await release(governance, other.legal_hold_id)


async def test_a_request_of_a_held_person_says_that_it_waits_until_the_hold_is_over(governance: Governance):
    states = privacy_requests_pb2.PrivacyRequest.State
    held = await hold(governance, person=ADA)
    await hold(governance, person=("email", "grace@example.com"))
    await hold(governance, person=ADA, workspace="other")
    made = await erase_ada(governance)
    assert (made.state, list(made.legal_hold_ids)) == (states.HELD, [held.legal_hold_id])
    dataset = await hold(governance, dataset="visits")
    told = privacy_requests_pb2.ReportErasureHeldRequest(
        workspace="default",
        privacy_request_id=made.privacy_request_id,
        legal_hold_ids=[held.legal_hold_id, dataset.legal_hold_id],
    )
    for _ in range(2):
        await governance.privacy_requests.ReportErasureHeld(told, **governance.as_service("graph"))
    assert (await deeds(governance)).count("privacy_request.hold") == 1
    found = await get_request(governance, made.privacy_request_id)
    assert set(found.legal_hold_ids) == {held.legal_hold_id, dataset.legal_hold_id}
    await release(governance, held.legal_hold_id)
    found = await get_request(governance, made.privacy_request_id)
    assert (found.state, list(found.legal_hold_ids)) == (states.HELD, [dataset.legal_hold_id])
    await release(governance, dataset.legal_hold_id)
    found = await get_request(governance, made.privacy_request_id)
    assert (found.state, list(found.legal_hold_ids)) == (states.PENDING, [])


async def test_a_policy_is_replaced_only_by_who_has_read_it(governance: Governance):
    first = await set_policy(governance)
    second = await set_policy(governance, days=10, etag=first.etag)
    assert second.days == 10
    with refused("ETAG_MISMATCH"):
        await set_policy(governance, days=400, etag=first.etag)
    assert (await get_policy(governance)).days == 10
    wanted = pb.DeleteRetentionPolicyRequest(dataset="visits", etag=second.etag)
    await governance.retention_policies.DeleteRetentionPolicy(wanted, **governance.as_principal())
    with refused("RETENTION_POLICY_NOT_FOUND"):
        await get_policy(governance)
    assert [each for each in await deeds(governance) if each.startswith("retention_policy")].count(
        "retention_policy.set"
    ) == 2


async def test_policies_are_listed_by_dataset_and_watched(governance: Governance):
    for dataset in ("visits", "ad_spend", "orders"):
        await set_policy(governance, dataset)
    listed, token = [], ""
    while True:
        wanted = pb.ListRetentionPoliciesRequest(page_size=2, page_token=token)
        page = await governance.retention_policies.ListRetentionPolicies(wanted, **governance.as_principal())
        listed += [each.dataset for each in page.retention_policies]
        if not (token := page.next_page_token):
            break
    assert listed == ["ad_spend", "orders", "visits"]
    stream = governance.retention_policies.WatchRetentionPolicies(
        pb.WatchRetentionPoliciesRequest(), **governance.as_service("ingest")
    )
    assert set(await state_of(stream)) == {"default/ad_spend", "default/orders", "default/visits"}
    stream.cancel()


async def test_what_was_done_for_a_policy_adds_up_and_is_refused_when_something_is_left(governance: Governance):
    policy = await set_policy(governance)
    await report(governance, records=7, quarantined=1, held=2)
    await report(governance, records=3)
    found = await get_policy(governance)
    assert (found.report.records, found.report.quarantined, found.report.held) == (10, 1, 0)
    assert found.etag == policy.etag
    with refused("RETENTION_INCOMPLETE"):
        await report(governance, records=1, remaining=1)
    await report(governance, remaining=1, waiting_for="the graph to say who is held")
    found = await get_policy(governance)
    assert (found.report.records, found.report.waiting_for) == (10, "the graph to say who is held")
    assert (await deeds(governance)).count("retention_policy.erase") == 2


@pytest.mark.parametrize("service", ["graph", "models", "contracts"])
async def test_only_ingest_reports_retention(governance: Governance, service: str):
    await set_policy(governance)
    with refused("SERVICE_NOT_ALLOWED"):
        await governance.retention_policies.ReportRetention(
            pb.ReportRetentionRequest(workspace="default", dataset="visits", report=pb.RetentionReport()),
            **governance.as_service(service),
        )
