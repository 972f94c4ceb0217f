"""Models beside the real governance: consents, policies, a second person and the audit log as in production."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import grpc
import pyarrow as pa
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.governance.v1 import audit_pb2, changes_pb2, consents_pb2
from counterfoil.models.v1 import forecasts_pb2, lifts_pb2, models_pb2
from counterfoil_chassis.clock import SystemClock, to_timestamp
from counterfoil_chassis.serve import started
from counterfoil_governance.scopes import ALL_SCOPES
from counterfoil_models.__main__ import build

from tests.governance.calls import ADMIN_KEY, Governance, governance_in
from tests.models.shop import Client, World
from tests.models.test_models_approvals import promotion, reaches, steering, version_of
from tests.models.test_models_lifts import FIRST, FIRST_DAY, UNITS, receipt_of, replay, spec, visits

V = models_pb2.ModelVersion
C = changes_pb2.Change


class LaterClock:
    """The machine's clock, moved forward."""

    def __init__(self) -> None:
        self.by = timedelta()

    def now(self) -> datetime:
        return SystemClock().now() + self.by


@dataclass
class Governed:
    """A real governance, and models beside it."""

    world: World
    governance: Governance
    clock: LaterClock

    @asynccontextmanager
    async def models(self) -> AsyncIterator[Client]:
        settings = self.world.settings.model_copy(update={"governance_target": self.governance.address})
        signer = self.governance.signers["gateway"]
        async with (
            started("models", settings, build, clock=self.clock, migrations="counterfoil_models") as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            yield Client(channel, lambda: signer.mint(workspace="default", principal="admin", scopes=ALL_SCOPES))

    async def change(self, change_id: str) -> C:
        request = changes_pb2.GetChangeRequest(change_id=change_id)
        return await self.governance.changes.GetChange(request, **self.governance.as_principal())

    async def approve(self, change_id: str, caller: dict[str, Any]) -> C:
        sha256 = (await self.change(change_id)).payload_sha256
        request = changes_pb2.ApproveChangeRequest(change_id=change_id, payload_sha256=sha256)
        return await self.governance.changes.ApproveChange(request, **caller)

    async def record(self, units: Iterable[int], state: consents_pb2.Consent.State.ValueType, *, at: datetime) -> None:
        """Record what households said of being measured."""
        consents = [
            consents_pb2.NewConsent(
                subject=consents_pb2.Subject(type="household_id", value=str(unit)),
                purpose="measurement",
                state=state,
                basis=consents_pb2.Consent.LEGITIMATE_INTEREST,
                happened_at=to_timestamp(at),
            )
            for unit in units
        ]
        request = consents_pb2.RecordConsentsRequest(consents=consents)
        await self.governance.consents.RecordConsents(request, **self.governance.as_principal())

    async def entry(self, action: str) -> audit_pb2.AuditEntry:
        """Wait for the newest audit entry of an action."""
        async with asyncio.timeout(60):
            while True:
                request = audit_pb2.ListAuditEntriesRequest(page_size=100)
                page = await self.governance.audit.ListAuditEntries(request, **self.governance.as_principal())
                for entry in page.entries:
                    if entry.action == action:
                        return entry
                await asyncio.sleep(0.05)


@pytest.fixture
async def governed(shop: World) -> AsyncIterator[Governed]:
    """The shop's data in the workspace that governance begins with."""
    shop.ingest.datasets.update({("default", name): table for (_, name), table in shop.ingest.datasets.items()})
    clock, digest = LaterClock(), hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    async with governance_in(shop.data_dir, clock, bootstrap_key_sha256=digest) as governance:  # type: ignore[arg-type]
        yield Governed(shop, governance, clock)


async def waiting_version(client: Client) -> models_pb2.ModelVersion:
    await client(client.models.CreateModel, steering())
    await client.trained("demand")
    denied = await client.refused(client.models.PromoteModelVersion, promotion())
    assert denied.metadata["policy_id"] == "promotion-needs-second-person"
    return await client(client.models.PromoteModelVersion, promotion(ask=True))


async def test_a_version_serves_once_a_second_person_has_approved_just_that(governed):
    grace = await governed.governance.hire("grace", scopes=frozenset({"governance.approve", "governance.read"}))
    async with governed.models() as client:
        waiting = await waiting_version(client)
        assert waiting.state == V.PENDING_APPROVAL
        with pytest.raises(grpc.aio.AioRpcError):  # not the one who asked
            await governed.approve(waiting.change_id, governed.governance.as_principal())
        assert (await version_of(client)).state == V.PENDING_APPROVAL
        await governed.approve(waiting.change_id, grace)
        champion = await reaches(client, V.CHAMPION)
        assert champion.change_id == waiting.change_id
        assert (await governed.change(waiting.change_id)).state == C.APPLIED
        entry = await governed.entry("model.promote")
        assert (entry.principal, entry.resource) == ("admin", "models/demand/versions/1")

        made = await client(client.forecasts.CreateForecast, forecasts_pb2.CreateForecastRequest(model_id="demand"))
        receipt = await receipt_of(client, made)
        assert list(receipt.changes) == [waiting.change_id]
        assert receipt.policy_bundle.version == 1
        assert (await replay(client, made)).outcome == receipts_pb2.ReplayResult.MATCH


async def test_an_approval_that_expired_before_it_could_be_used_has_no_effect(governed):
    grace = await governed.governance.hire("grace", scopes=frozenset({"governance.approve", "governance.read"}))
    async with governed.models() as client:
        waiting = await waiting_version(client)
    await governed.approve(waiting.change_id, grace)
    governed.clock.by = timedelta(hours=25)
    async with governed.models() as client:
        back = await reaches(client, V.VALIDATED)
        assert back.change_id == ""
        events = await client(client.models.ListModelEvents, models_pb2.ListModelEventsRequest(model_id="demand"))
        assert "CHANGE_EXPIRED" in events.events[-1].reason


async def test_a_rejected_promotion_lets_the_version_go(governed):
    grace = await governed.governance.hire("grace", scopes=frozenset({"governance.approve", "governance.read"}))
    async with governed.models() as client:
        waiting = await waiting_version(client)
        reject = changes_pb2.RejectChangeRequest(change_id=waiting.change_id, reason="Not on Black Friday.")
        await governed.governance.changes.RejectChange(reject, **grace)
        await reaches(client, V.VALIDATED)
        events = await client(client.models.ListModelEvents, models_pb2.ListModelEventsRequest(model_id="demand"))
        assert events.events[-1].reason.endswith("was rejected. Not on Black Friday.")


async def test_a_lift_uses_those_who_consented_and_its_receipt_replays_after_a_withdrawal(governed):
    ingest, treated = governed.world.ingest, list(range(UNITS // 2))
    ingest.put("default", "visits", visits())
    ingest.put("default", "members", pa.table({"household": treated, "campaign": [7] * len(treated)}))
    ingest.put("default", "campaigns", pa.table({"campaign": [7], "begins": pa.array([FIRST_DAY])}))
    asked = lifts_pb2.CreateLiftRequest(spec=spec(covariates=None))
    async with governed.models() as client:
        denied = await client.refused(client.lifts.CreateLift, asked)
        assert (denied.reason, denied.metadata["policy_id"]) == ("POLICY_DENIED", "use-needs-consent")

        await governed.record(range(UNITS - 20), consents_pb2.Consent.GRANTED, at=FIRST)
        made = await client(client.lifts.CreateLift, asked)
        assert (made.treated, made.control, made.left_out) == (60, 40, 20)
        receipt = await receipt_of(client, made)
        assert (receipt.consent.basis, receipt.consent.purpose) == ("legitimate_interest", "measurement")
        await governed.record(range(30), consents_pb2.Consent.WITHDRAWN, at=FIRST + timedelta(days=1))
        assert (await replay(client, made)).outcome == receipts_pb2.ReplayResult.MATCH
        assert (await client(client.lifts.CreateLift, asked)).treated == 30
