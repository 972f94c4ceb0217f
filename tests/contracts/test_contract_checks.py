"""Checks as contracts keeps them: asked for by people, run and reported by ingest."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from counterfoil.contracts.v1 import checks_pb2 as pb
from counterfoil.contracts.v1.checks_pb2_grpc import CheckServiceStub
from counterfoil_contracts.odcs.check import check_document

from tests.contracts.calls import Contracts, document, refused

PROFILED = pb.DatasetProfile(
    dataset="unplanned",
    records=200,
    fields=[
        pb.FieldProfile(
            path="$.message_id",
            parents=200,
            present=200,
            types=[pb.ValueCount(value="string", count=200)],
            format="uuid",
        ),
        pb.FieldProfile(
            path="$.properties", parents=200, present=200, types=[pb.ValueCount(value="object", count=200)]
        ),
        pb.FieldProfile(
            path="$.properties.currency",
            parents=200,
            present=200,
            types=[pb.ValueCount(value="string", count=200)],
            values=[pb.ValueCount(value="EUR", count=150), pb.ValueCount(value="NOK", count=50)],
            distinct=2,
            minimum=3,
            maximum=3,
        ),
        pb.FieldProfile(
            path="$.properties.email",
            parents=200,
            present=50,
            nulls=10,
            types=[pb.ValueCount(value="string", count=40)],
            format="email",
            personal="email",
        ),
        pb.FieldProfile(
            path="$.properties.lines", parents=200, present=190, types=[pb.ValueCount(value="array", count=190)]
        ),
        pb.FieldProfile(
            path="$.properties.lines[*]", parents=400, present=400, types=[pb.ValueCount(value="object", count=400)]
        ),
        pb.FieldProfile(
            path="$.properties.lines[*].price",
            parents=400,
            present=400,
            types=[pb.ValueCount(value="integer", count=300), pb.ValueCount(value="number", count=100)],
            minimum=1,
            maximum=99.5,
        ),
        pb.FieldProfile(path="$['_odd']", parents=200, present=1, types=[pb.ValueCount(value="string", count=1)]),
    ],
)


class Checks:
    """The stub of the checks of a running contracts service."""

    def __init__(self, contracts: Contracts) -> None:
        self.contracts = contracts
        self.stub = CheckServiceStub(contracts.channel)

    async def create(self, workspace: str = "default", **request: Any) -> pb.Check:
        return await self.stub.CreateCheck(pb.CreateCheckRequest(**request), **self.contracts.as_principal(workspace))

    async def get(self, check_id: str, workspace: str = "default") -> pb.Check:
        return await self.stub.GetCheck(pb.GetCheckRequest(check_id=check_id), **self.contracts.as_principal(workspace))

    async def report(self, check_id: str, workspace: str = "default", **found: Any) -> None:
        request = pb.ReportCheckRequest(workspace=workspace, check_id=check_id, **found)
        await self.stub.ReportCheck(request, **self.contracts.as_ingest())

    async def pending(self) -> dict[str, pb.PendingCheck]:
        """Return what a new watcher is told, by key."""
        state = {}
        async for response in self.stub.WatchChecks(pb.WatchChecksRequest(), **self.contracts.as_ingest()):
            if response.WhichOneof("change") == "heartbeat":
                return state
            check = pb.PendingCheck()
            response.put.resource.Unpack(check)
            state[response.put.key] = check
        raise AssertionError("the stream ended")

    async def draft(self, check_id: str, **asked: str) -> pb.DraftContractResponse:
        request = pb.DraftContractRequest(check_id=check_id, **{"contract_id": "checkout", "owner": "growth", **asked})
        return await self.stub.DraftContract(request, **self.contracts.as_principal())


@pytest.fixture
def checks(contracts: Contracts) -> Checks:
    return Checks(contracts)


PROFILE = {"profile": pb.ProfileSubject(dataset="unplanned", event="Order Completed")}


async def test_a_trial_waits_with_what_its_document_compiles_to_until_it_is_reported(checks: Checks) -> None:
    text = document("shop", "2.0.0", datasets=("orders", "refunds"))
    asked = await checks.create(trial=pb.TrialRequest(document=text), records=50)
    assert (asked.state, asked.records, asked.created_by) == (pb.Check.State.PENDING, 50, "ada")
    assert (asked.trial.contract_id, asked.trial.version) == ("shop", "2.0.0")
    pending = (await checks.pending())[f"default/{asked.check_id}"]
    assert [each.dataset for each in pending.compiled] == ["orders", "refunds"]
    assert (pending.records, pending.HasField("profile")) == (50, False)

    fault = pb.TrialFault(path="$.name", reason="CONTRACT_TYPE", detail="It must be string.", records=2, offset=7)
    trial = pb.DatasetTrial(dataset="orders", tried=10, failed=2, faults=[fault])
    await checks.report(asked.check_id, trials=[trial])
    done = await checks.get(asked.check_id)
    assert (done.state, list(done.trials)) == (pb.Check.State.DONE, [trial])
    assert done.HasField("finished_at")
    assert not await checks.pending()
    await checks.report(asked.check_id, error_reason="LATE")
    assert await checks.get(asked.check_id) == done


async def test_a_version_that_was_submitted_is_tried_by_its_name(checks: Checks) -> None:
    await checks.contracts.submit(document("shop", "1.0.0"))
    asked = await checks.create(trial=pb.TrialRequest(contract_id="shop", version="1.0.0"))
    assert asked.records == 1_000
    assert (await checks.pending())[f"default/{asked.check_id}"].compiled[0].dataset == "orders"
    with refused("VERSION_NOT_FOUND"):
        await checks.create(trial=pb.TrialRequest(contract_id="shop", version="9.0.0"))
    with refused("CONTRACT_NOT_FOUND"):
        await checks.create(trial=pb.TrialRequest(contract_id="shop", version="1.0.0"), workspace="another")
    with refused("CHECK_SUBJECT"):
        await checks.create(trial=pb.TrialRequest())
    with refused("CHECK_SUBJECT"):
        await checks.create(trial=pb.TrialRequest(document=document(), contract_id="shop", version="1.0.0"))
    with refused("CONTRACT_INVALID"):
        await checks.create(trial=pb.TrialRequest(document="kind: nonsense"))


async def test_a_check_is_of_its_workspace_and_asked_for_once(checks: Checks) -> None:
    asked = await checks.create(**PROFILE, request_id="r1")
    again = await checks.create(**PROFILE, request_id="r1")
    assert again.check_id == asked.check_id
    with refused("CHECK_NOT_FOUND"):
        await checks.get(asked.check_id, workspace="another")
    with refused("CHECK_NOT_FOUND"):
        await checks.report(asked.check_id, workspace="another", error_reason="X")
    newer = await checks.create(**PROFILE)
    listed = await checks.stub.ListChecks(pb.ListChecksRequest(page_size=1), **checks.contracts.as_principal())
    assert [each.check_id for each in listed.checks] == [newer.check_id]
    rest = await checks.stub.ListChecks(
        pb.ListChecksRequest(page_size=1, page_token=listed.next_page_token), **checks.contracts.as_principal()
    )
    assert [each.check_id for each in rest.checks] == [asked.check_id]
    assert not rest.next_page_token


async def test_no_more_checks_wait_than_ingest_is_to_be_asked_at_once(checks: Checks) -> None:
    for _ in range(20):
        last = await checks.create(**PROFILE)
    with refused("TOO_MANY_CHECKS"):
        await checks.create(**PROFILE)
    await checks.create("another", **PROFILE)
    await checks.report(last.check_id, error_reason="DATASET_NOT_FOUND", error_detail="There is no such dataset.")
    failed = await checks.get(last.check_id)
    assert (failed.state, failed.error_reason) == (pb.Check.State.FAILED, "DATASET_NOT_FOUND")
    await checks.create(**PROFILE)


async def test_the_newest_checks_are_kept(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterfoil_contracts.checks.MOST_KEPT", 3)
    made = [await checks.create(**PROFILE) for _ in range(5)]
    listed = await checks.stub.ListChecks(pb.ListChecksRequest(), **checks.contracts.as_principal())
    assert [each.check_id for each in listed.checks] == [each.check_id for each in made[:1:-1]]
    assert set(await checks.pending()) == {f"default/{each.check_id}" for each in made[2:]}


async def test_a_contract_is_drafted_from_a_profile_for_a_person_to_finish(checks: Checks) -> None:
    asked = await checks.create(**PROFILE)
    with refused("PROFILE_NOT_DONE"):
        await checks.draft(asked.check_id)
    await checks.report(asked.check_id, profiled=PROFILED)
    drafted = await checks.draft(asked.check_id)
    checked = check_document(drafted.document)
    assert not checked.findings
    assert (checked.contract_id, checked.version) == ("checkout", "1.0.0")
    text = yaml.safe_load(drafted.document)
    assert (text["status"], text["team"]) == ("draft", {"name": "growth"})
    (dataset,) = text["schema"]
    assert (dataset["name"], dataset["physicalName"]) == ("order_completed", "Order Completed")
    message_id, properties = dataset["properties"]
    assert (message_id["logicalTypeOptions"], message_id["required"]) == ({"format": "uuid"}, True)
    currency, email, lines = properties["properties"]
    assert currency["enum"] == [{"value": "EUR"}, {"value": "NOK"}]
    assert (email["classification"], "required" in email) == ("restricted", False)
    assert "absent in 75 %" in email["description"]
    assert "null in 5 %" in email["description"]
    (price,) = lines["items"]["properties"]
    assert (price["name"], price["logicalType"], price["required"]) == ("price", "number", True)
    assert "from 1 to 99.5" in price["description"]
    told = "\n".join(drafted.open_questions)
    for question in ("$.properties.email looks like personal data (email)", "$['_odd'] cannot be a property", "EUR"):
        assert (question in told) is (question != "EUR")


async def test_a_draft_takes_the_name_that_it_is_given(checks: Checks) -> None:
    asked = await checks.create(profile=pb.ProfileSubject(dataset="events"))
    await checks.report(asked.check_id, profiled=PROFILED)
    assert yaml.safe_load((await checks.draft(asked.check_id)).document)["schema"][0]["name"] == "events"
    named = await checks.draft(asked.check_id, dataset="purchases", contract_id="shop", owner="Büro: {1}")
    text = yaml.safe_load(named.document)
    assert (text["schema"][0]["name"], text["id"], text["team"]["name"]) == ("purchases", "shop", "Büro: {1}")
    assert not check_document(named.document).findings


async def test_nothing_is_drafted_from_nothing(checks: Checks) -> None:
    asked = await checks.create(**PROFILE)
    await checks.report(asked.check_id, profiled=pb.DatasetProfile(dataset="unplanned"))
    with refused("PROFILE_EMPTY"):
        await checks.draft(asked.check_id)
    trial = await checks.create(trial=pb.TrialRequest(document=document()))
    with refused("PROFILE_NOT_DONE"):
        await checks.draft(trial.check_id)
