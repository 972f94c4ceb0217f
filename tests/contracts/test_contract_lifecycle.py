"""From draft to retirement: the number a version needs, whom it breaks, who approves it, what the changelog tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from counterfoil.contracts.v1 import consumers_pb2
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil.governance.v1 import audit_pb2, changes_pb2
from counterfoil_chassis.changes import Changes
from counterfoil_chassis.clock import SystemClock, from_timestamp, to_timestamp

from tests.contracts.calls import Contracts, contracts_in, document, refused
from tests.governance.calls import Governance, governance_in

State = pb.ContractVersion.State
Level = pb.VersionComparison.Level
Action = pb.ChangelogEntry.Action
Verdict = pb.SchemaComparison.Verdict
Change = changes_pb2.Change

TOTAL = {"name": "total", "logicalType": "number", "required": True}
COUPON = {"name": "coupon", "logicalType": "string"}
NOTE = {"name": "note", "logicalType": "string"}


def shop(version: str, *properties: dict[str, Any], **extra: Any) -> str:
    return document("shop", version, properties=list(properties) or [TOTAL, COUPON], **extra)


async def check(contracts: Contracts, text: str, *, against: str = "") -> pb.CheckContractResponse:
    request = pb.CheckContractRequest(document=text, against_version=against)
    return await contracts.stub.CheckContract(request, **contracts.as_principal())


async def propose(
    contracts: Contracts, version: str, *, reason: str = "Coupons are gone."
) -> pb.ProposeContractVersionResponse:
    request = pb.ProposeContractVersionRequest(contract_id="shop", version=version, reason=reason)
    return await contracts.stub.ProposeContractVersion(request, **contracts.as_principal())


async def deprecate(
    contracts: Contracts, version: str, *, days: float = 0, reason: str = "Read 2.0.0."
) -> pb.ContractVersion:
    sunset = to_timestamp(datetime.now(UTC) + timedelta(days=days))
    request = pb.DeprecateContractVersionRequest(contract_id="shop", version=version, sunset_at=sunset, reason=reason)
    return await contracts.stub.DeprecateContractVersion(request, **contracts.as_principal())


async def retire(contracts: Contracts, version: str) -> pb.ContractVersion:
    request = pb.RetireContractVersionRequest(contract_id="shop", version=version, reason="Nobody reads it.")
    return await contracts.stub.RetireContractVersion(request, **contracts.as_principal())


async def read(contracts: Contracts, name: str, *fields: str, version_range: str = "") -> consumers_pb2.Consumer:
    request = consumers_pb2.RegisterConsumerRequest(
        name=name,
        dataset="orders",
        fields=fields,
        version_range=version_range,
        owner=f"team {name}",
        contact=f"{name}@example.com",
    )
    return await contracts.consumers.RegisterConsumer(request, **contracts.as_principal())


async def changelog(contracts: Contracts, *, page_size: int = 0) -> list[pb.ChangelogEntry]:
    found: list[pb.ChangelogEntry] = []
    request = pb.ListChangelogEntriesRequest(contract_id="shop", page_size=page_size)
    while True:
        page = await contracts.stub.ListChangelogEntries(request, **contracts.as_principal())
        found += page.entries
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def reaches(contracts: Contracts, version: str, state: State.ValueType) -> pb.ContractVersion:
    async with asyncio.timeout(30):
        while (found := await contracts.get("shop", version)).state != state:
            await asyncio.sleep(0.02)  # the vote travels by a watch that only contracts sees
    return found


@pytest.fixture
async def governance(tmp_path: Path) -> AsyncIterator[Governance]:
    async with governance_in(tmp_path, SystemClock(), bootstrap_key_sha256="") as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture
async def governed(tmp_path: Path, governance: Governance) -> AsyncIterator[Contracts]:
    """Contracts beside a governance in which ada may ask and rex may vote."""
    await governance.hire("ada", roles=["engineer"])
    await governance.hire("rex", roles=["reviewer"])
    async with contracts_in(tmp_path, governance_target=governance.address) as running:
        yield running


async def vote(governance: Governance, change_id: str, *, approve: bool = True) -> None:
    change = await governance.changes.GetChange(
        changes_pb2.GetChangeRequest(change_id=change_id), **governance.as_hired("rex")
    )
    if approve:
        request = changes_pb2.ApproveChangeRequest(change_id=change_id, payload_sha256=change.payload_sha256)
        await governance.changes.ApproveChange(request, **governance.as_hired("rex"))
    else:
        refusal = changes_pb2.RejectChangeRequest(change_id=change_id, reason="The report still needs it.")
        await governance.changes.RejectChange(refusal, **governance.as_hired("rex"))


async def change_ends(governance: Governance, change_id: str, state: Change.State.ValueType) -> Change:
    request = changes_pb2.GetChangeRequest(change_id=change_id)
    async with asyncio.timeout(30):
        while (found := await governance.changes.GetChange(request, **governance.as_hired("rex"))).state != state:
            await asyncio.sleep(0.02)
    return found


@pytest.mark.both_engines("contracts")
@pytest.mark.parametrize(
    ("properties", "level", "needed"),
    [
        pytest.param([TOTAL, COUPON], Level.PATCH, "1.2.4", id="nothing"),
        pytest.param([TOTAL, {**COUPON, "description": "A code."}], Level.PATCH, "1.2.4", id="prose"),
        pytest.param([TOTAL, COUPON, NOTE], Level.MINOR, "1.3.0", id="an optional field more"),
        pytest.param([TOTAL, COUPON, {**NOTE, "required": True}], Level.MAJOR, "2.0.0", id="a required field more"),
        pytest.param([TOTAL], Level.MAJOR, "2.0.0", id="a field less"),
        pytest.param([{**TOTAL, "required": False}, COUPON], Level.MAJOR, "2.0.0", id="a field that can be missing"),
        pytest.param([{**TOTAL, "logicalType": "string"}, COUPON], Level.MAJOR, "2.0.0", id="another type"),
    ],
)
async def test_the_number_a_version_needs_follows_from_what_it_changes(
    contracts: Contracts, properties: list[dict[str, Any]], level: Level.ValueType, needed: str
) -> None:
    await contracts.submit(shop("1.2.3"), activate=True)
    compared = (await check(contracts, shop("1.2.4", *properties))).comparison
    assert (compared.in_force_version, compared.level, compared.needed_version) == ("1.2.3", level, needed)
    assert compared.version_suffices is (needed == "1.2.4")
    assert not compared.needs_approval
    if needed == "1.2.4":
        return
    with refused("VERSION_TOO_LOW") as failures:
        await contracts.submit(shop("1.2.4", *properties), activate=True)
    assert failures[0].metadata["needed_version"] == needed
    await contracts.submit(shop("1.2.4", *properties))
    for asking in (contracts.activate("shop", "1.2.4", reason="I insist"), propose(contracts, "1.2.4")):
        with refused("VERSION_TOO_LOW"):
            await asking
    active = await contracts.submit(shop(needed, *properties), activate=True)
    assert (active.state, active.in_force) == (State.ACTIVE, True)


async def test_a_version_says_which_fields_it_adds_removes_and_changes(contracts: Contracts) -> None:
    item = {"name": "items", "logicalType": "array", "items": {"logicalType": "object", "properties": [COUPON]}}
    await contracts.submit(shop("1.0.0", TOTAL, COUPON, item), activate=True)
    sku = {"name": "sku", "logicalType": "string"}
    changed = {**item, "items": {"logicalType": "object", "properties": [sku]}}
    compared = (await check(contracts, shop("2.0.0", {**TOTAL, "required": False}, changed, NOTE))).comparison
    kinds = pb.FieldChange.Kind
    assert {(each.path, each.kind) for each in compared.fields} == {
        ("$.total", kinds.CHANGED),
        ("$.coupon", kinds.REMOVED),
        ("$.note", kinds.ADDED),
        ("$.items[*].coupon", kinds.REMOVED),
        ("$.items[*].sku", kinds.ADDED),
    }
    assert compared.field_count == 5


@pytest.mark.both_engines("contracts")
async def test_a_removal_that_nobody_reads_comes_into_force_at_once(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await read(contracts, "finance", "total")
    await contracts.submit(shop("2.0.0", TOTAL))
    answer = await propose(contracts, "2.0.0")
    assert (answer.version.state, answer.version.change_id) == (State.ACTIVE, "")
    assert answer.comparison.level == Level.MAJOR
    assert not answer.comparison.consumers
    assert [each.dataset for each in answer.comparisons] == ["orders"]
    assert (await contracts.look_up("orders")).version == "2.0.0"


@pytest.mark.both_engines("contracts")
async def test_a_removal_that_somebody_reads_is_refused_and_names_them(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await read(contracts, "finance", "total")
    marketing = await read(contracts, "marketing", "$.coupon", "total")
    with refused("CONSUMERS_BROKEN") as failures:
        await contracts.submit(shop("2.0.0", TOTAL), activate=True)
    assert failures[0].metadata["consumers"] == "marketing"
    assert [(each.field, each.reason) for each in failures[0].violations] == [("$.coupon", "PROVEN_BREAKING")]
    with refused("VERSION_NOT_FOUND"):
        await contracts.get("shop", "2.0.0")  # what was refused was not kept
    await contracts.submit(shop("2.0.0", TOTAL))
    with refused("CONSUMERS_BROKEN"):
        await contracts.activate("shop", "2.0.0", reason="anyway")
    compared = (await check(contracts, shop("2.0.0", TOTAL))).comparison
    assert compared.needs_approval
    [broken] = compared.consumers
    assert (broken.consumer_id, broken.name, broken.owner, broken.contact, broken.dataset, broken.verdict) == (
        *(marketing.consumer_id, "marketing", "team marketing", "marketing@example.com", "orders"),
        Verdict.PROVEN_BREAKING,
    )
    assert [(each.path, each.keyword) for each in broken.breaks] == [("$.coupon", "properties")]
    removal = consumers_pb2.RemoveConsumerRequest(consumer_id=marketing.consumer_id)
    await contracts.consumers.RemoveConsumer(removal, **contracts.as_principal())
    assert (await contracts.activate("shop", "2.0.0")).state == State.ACTIVE


async def test_a_required_field_that_is_gone_is_told_once_with_a_record_that_lacks_it(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await read(contracts, "finance", "total", "coupon")
    [broken] = (await check(contracts, shop("2.0.0", COUPON))).comparison.consumers
    [found] = broken.breaks
    assert (found.path, found.keyword) == ("$.total", "properties")
    assert "total" not in json.loads(found.witness)


async def test_a_consumer_is_broken_by_values_it_does_not_know_with_a_record_that_shows_it(
    contracts: Contracts,
) -> None:
    channel = {"name": "channel", "logicalType": "string", "required": True, "enum": [{"value": "web"}]}
    await contracts.submit(shop("1.0.0", TOTAL, channel), activate=True)
    await read(contracts, "routing", "channel")
    wider = {**channel, "enum": [{"value": "web"}, {"value": "app"}]}
    [broken] = (await check(contracts, shop("2.0.0", TOTAL, wider))).comparison.consumers
    assert broken.verdict == Verdict.PROVEN_BREAKING
    [found] = broken.breaks
    assert (found.path, found.keyword) == ("$.channel", "enum")
    assert json.loads(found.witness)["channel"] == "app"


async def test_a_consumer_of_the_whole_record_is_not_broken_by_what_is_added(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await read(contracts, "warehouse")
    added = (await check(contracts, shop("1.1.0", TOTAL, COUPON, NOTE))).comparison
    assert (added.level, list(added.consumers)) == (Level.MINOR, [])
    removed = (await check(contracts, shop("2.0.0", TOTAL))).comparison
    assert [each.name for each in removed.consumers] == ["warehouse"]


async def test_a_consumer_of_certain_versions_is_concerned_by_those_alone(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await read(contracts, "legacy", "total", version_range="<1.0.0")
    await read(contracts, "careful", "total", version_range="1.x")
    compared = (await check(contracts, shop("2.0.0", TOTAL))).comparison
    assert [each.name for each in compared.consumers] == ["careful"]
    assert "1.x" in compared.consumers[0].breaks[0].detail
    assert not (await check(contracts, shop("1.1.0", TOTAL, COUPON, NOTE))).comparison.consumers


async def test_a_dataset_that_is_dropped_breaks_whoever_reads_any_of_it(contracts: Contracts) -> None:
    await contracts.submit(document("shop", "1.0.0", datasets=("orders", "refunds")), activate=True)
    await read(contracts, "finance", "name")
    compared = (await check(contracts, document("shop", "2.0.0", datasets=("refunds",)))).comparison
    assert list(compared.dropped_datasets) == ["orders"]
    assert [each.name for each in compared.consumers] == ["finance"]
    assert compared.level == Level.MAJOR


async def test_a_rule_over_records_that_ends_is_unproven_for_those_who_read_its_field(contracts: Contracts) -> None:
    rule = {"type": "custom", "engine": "cel", "implementation": "record.total >= 0.0", "name": "positive"}
    await contracts.submit(shop("1.0.0", {**TOTAL, "quality": [rule]}, COUPON), activate=True)
    await read(contracts, "finance", "total")
    await read(contracts, "marketing", "coupon")
    compared = (await check(contracts, shop("2.0.0"))).comparison
    assert [(each.name, each.verdict) for each in compared.consumers] == [("finance", Verdict.UNPROVEN)]
    begun = (await check(contracts, shop("1.1.0", {**TOTAL, "quality": [rule]}, COUPON), against="1.0.0")).comparison
    assert begun.level == Level.PATCH


async def test_a_check_compares_with_any_version_of_the_contract(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await contracts.submit(shop("1.1.0", TOTAL, COUPON, NOTE), activate=True)
    answer = await check(contracts, shop("1.2.0", TOTAL, COUPON), against="1.0.0")
    assert (answer.comparison.in_force_version, answer.comparison.level) == ("1.0.0", Level.PATCH)
    assert [(each.contract_id, each.version) for each in answer.comparisons] == [("shop", "1.0.0")]
    assert (await check(contracts, shop("1.2.0", TOTAL, COUPON))).comparison.level == Level.MAJOR
    with refused("VERSION_NOT_FOUND"):
        await check(contracts, shop("1.2.0"), against="9.9.9")


@pytest.mark.both_engines("contracts")
async def test_a_deprecated_version_stays_in_force_until_its_sunset(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    with refused("VERSION_STATE"):
        await retire(contracts, "1.0.0")
    ending = await deprecate(contracts, "1.0.0", days=30)
    assert (ending.state, ending.in_force, ending.reason) == (State.DEPRECATED, True, "Read 2.0.0.")
    assert from_timestamp(ending.sunset_at) > datetime.now(UTC) + timedelta(days=29)
    assert (await contracts.look_up("orders")).version == "1.0.0"
    with refused("SUNSET_AHEAD"):
        await retire(contracts, "1.0.0")
    await deprecate(contracts, "1.0.0", days=-1)
    retired = await retire(contracts, "1.0.0")
    assert (retired.state, retired.in_force) == (State.RETIRED, False)
    assert await retire(contracts, "1.0.0") == retired
    with refused("NO_CONTRACT"):
        await contracts.look_up("orders")
    assert "default/orders" not in await contracts.in_force()
    for asking in (contracts.activate("shop", "1.0.0", reason="back"), deprecate(contracts, "1.0.0")):
        with refused("VERSION_STATE"):
            await asking
    listed = await contracts.stub.GetContract(pb.GetContractRequest(contract_id="shop"), **contracts.as_principal())
    assert listed.active_version == ""
    assert (await contracts.submit(shop("1.0.1"), activate=True)).in_force


async def test_an_announced_end_is_taken_back_for_a_reason(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await deprecate(contracts, "1.0.0", days=30)
    with refused("REASON_REQUIRED"):
        await contracts.activate("shop", "1.0.0")
    back = await contracts.activate("shop", "1.0.0", reason="We keep it.")
    assert (back.state, back.in_force, back.HasField("sunset_at")) == (State.ACTIVE, True, False)


@pytest.mark.both_engines("contracts")
async def test_a_version_that_somebody_reads_is_not_retired_and_names_them(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await contracts.submit(shop("1.1.0", TOTAL, COUPON, NOTE), activate=True)
    await read(contracts, "archive", version_range="=1.0.0")
    await read(contracts, "finance", "total")
    for version, named in (("1.0.0", "archive"), ("1.1.0", "finance")):
        await deprecate(contracts, version)
        with refused("CONSUMERS_READ") as failures:
            await retire(contracts, version)
        assert failures[0].metadata["consumers"] == named
    page = await contracts.consumers.ListConsumers(consumers_pb2.ListConsumersRequest(), **contracts.as_principal())
    for consumer in page.consumers:
        removal = consumers_pb2.RemoveConsumerRequest(consumer_id=consumer.consumer_id)
        await contracts.consumers.RemoveConsumer(removal, **contracts.as_principal())
    for version in ("1.0.0", "1.1.0"):
        assert (await retire(contracts, version)).state == State.RETIRED


async def test_a_draft_is_retired_and_not_deprecated(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"))
    with refused("VERSION_STATE"):
        await deprecate(contracts, "1.0.0")
    assert (await retire(contracts, "1.0.0")).state == State.RETIRED


@pytest.mark.both_engines("contracts")
async def test_the_changelog_tells_what_was_done_newest_first(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await contracts.submit(shop("1.1.0", TOTAL, COUPON, NOTE), activate=True)
    await contracts.activate("shop", "1.0.0", reason="1.1.0 breaks the till.")
    await deprecate(contracts, "1.0.0")
    await retire(contracts, "1.0.0")
    entries = await changelog(contracts, page_size=2)
    assert [(each.number, each.action, each.version, each.previous_version) for each in entries] == [
        (7, Action.RETIRED, "1.0.0", "1.0.0"),
        (6, Action.DEPRECATED, "1.0.0", ""),
        (5, Action.REVERTED, "1.0.0", "1.1.0"),
        (4, Action.ACTIVATED, "1.1.0", "1.0.0"),
        (3, Action.SUBMITTED, "1.1.0", ""),
        (2, Action.ACTIVATED, "1.0.0", ""),
        (1, Action.SUBMITTED, "1.0.0", ""),
    ]
    assert {each.principal for each in entries} == {"ada"}
    assert (entries[2].reason, entries[3].level) == ("1.1.0 breaks the till.", Level.MINOR)
    assert [(each.dataset, each.path) for each in entries[3].fields] == [("orders", "$.note")]
    assert entries[1].HasField("sunset_at")
    with refused("CONTRACT_NOT_FOUND"):
        request = pb.ListChangelogEntriesRequest(contract_id="shop")
        await contracts.stub.ListChangelogEntries(request, **contracts.as_principal("elsewhere"))


async def test_what_breaks_somebody_waits_for_a_second_person_and_is_done_once_they_agree(
    governance: Governance, governed: Contracts
) -> None:
    await governed.submit(shop("1.0.0"), activate=True)
    await read(governed, "marketing", "coupon")
    await governed.submit(shop("2.0.0", TOTAL))
    answer = await propose(governed, "2.0.0")
    assert (answer.version.state, answer.version.in_force) == (State.PROPOSED, False)
    assert [each.name for each in answer.comparison.consumers] == ["marketing"]
    change_id = answer.version.change_id
    again = await propose(governed, "2.0.0")
    assert again.version.change_id == change_id  # asking again asks for the same
    assert (await governed.look_up("orders")).version == "1.0.0"
    change = await change_ends(governance, change_id, Change.PENDING)
    assert (change.kind, change.resource, change.requester) == (
        *("contract.activate", "contracts/shop/versions/2.0.0", "ada"),
    )
    payload = json.loads(change.payload)
    assert (payload["consumers"], payload["in_force_version"], payload["level"]) == (
        *(["marketing (orders)"], "1.0.0", "major"),
    )
    with refused("VERSION_STATE"):
        await retire(governed, "2.0.0")
    await vote(governance, change_id)
    active = await reaches(governed, "2.0.0", State.ACTIVE)
    assert (active.in_force, active.change_id) == (True, "")
    assert (await governed.look_up("orders")).version == "2.0.0"
    await change_ends(governance, change_id, Change.APPLIED)
    entries = await changelog(governed)
    assert [each.action for each in entries[:2]] == [Action.ACTIVATED, Action.PROPOSED]
    assert {each.change_id for each in entries[:2]} == {change_id}
    assert list(entries[0].consumers) == ["marketing"]
    await audited(governance, "contract.propose", "contract.activate")


async def audited(governance: Governance, *actions: str) -> None:
    request = audit_pb2.ListAuditEntriesRequest(page_size=200)
    async with asyncio.timeout(30):
        while True:
            listed = await governance.audit.ListAuditEntries(request, **governance.as_principal())
            if set(actions) <= {each.action for each in listed.entries}:
                return
            await asyncio.sleep(0.02)


async def test_a_proposal_that_is_rejected_is_a_draft_again_with_the_reason(
    governance: Governance, governed: Contracts
) -> None:
    await governed.submit(shop("1.0.0"), activate=True)
    await read(governed, "marketing", "coupon")
    await governed.submit(shop("2.0.0", TOTAL))
    first = (await propose(governed, "2.0.0")).version.change_id
    await vote(governance, first, approve=False)
    draft = await reaches(governed, "2.0.0", State.DRAFT)
    assert draft.change_id == ""
    assert "The report still needs it." in draft.reason
    assert (await changelog(governed))[0].action == Action.WITHDRAWN
    later = await propose(governed, "2.0.0")
    assert later.version.change_id not in ("", first)


async def test_an_approval_does_not_cover_whom_it_did_not_name(governance: Governance, governed: Contracts) -> None:
    await governed.submit(shop("1.0.0"), activate=True)
    await read(governed, "marketing", "coupon")
    await governed.submit(shop("2.0.0", TOTAL))
    change_id = (await propose(governed, "2.0.0")).version.change_id
    await read(governed, "loyalty", "coupon")
    await vote(governance, change_id)
    draft = await reaches(governed, "2.0.0", State.DRAFT)
    assert "not what it was" in draft.reason
    assert (await governed.look_up("orders")).version == "1.0.0"
    await change_ends(governance, change_id, Change.FAILED)


async def test_an_approval_given_while_contracts_was_away_is_carried_out_when_it_is_back(
    tmp_path: Path, governance: Governance
) -> None:
    await governance.hire("ada", roles=["engineer"])
    await governance.hire("rex", roles=["reviewer"])
    async with contracts_in(tmp_path, governance_target=governance.address) as contracts:
        await contracts.submit(shop("1.0.0"), activate=True)
        await read(contracts, "marketing", "coupon")
        await contracts.submit(shop("2.0.0", TOTAL))
        change_id = (await propose(contracts, "2.0.0")).version.change_id
    await vote(governance, change_id)
    async with contracts_in(tmp_path, governance_target=governance.address) as contracts:
        assert (await reaches(contracts, "2.0.0", State.ACTIVE)).in_force


async def test_an_activation_that_was_reported_before_the_process_died_is_done_when_it_is_back(
    tmp_path: Path, governance: Governance
) -> None:
    await governance.hire("ada", roles=["engineer"])
    await governance.hire("rex", roles=["reviewer"])
    async with contracts_in(tmp_path, governance_target=governance.address) as contracts:
        await contracts.submit(shop("1.0.0"), activate=True)
        await read(contracts, "marketing", "coupon")
        await contracts.submit(shop("2.0.0", TOTAL))
        change_id = (await propose(contracts, "2.0.0")).version.change_id
    await vote(governance, change_id)
    change = await change_ends(governance, change_id, Change.APPROVED)
    report = Changes(governance.channel, governance.signers["contracts"]).report
    await report(
        workspace="default", change_id=change_id, payload_sha256=change.payload_sha256, applied=True, detail="dying"
    )
    async with contracts_in(tmp_path, governance_target=governance.address) as contracts:
        assert (await reaches(contracts, "2.0.0", State.ACTIVE)).in_force


async def test_an_approved_version_whose_dataset_another_contract_took_is_a_draft_again(
    tmp_path: Path, governance: Governance
) -> None:
    await governance.hire("ada", roles=["engineer"])
    await governance.hire("rex", roles=["reviewer"])
    async with contracts_in(tmp_path, governance_target=governance.address) as contracts:
        await contracts.submit(shop("1.0.0"), activate=True)
        await read(contracts, "marketing", "coupon")
        text = document("shop", "2.0.0", datasets=("orders", "refunds"), properties=[TOTAL])
        await contracts.submit(text)
        change_id = (await propose(contracts, "2.0.0")).version.change_id
        await contracts.submit(document("claims", datasets=("refunds",)), activate=True)
        await vote(governance, change_id)
        draft = await reaches(contracts, "2.0.0", State.DRAFT)
        assert "'claims' governs dataset 'refunds'" in draft.reason
        await change_ends(governance, change_id, Change.FAILED)


async def test_a_proposal_that_breaks_nobody_any_more_is_activated_without_approval(
    governance: Governance, governed: Contracts
) -> None:
    await governed.submit(shop("1.0.0"), activate=True)
    marketing = await read(governed, "marketing", "coupon")
    await governed.submit(shop("2.0.0", TOTAL))
    change_id = (await propose(governed, "2.0.0")).version.change_id
    removal = consumers_pb2.RemoveConsumerRequest(consumer_id=marketing.consumer_id)
    await governed.consumers.RemoveConsumer(removal, **governed.as_principal())
    assert (await propose(governed, "2.0.0")).version.state == State.ACTIVE
    await vote(governance, change_id)
    await change_ends(governance, change_id, Change.FAILED)  # somebody approved what was no longer asked for


async def test_asking_for_approval_without_governance_is_refused_and_changes_nothing(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    await read(contracts, "marketing", "coupon")
    await contracts.submit(shop("2.0.0", TOTAL))
    with pytest.raises(Exception, match="UNAVAILABLE"):
        await propose(contracts, "2.0.0")
    assert (await contracts.get("shop", "2.0.0")).state == State.DRAFT


async def test_versions_of_another_workspace_are_neither_proposed_nor_ended(contracts: Contracts) -> None:
    await contracts.submit(shop("1.0.0"), activate=True)
    stranger = contracts.as_principal("elsewhere")
    named = {"contract_id": "shop", "version": "1.0.0", "reason": "mine"}
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.stub.ProposeContractVersion(pb.ProposeContractVersionRequest(**named), **stranger)
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.stub.RetireContractVersion(pb.RetireContractVersionRequest(**named), **stranger)
    with refused("CONTRACT_NOT_FOUND"):
        sunset = to_timestamp(datetime.now(UTC))
        request = pb.DeprecateContractVersionRequest(**named, sunset_at=sunset)
        await contracts.stub.DeprecateContractVersion(request, **stranger)
