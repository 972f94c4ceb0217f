"""Policies of models: what is asked of them, and promotions that need a second person."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.governance.v1 import changes_pb2
from counterfoil.models.v1 import forecasts_pb2, models_pb2
from counterfoil_chassis.canonical import canonical_json, sha256_hex

from tests.models.shop import Client, World, demand

V = models_pb2.ModelVersion
C = changes_pb2.Change
FORBID_TRAINING = (
    '@id("no-training") @owner("t") '
    'forbid (principal, action == Counterfoil::Action::"train", resource) '
    'when { resource.purpose == "demand_planning" };'
)
ERRING = (
    '@id("overflowing") @owner("t") '
    'forbid (principal, action == Counterfoil::Action::"forecast", resource) '
    "when { resource.impact_tier * 9223372036854775807 > 0 && resource.impact_tier + 9223372036854775807 > 0 };"
)


def steering(model_id: str = "demand") -> models_pb2.CreateModelRequest:
    request = demand(model_id)
    request.impact_tier = receipts_pb2.IMPACT_TIER_MEDIUM
    return request


async def trained(client: Client, request: models_pb2.CreateModelRequest) -> models_pb2.ModelVersion:
    await client(client.models.CreateModel, request)
    version = await client.trained("demand")
    assert version.state == V.VALIDATED
    return version


def promotion(version: int = 1, *, ask: bool = False, reason: str = "Better.") -> models_pb2.PromoteModelVersionRequest:
    return models_pb2.PromoteModelVersionRequest(
        model_id="demand", version=version, reason=reason, request_approval=ask
    )


async def asked(client: Client, version: int = 1) -> models_pb2.ModelVersion:
    waiting = await client(client.models.PromoteModelVersion, promotion(version, ask=True))
    assert waiting.state == V.PENDING_APPROVAL
    return waiting


async def version_of(client: Client, version: int = 1) -> models_pb2.ModelVersion:
    request = models_pb2.GetModelVersionRequest(model_id="demand", version=version)
    return await client(client.models.GetModelVersion, request)


async def reaches(client: Client, state: V.State.ValueType, version: int = 1) -> models_pb2.ModelVersion:
    async with asyncio.timeout(60):
        while True:
            found = await version_of(client, version)
            if found.state == state:
                return found
            await asyncio.sleep(0.02)


async def events(client: Client) -> list[models_pb2.ModelEvent]:
    request = models_pb2.ListModelEventsRequest(model_id="demand")
    return list((await client(client.models.ListModelEvents, request)).events)


async def forecast(client: Client) -> forecasts_pb2.Forecast:
    return await client(client.forecasts.CreateForecast, forecasts_pb2.CreateForecastRequest(model_id="demand"))


async def receipt_of(client: Client, made: Any) -> receipts_pb2.Receipt:
    return await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id))


@asynccontextmanager
async def restarted(shop: World):
    async with shop.serving() as running, shop.client(running) as client:
        yield client


async def test_a_direct_promotion_of_a_model_that_steers_is_refused_with_the_policys_id(shop, client):
    await trained(client, steering())
    denied = await client.refused(client.models.PromoteModelVersion, promotion())
    assert (denied.code.name, denied.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
    assert denied.metadata["policy_id"] == "promotion-needs-second-person"
    assert denied.metadata["resource"] == "model:demand"
    assert not shop.office.changes.by_request
    assert (await version_of(client)).state == V.VALIDATED


async def test_a_model_that_informs_is_promoted_at_once_even_when_an_approval_is_asked_for(shop, client):
    await trained(client, demand())
    promoted = await client(client.models.PromoteModelVersion, promotion(ask=True))
    assert (promoted.state, promoted.change_id) == (V.CHAMPION, "")
    assert not shop.office.changes.by_request


async def test_an_approved_promotion_serves_and_its_forecasts_cite_the_change(shop, client):
    version = await trained(client, steering())
    waiting = await asked(client)
    change = shop.office.changes.change(waiting.change_id)
    payload = {"model_id": "demand", "version": 1, "artifact_sha256": version.artifact_sha256}
    assert orjson.loads(change.payload) == payload
    assert (change.kind, change.resource) == ("model.promote", "models/demand/versions/1")
    assert (change.requester, change.reason) == ("ada", "Better.")
    assert change.policy_id == "promotion-needs-second-person"
    assert await asked(client) == waiting  # asking again asks for the same
    assert len(shop.office.changes.by_request) == 1

    shop.office.changes.move(waiting.change_id, C.APPROVED)
    champion = await reaches(client, V.CHAMPION)
    assert champion.change_id == waiting.change_id
    (report,) = shop.office.changes.reports
    assert (report.applied, report.workspace) == (True, "acme")
    assert report.payload_sha256 == sha256_hex(canonical_json(payload))
    steps = [(one.from_state, one.to_state, one.actor) for one in await events(client)][-3:]
    assert steps == [
        (V.VALIDATED, V.PENDING_APPROVAL, "ada"),
        (V.PENDING_APPROVAL, V.APPROVED, "grace"),
        (V.APPROVED, V.CHAMPION, "service:models"),
    ]
    entry = await shop.office.audit.next("model.promote")
    assert (entry.workspace, entry.principal, entry.resource) == ("acme", "ada", "models/demand/versions/1")
    details = orjson.loads(entry.details)
    assert (details["change_id"], details["approved_by"]) == (waiting.change_id, ["grace"])
    assert details["artifact_sha256"] == version.artifact_sha256

    made = await forecast(client)
    receipt = await receipt_of(client, made)
    assert list(receipt.changes) == [waiting.change_id]
    again = await client(client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=made.receipt_id))
    assert again.outcome == receipts_pb2.ReplayResult.MATCH


async def test_an_approved_version_retires_the_champion_and_a_rollback_needs_no_new_approval(shop, client):
    await trained(client, steering())
    first = await asked(client)
    shop.office.changes.move(first.change_id, C.APPROVED)
    await reaches(client, V.CHAMPION)
    await client.trained("demand")
    second = await asked(client, 2)
    assert second.change_id != first.change_id
    shop.office.changes.move(second.change_id, C.APPROVED)
    await reaches(client, V.CHAMPION, 2)
    assert (await version_of(client)).state == V.RETIRED
    back = models_pb2.RollbackModelRequest(model_id="demand", reason="Drifted.")
    assert (await client(client.models.RollbackModel, back)).version == 1
    entry = await shop.office.audit.next("model.rollback")
    assert orjson.loads(entry.details) == {"from": 2, "to": 1, "reason": "Drifted."}


@pytest.mark.parametrize(
    ("state", "seconds", "word"),
    [
        (C.REJECTED, 60, "was rejected. Looked at it."),
        (C.EXPIRED, 60, "has expired."),
        (C.FAILED, 60, "could not be carried out."),
        (C.PENDING, 0.4, "in time."),
        (C.APPROVED, -1, "CHANGE_EXPIRED"),
    ],
)
async def test_a_promotion_that_is_not_approved_in_time_can_be_asked_for_again(shop, client, state, seconds, word):
    await trained(client, steering())
    waiting = await asked(client)
    shop.office.changes.move(waiting.change_id, state, seconds=seconds)
    back = await reaches(client, V.VALIDATED)
    assert back.change_id == ""
    last = (await events(client))[-1]
    assert (last.from_state, last.to_state, last.actor) == (V.PENDING_APPROVAL, V.VALIDATED, "service:models")
    assert word in last.reason
    again = await asked(client)
    assert again.change_id != waiting.change_id
    shop.office.changes.move(again.change_id, C.APPROVED)
    await reaches(client, V.CHAMPION)


async def test_an_approval_that_came_while_the_service_was_down_is_carried_out_once(shop):
    async with restarted(shop) as client:
        await trained(client, steering())
        waiting = await asked(client)
    shop.office.changes.move(waiting.change_id, C.APPROVED)
    async with restarted(shop) as client:
        await reaches(client, V.CHAMPION)
    async with restarted(shop) as client:
        await forecast(client)  # it is up, and has seen the change as it now is
        assert len([one for one in await events(client) if one.to_state == V.CHAMPION]) == 1
    assert len(shop.office.changes.reports) == 1


@pytest.mark.parametrize("forgotten", [False, True], ids=["still shown", "long over"])
async def test_a_crash_between_report_and_commit_ends_in_the_champion(shop, forgotten):
    async with restarted(shop) as client:
        await trained(client, steering())
        waiting = await asked(client)
    # The report arrived, the process died before its commit.
    shop.office.changes.move(waiting.change_id, C.APPLIED)
    if forgotten:
        watched = type(shop.office.changes.state)()
        shop.office.changes.watched = watched
    async with restarted(shop) as client:
        champion = await reaches(client, V.CHAMPION)
        assert champion.change_id == waiting.change_id
        entry = await shop.office.audit.next("model.promote")
        assert orjson.loads(entry.details)["approved_by"] == ["grace"]


async def test_a_change_that_governance_does_not_know_any_more_lets_the_version_go(shop):
    async with restarted(shop) as client:
        await trained(client, steering())
        waiting = await asked(client)
    shop.office.changes.state.delete(f"acme/{waiting.change_id}")
    async with restarted(shop) as client:
        await reaches(client, V.VALIDATED)
        assert "CHANGE_NOT_FOUND" in (await events(client))[-1].reason


async def test_an_approved_change_whose_asking_was_never_kept_is_carried_out_all_the_same(shop):
    async with restarted(shop) as client:
        await trained(client, steering())
        waiting = await asked(client)
    async with restarted(shop) as client:
        # The asking is withdrawn here, as if its commit had been lost, while somebody approves it.
        shop.office.changes.move(waiting.change_id, C.EXPIRED, voter="")
        await reaches(client, V.VALIDATED)
        shop.office.changes.move(waiting.change_id, C.APPROVED)
        assert (await reaches(client, V.CHAMPION)).change_id == waiting.change_id


async def test_approved_changes_of_versions_that_are_not_here_hold_nothing_up(shop, client):
    await trained(client, steering())
    for number, resource in enumerate(("models/gone/versions/1", "models/demand/versions/9", "nothing we know")):
        stray = C(change_id=f"stray_{number}", kind="model.promote", resource=resource, workspace="acme")
        shop.office.changes.state.put(f"acme/{stray.change_id}", stray)
        shop.office.changes.move(stray.change_id, C.APPROVED)
    waiting = await asked(client)
    shop.office.changes.move(waiting.change_id, C.APPROVED)
    await reaches(client, V.CHAMPION)
    assert [report.change_id for report in shop.office.changes.reports] == [waiting.change_id]


async def test_an_approval_of_another_artifact_has_no_effect(shop, client):
    await trained(client, steering())
    waiting = await asked(client)
    change = shop.office.changes.change(waiting.change_id)
    change.payload_sha256 = "0" * 64
    shop.office.changes.move(waiting.change_id, C.APPROVED)
    await reaches(client, V.VALIDATED)
    assert "CHANGE_PAYLOAD_DIFFERS" in (await events(client))[-1].reason


async def test_a_report_that_cannot_be_delivered_is_tried_again(shop, client):
    await trained(client, steering())
    waiting = await asked(client)
    shop.office.changes.reachable = False
    shop.office.changes.move(waiting.change_id, C.APPROVED)
    async with asyncio.timeout(60):
        while shop.office.changes.refusals == 0:
            await asyncio.sleep(0.02)
    assert (await version_of(client)).state == V.PENDING_APPROVAL
    shop.office.changes.reachable = True
    await reaches(client, V.CHAMPION)


async def test_a_version_that_is_not_validated_cannot_be_asked_for(shop, client):
    await client(client.models.CreateModel, steering())
    shop.ingest.gate.clear()
    await client(client.models.TrainModelVersion, models_pb2.TrainModelVersionRequest(model_id="demand"))
    refused = await client.refused(client.models.PromoteModelVersion, promotion(ask=True))
    shop.ingest.gate.set()
    assert (refused.reason, refused.metadata["state"]) == ("STATE_TRANSITION_INVALID", "DRAFT")
    assert not shop.office.changes.by_request
    await client.ended("demand", 1)


async def test_training_asks_the_policies_and_is_in_the_audit_log(shop):
    async with restarted(shop) as client:
        await trained(client, demand())
        assert (await shop.office.audit.next("model.create")).resource == "models/demand"
        entry = await shop.office.audit.next("model.train")
        assert (entry.resource, entry.principal) == ("models/demand/versions/1", "ada")
    shop.office.policies.put_in_force("acme", version=2, more=FORBID_TRAINING)
    async with restarted(shop) as client:
        train = models_pb2.TrainModelVersionRequest(model_id="demand")
        denied = await client.refused(client.models.TrainModelVersion, train)
        assert (denied.reason, denied.metadata["policy_id"]) == ("POLICY_DENIED", "no-training")


async def test_a_forecast_is_refused_when_a_policy_errs_and_old_receipts_still_replay(shop):
    async with restarted(shop) as client:
        await trained(client, steering())
        waiting = await asked(client)
        shop.office.changes.move(waiting.change_id, C.APPROVED)
        await reaches(client, V.CHAMPION)
        made = await forecast(client)
    shop.office.policies.put_in_force("acme", version=2, more=ERRING)
    async with restarted(shop) as client:
        create = forecasts_pb2.CreateForecastRequest(model_id="demand")
        denied = await client.refused(client.forecasts.CreateForecast, create)
        assert (denied.reason, denied.metadata["policy_id"]) == ("POLICY_DENIED", "overflowing")
        again = await client(client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=made.receipt_id))
        assert again.outcome == receipts_pb2.ReplayResult.MATCH
