"""The life of contract versions, seen by principals and by ingest."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from counterfoil.contracts.v1 import contracts_pb2 as pb

from tests.contracts.calls import STRING, Contracts, contracts_in, document, refused

pytestmark = pytest.mark.both_engines("contracts")

State = pb.ContractVersion.State
Verdict = pb.SchemaComparison.Verdict


async def test_a_submitted_contract_is_a_draft_that_governs_nothing(contracts: Contracts) -> None:
    text = document()
    version = await contracts.submit(text)
    assert (version.state, version.document, version.created_by) == (State.DRAFT, text, "ada")
    assert not version.HasField("activated_at")
    with refused("NO_CONTRACT"):
        await contracts.look_up("orders")


async def test_an_activated_contract_governs_its_datasets(contracts: Contracts) -> None:
    version = await contracts.submit(document(datasets=("orders", "refunds")), activate=True)
    assert version.state == State.ACTIVE
    assert version.HasField("activated_at")
    for compiled in version.compiled:
        assert await contracts.look_up(compiled.dataset) == compiled
    assert {"default/orders", "default/refunds"} <= set(await contracts.in_force())


async def test_the_same_document_again_is_the_same_version(contracts: Contracts) -> None:
    first = await contracts.submit(document())
    assert await contracts.submit(document()) == first
    activated = await contracts.submit(document(), activate=True)
    assert activated.state == State.ACTIVE
    assert await contracts.submit(document(), activate=True) == activated


async def test_another_document_under_a_known_version_is_refused(contracts: Contracts) -> None:
    await contracts.submit(document())
    with refused("VERSION_EXISTS"):
        await contracts.submit(document(name="Another"))


async def test_activating_a_version_deprecates_the_one_before_and_frees_what_it_drops(contracts: Contracts) -> None:
    await contracts.submit(document(datasets=("orders", "refunds")), activate=True)
    await contracts.submit(document(version="2.0.0", datasets=("orders", "returns")), activate=True)
    assert (await contracts.get("shop", "1.0.0")).state == State.DEPRECATED
    in_force = await contracts.in_force()
    assert in_force["default/orders"].version == "2.0.0"
    assert "default/refunds" not in in_force
    assert "default/returns" in in_force
    with refused("NO_CONTRACT"):
        await contracts.look_up("refunds")
    other = await contracts.submit(document("claims", datasets=("refunds",)), activate=True)
    assert other.state == State.ACTIVE


async def test_a_version_comes_back_only_for_a_reason(contracts: Contracts) -> None:
    await contracts.submit(document(), activate=True)
    await contracts.submit(document(version="1.1.0"), activate=True)
    for reason in ("", "  "):
        with refused("REASON_REQUIRED"):
            await contracts.activate("shop", "1.0.0", reason=reason)
    with refused("REASON_REQUIRED"):
        await contracts.submit(document(), activate=True)
    back = await contracts.activate("shop", "1.0.0", reason="1.1.0 breaks the till")
    assert (back.state, back.reason) == (State.ACTIVE, "1.1.0 breaks the till")
    assert await contracts.get("shop", "1.0.0") == back
    assert (await contracts.look_up("orders")).version == "1.0.0"


async def test_activating_the_version_in_force_changes_nothing(contracts: Contracts) -> None:
    first = await contracts.submit(document(), activate=True)
    assert await contracts.activate("shop", "1.0.0", reason="again") == first


async def test_a_dataset_has_one_governing_contract_and_the_refusal_names_it(contracts: Contracts) -> None:
    await contracts.submit(document(), activate=True)
    rival = document("rival", datasets=("baskets", "orders"))
    await contracts.submit(rival)
    with refused("DATASET_TAKEN") as failures:
        await contracts.activate("rival", "1.0.0")
    assert failures[0].metadata == {"dataset": "orders", "contract_id": "shop"}
    with refused("NO_CONTRACT"):
        await contracts.look_up("baskets")


async def test_a_refused_activation_leaves_no_draft_behind(contracts: Contracts) -> None:
    with refused("DATASET_TAKEN"):
        await contracts.submit(document("rival", datasets=("events",)), activate=True)
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.get("rival", "1.0.0")


async def test_contracts_of_another_workspace_are_not_found_and_not_listed(contracts: Contracts) -> None:
    await contracts.submit(document(), activate=True)
    stranger = contracts.as_principal("elsewhere")
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.stub.GetContract(pb.GetContractRequest(contract_id="shop"), **stranger)
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.get("shop", "1.0.0", workspace="elsewhere")
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.activate("shop", "1.0.0", workspace="elsewhere")
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.stub.ListContractVersions(pb.ListContractVersionsRequest(contract_id="shop"), **stranger)
    listed = await contracts.stub.ListContracts(pb.ListContractsRequest(), **stranger)
    assert [contract.contract_id for contract in listed.contracts] == ["events", "identity_decisions"]
    own = await contracts.submit(document(name="Mine"), activate=True, workspace="elsewhere")
    assert own.compiled[0].workspace == "elsewhere"


async def test_an_unknown_version_is_told_from_an_unknown_contract(contracts: Contracts) -> None:
    await contracts.submit(document())
    with refused("VERSION_NOT_FOUND"):
        await contracts.get("shop", "9.9.9")
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.get("none", "1.0.0")


async def test_a_contract_tells_its_versions_and_datasets(contracts: Contracts) -> None:
    await contracts.submit(document(datasets=("orders",), name="Shop"), activate=True)
    await contracts.submit(document(version="2.0.0-rc.1", datasets=("orders", "refunds"), name="Shop, new"))
    request = pb.GetContractRequest(contract_id="shop")
    contract = await contracts.stub.GetContract(request, **contracts.as_principal())
    assert (contract.display_name, contract.active_version, contract.latest_version) == (
        "Shop, new",
        "1.0.0",
        "2.0.0-rc.1",
    )
    assert (list(contract.datasets), contract.shipped) == (["orders"], False)


async def test_pages_hold_every_contract_and_version_once_in_order(contracts: Contracts) -> None:
    ids = [f"shop-{number}" for number in range(5)]
    for contract_id in ids:
        await contracts.submit(document(contract_id))
    versions = [f"1.{minor}.0" for minor in range(1, 12)]
    for version in versions:
        await contracts.submit(document(ids[0], version))
    seen, request = [], pb.ListContractsRequest(page_size=2)
    while True:
        page = await contracts.stub.ListContracts(request, **contracts.as_principal())
        seen += [contract.contract_id for contract in page.contracts]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert seen == sorted(["events", "identity_decisions", *ids])
    numbers, of_one = [], pb.ListContractVersionsRequest(contract_id=ids[0], page_size=5)
    while True:
        listed = await contracts.stub.ListContractVersions(of_one, **contracts.as_principal())
        numbers += [version.version for version in listed.versions]
        assert not any(version.document for version in listed.versions)
        of_one.page_token = listed.next_page_token
        if not listed.next_page_token:
            break
    assert numbers == ["1.0.0", *versions]


async def test_the_largest_page_size_is_answered(contracts: Contracts) -> None:
    for number in range(40):
        await contracts.submit(document(f"shop-{number:04}"))
    listed = await contracts.stub.ListContracts(pb.ListContractsRequest(page_size=1000), **contracts.as_principal())
    assert len(listed.contracts) == 42


async def test_an_invalid_document_is_refused_with_every_fault_and_its_path(contracts: Contracts) -> None:
    properties = [{"name": "_id", "logicalType": "string"}, {**STRING, "logicalTypeOptions": {"pattern": "("}}]
    text = document(version="one", datasets=("Orders",), properties=properties)
    with refused("CONTRACT_INVALID") as failures:
        await contracts.submit(text)
    assert {(violation.field, violation.reason) for violation in failures[0].violations} == {
        ("$.version", "CONTRACT_VERSION"),
        ("$.schema[0].name", "DATASET_NAME"),
        ("$.schema[0].properties[0].name", "PROPERTY_NAME"),
        ("$.schema[0].properties[1].logicalTypeOptions.pattern", "PATTERN_INVALID"),
    }
    checked = await contracts.stub.CheckContract(pb.CheckContractRequest(document=text), **contracts.as_principal())
    assert {(finding.path, finding.reason) for finding in checked.findings} == {
        (violation.field, violation.reason) for violation in failures[0].violations
    }
    assert not checked.compiled


async def test_checking_keeps_nothing_and_shows_what_would_be_in_force(contracts: Contracts) -> None:
    checked = await contracts.stub.CheckContract(
        pb.CheckContractRequest(document=document()), **contracts.as_principal()
    )
    assert not checked.findings
    with refused("CONTRACT_NOT_FOUND"):
        await contracts.get("shop", "1.0.0")
    assert list(checked.compiled) == list((await contracts.submit(document())).compiled)


async def test_checking_says_what_would_break_for_those_who_send_and_for_those_who_read(contracts: Contracts) -> None:
    total = {"name": "total", "logicalType": "number", "required": True}
    await contracts.submit(document(properties=[total]), activate=True)
    narrower = {**total, "logicalTypeOptions": {"minimum": 10}}
    checked = await contracts.stub.CheckContract(
        pb.CheckContractRequest(document=document(version="1.1.0", properties=[narrower])), **contracts.as_principal()
    )
    [compared] = checked.comparisons
    assert (compared.dataset, compared.contract_id, compared.version) == ("orders", "shop", "1.0.0")
    assert compared.forward.verdict == Verdict.PROVEN_COMPATIBLE
    assert compared.backward.verdict == Verdict.PROVEN_BREAKING
    [broken] = compared.backward.breaks
    assert (broken.path, broken.keyword) == ("$.total", "minimum")
    assert json.loads(broken.witness)["total"] < 10


async def test_every_workspace_starts_with_the_shipped_events(contracts: Contracts) -> None:
    looked_up = await contracts.look_up("events", workspace="fresh")
    assert (looked_up.contract_id, looked_up.version) == ("events", "1.0.0")
    version = await contracts.get("events", "1.0.0", workspace="fresh")
    assert (version.state, version.created_by) == (State.ACTIVE, "platform")
    request = pb.GetContractRequest(contract_id="events")
    contract = await contracts.stub.GetContract(request, **contracts.as_principal("fresh"))
    assert contract.shipped
    assert [column.name for column in looked_up.columns] == [
        *("message_id", "type", "event", "user_id", "anonymous_id", "group_id", "timestamp"),
        *("properties", "context", "traits"),
    ]
    assert "additionalProperties" not in json.loads(looked_up.json_schema)
    assert {column.name: column.default_timezone for column in looked_up.columns}["timestamp"] == "UTC"


async def test_every_workspace_starts_with_the_shipped_identity_decisions(contracts: Contracts) -> None:
    looked_up = await contracts.look_up("identity_decisions", workspace="fresh")
    assert (looked_up.contract_id, looked_up.version) == ("identity_decisions", "1.0.0")
    required = json.loads(looked_up.json_schema)["required"]
    assert {"message_id", "kind", "decided_by", "decided_at", "reason"} <= set(required)


async def test_callers_at_the_same_time_ship_once(contracts: Contracts) -> None:
    calls = [contracts.look_up("events", workspace="busy") for _ in range(10)]
    calls += [contracts.get("events", "1.0.0", workspace="busy") for _ in range(10)]
    await asyncio.gather(*calls)
    request = pb.ListContractVersionsRequest(contract_id="events")
    listed = await contracts.stub.ListContractVersions(request, **contracts.as_principal("busy"))
    assert [version.version for version in listed.versions] == ["1.0.0"]


async def test_a_workspace_supersedes_the_shipped_contract(tmp_path: Path) -> None:
    own = document("events", "2.0.0", datasets=("events",), properties=[STRING])
    async with contracts_in(tmp_path) as contracts:
        await contracts.submit(own, activate=True)
        assert (await contracts.look_up("events")).version == "2.0.0"
        assert (await contracts.look_up("events", workspace="other")).version == "1.0.0"
    async with contracts_in(tmp_path) as restarted:
        assert (await restarted.look_up("events")).version == "2.0.0"


async def test_watchers_learn_of_changes_as_they_commit(contracts: Contracts) -> None:
    await contracts.look_up("events")
    stream = contracts.stub.WatchCompiledContracts(pb.WatchCompiledContractsRequest(), **contracts.as_ingest())
    changes = aiter(stream)

    async def next_change() -> tuple[str, str]:
        while True:
            response = await asyncio.wait_for(anext(changes), 60)
            if (kind := response.WhichOneof("change")) != "heartbeat":
                return str(kind), getattr(response, kind).key

    assert [await next_change(), await next_change()] == [
        ("put", "default/events"),
        ("put", "default/identity_decisions"),
    ]
    await contracts.submit(document(datasets=("orders",)), activate=True)
    assert await next_change() == ("put", "default/orders")
    await contracts.submit(document(version="2.0.0", datasets=("returns",)), activate=True)
    assert {await next_change(), await next_change()} == {("delete", "default/orders"), ("put", "default/returns")}
    stream.cancel()


@pytest.mark.parametrize("scope", ["contracts.read", "ingest.write"])
async def test_submitting_needs_its_scope(contracts: Contracts, scope: str) -> None:
    caller = contracts.as_principal(scopes=frozenset({scope}))
    with refused("SCOPE_MISSING"):
        await contracts.stub.SubmitContract(pb.SubmitContractRequest(document=document()), **caller)


async def test_principals_neither_watch_nor_look_up(contracts: Contracts) -> None:
    request = pb.LookupCompiledContractRequest(workspace="default", dataset="events")
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await contracts.stub.LookupCompiledContract(request, **contracts.as_principal())
