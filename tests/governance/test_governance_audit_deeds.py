"""What the services to the left of governance do is in its audit log: with what was done, in their names, and once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from counterfoil.contracts.v1 import contracts_pb2 as contracts_pb
from counterfoil.governance.v1 import audit_pb2 as pb
from counterfoil.ingest.v1 import sources_pb2 as sources_pb
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import write_key_pair

from tests.contracts.calls import contracts_in, document
from tests.governance.calls import Governance, governance_in
from tests.ingest.ingest_service import ingest_in

WORKSPACE = "acme"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def governance(tmp_path: Path) -> AsyncIterator[Governance]:
    for name in ("contracts", "ingest"):
        write_key_pair(tmp_path / "keys" / f"{name}.pem", tmp_path / "keys" / "trusted", name)
    async with governance_in(tmp_path, SystemClock(), bootstrap_key_sha256="") as running:
        yield running


async def deeds(governance: Governance, action: str, *, count: int) -> list[pb.AuditEntry]:
    """Wait for as many entries of an action that a principal did."""
    async with asyncio.timeout(60):
        while True:
            found = await governance.audit.ListAuditEntries(
                pb.ListAuditEntriesRequest(page_size=1000), **governance.as_principal(workspace=WORKSPACE)
            )
            mine = [
                each for each in found.entries if each.action == action and not each.principal.startswith("service:")
            ]
            if len(mine) >= count:
                return mine
            await asyncio.sleep(0.05)


async def test_activating_a_contract_is_a_deed_once(
    governance: Governance, stack: AsyncExitStack, tmp_path: Path
) -> None:
    contracts = await stack.enter_async_context(contracts_in(tmp_path, governance_target=governance.address))
    await contracts.submit(document("shop", "1.0.0"), activate=True, workspace=WORKSPACE)
    await contracts.submit(document("shop", "1.1.0"), workspace=WORKSPACE)
    await contracts.activate("shop", "1.1.0", workspace=WORKSPACE)
    await contracts.activate("shop", "1.1.0", workspace=WORKSPACE)  # in force already
    await contracts.activate("shop", "1.0.0", reason="a fault", workspace=WORKSPACE)
    first, second, third = await deeds(governance, "contract.activate", count=3)
    assert {each.service for each in (first, second, third)} == {"contracts"}
    assert {each.principal for each in (first, second, third)} == {"ada"}
    resources = [each.resource for each in (first, second, third)]
    assert resources == [f"contracts/shop/versions/{version}" for version in ("1.0.0", "1.1.0", "1.0.0")]
    assert json.loads(second.details)["previous_version"] == "1.0.0"
    assert json.loads(second.details)["datasets"] == ["orders"]


async def test_a_refused_activation_is_none(governance: Governance, stack: AsyncExitStack, tmp_path: Path) -> None:
    contracts = await stack.enter_async_context(contracts_in(tmp_path, governance_target=governance.address))
    await contracts.submit(document("shop"), activate=True, workspace=WORKSPACE)
    taken = contracts_pb.SubmitContractRequest(document=document("other"), activate=True)
    with pytest.raises(Exception, match="governs dataset"):
        await contracts.stub.SubmitContract(taken, **contracts.as_principal(WORKSPACE))
    await contracts.submit(document("last", datasets=("visits",)), activate=True, workspace=WORKSPACE)
    found = await deeds(governance, "contract.activate", count=2)
    assert [each.resource.split("/")[1] for each in found] == ["shop", "last"]


async def test_sources_and_their_keys_are_deeds_without_the_keys(
    governance: Governance, stack: AsyncExitStack, tmp_path: Path
) -> None:
    ingest = await stack.enter_async_context(ingest_in(tmp_path, governance_target=governance.address))
    request = sources_pb.CreateSourceRequest(display_name="Web", request_id="once")
    made = await ingest.sources.CreateSource(request, **ingest.called(WORKSPACE))
    assert await ingest.sources.CreateSource(request, **ingest.called(WORKSPACE)) == made
    source_id = made.source.source_id
    await ingest.sources.RotateKey(sources_pb.RotateKeyRequest(source_id=source_id), **ingest.called(WORKSPACE))
    [rotated] = await deeds(governance, "source.rotate_key", count=1)
    [created] = await deeds(governance, "source.create", count=1)
    assert created.resource == rotated.resource == f"sources/{source_id}"
    assert created.principal == rotated.principal == "admin"
    assert json.loads(created.details) == {"mappings": 1, "protocol": "segment"}
    assert json.loads(rotated.details) == {"previous_key_kept_for_seconds": 86400}
