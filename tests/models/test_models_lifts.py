"""Lifts over gRPC: consent, policy, receipts, replays and bad input."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import lifts_pb2

from tests.models.office import PolicyRoom
from tests.models.shop import SCOPES, World, numbered

R = receipts_pb2.ReplayResult
FIRST = datetime(2024, 1, 1, 12, tzinfo=UTC)
FIRST_DAY = date(2024, 2, 1)
UNITS = 120


def visits(*, seed: int = 2, units: int = UNITS) -> pa.Table:
    """What units bought before and after February 2024; the first half was treated and buys 4 more a visit."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {"household": [], "at": [], "amount": [], "basket": [], "discount": []}
    for unit in range(units):
        level = 10 + unit % 7 + random.normal(0, 1)
        for day in (*range(0, 30, 3), *range(31, 60, 3)):
            gain = 4.0 if day > 30 and unit < units // 2 else 0.0
            rows["household"].append(unit)
            rows["at"].append(FIRST + timedelta(days=day))
            rows["amount"].append(round(float(level + gain + random.normal(0, 0.5)), 2))
            rows["basket"].append(f"{unit}-{day}")
            rows["discount"].append(0.25 if gain else 0.0)
    return pa.table({**rows, "at": pa.array(rows["at"], pa.timestamp("us", "UTC"))})


@pytest.fixture
def shop(world: World) -> World:
    """An experiment that was made."""
    put_experiment(world)
    return world


def put_experiment(world: World) -> None:
    """Half the households get a coupon on 1 February; of every third the region is known."""
    treated = list(range(UNITS // 2))
    world.ingest.put("acme", "visits", visits())
    world.ingest.put("acme", "members", pa.table({"household": treated, "campaign": [7] * len(treated)}))
    world.ingest.put("acme", "campaigns", pa.table({"campaign": [7, 8], "begins": pa.array([FIRST_DAY] * 2)}))
    known = list(range(0, UNITS, 3))
    regions = pa.table({"household": known, "region": ["north" if unit % 2 else "south" for unit in known]})
    world.ingest.put("acme", "households", regions)
    world.office.consents.record(range(UNITS))


def spec(**changes: Any) -> lifts_pb2.LiftSpec:
    fields = {
        "name": "February coupon",
        "outcome": lifts_pb2.LiftOutcome(
            dataset="visits",
            unit_field="household",
            unit_type="household_id",
            time_field="at",
            value_field="amount",
            currency="EUR",
            count_field="basket",
            cost_fields=["discount"],
        ),
        "assignment": lifts_pb2.LiftAssignment(
            dataset="members",
            unit_field="household",
            time_field="begins",
            lookup_dataset="campaigns",
            lookup_key="campaign",
            leave_out_assigned_before=True,
        ),
        "first_day": "2024-02-01",
        "last_day": "2024-02-29",
        "pre_first_day": "2024-01-01",
        "pre_last_day": "2024-01-31",
        "covariates": lifts_pb2.LiftCovariates(dataset="households", unit_field="household", fields=["region"]),
    }
    return lifts_pb2.LiftSpec(**{**fields, **changes})


def outcome(**changes: Any) -> lifts_pb2.LiftOutcome:
    made = lifts_pb2.LiftOutcome()
    made.CopyFrom(spec().outcome)
    for name, value in changes.items():
        made.ClearField(name)
        made.MergeFrom(lifts_pb2.LiftOutcome(**{name: value}))
    return made


async def measured(client, **changes: Any) -> lifts_pb2.Lift:
    return await client(client.lifts.CreateLift, lifts_pb2.CreateLiftRequest(spec=spec(**changes)))


async def refused(client, **changes: Any):
    return await client.refused(client.lifts.CreateLift, lifts_pb2.CreateLiftRequest(spec=spec(**changes)))


async def receipt_of(client, made) -> receipts_pb2.Receipt:
    return await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id))


async def replay(client, made) -> receipts_pb2.ReplayResult:
    return await client(client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=made.receipt_id))


def reasons(made: lifts_pb2.Lift) -> dict[str, int]:
    return {note.reason: note.records for note in made.completeness.notes}


async def test_a_lift_tells_every_method_and_what_it_cost(shop, client):
    made = await measured(client)
    assert (made.treated, made.control, made.left_out) == (60, 60, 0)
    assert [(one.measure, one.method) for one in made.estimates] == [
        (measure, method) for measure in ("value", "count") for method in ("naive", "adjusted", "matched")
    ]
    naive, adjusted, matched = made.estimates[:3]
    assert adjusted.lower < 40 < adjusted.upper  # ten visits, 4 more each
    assert matched.lower < 40 < matched.upper
    assert adjusted.upper - adjusted.lower < naive.upper - naive.lower
    assert adjusted.incremental == pytest.approx(60 * adjusted.difference, rel=1e-8)
    count = made.estimates[3]
    assert (count.difference, count.lower, count.upper, count.ratio) == (0, 0, 0, 1)
    assert (made.cost.cost_micros, made.cost.currency) == (60 * 10 * 250_000, "EUR")
    assert [(one.method, one.HasField("cost_micros")) for one in made.cost.per_incremental] == [
        ("naive", False),
        ("adjusted", False),
        ("matched", False),
    ]
    balance = {one.covariate: one for one in made.balance}
    assert set(balance) == {
        "value before", "count before", "region=(absent)", "region=north", "region=south"
    }  # fmt: skip
    assert (made.spec.coverage, made.purpose) == (0.95, "measurement")
    assert reasons(made) == {"UNKNOWN_UNITS": 80}
    assert made == await client(client.lifts.GetLift, lifts_pb2.GetLiftRequest(lift_id=made.lift_id))


async def test_a_lift_comes_with_its_receipt(shop, client):
    made = await measured(client)
    receipt = await receipt_of(client, made)
    assert (receipt.producer, receipt.purpose, receipt.output) == ("models", "measurement", f"lift/{made.lift_id}")
    assert [(one.role, one.rows, one.snapshot.dataset) for one in receipt.inputs] == [
        ("outcome", UNITS * 20, "visits"),
        ("assignment", 60, "members"),
        ("lookup", 2, "campaigns"),
        ("covariates", 40, "households"),
    ]
    assert [(check.action, check.resource, list(check.policy_ids)) for check in receipt.policy_checks] == [
        ("use", f"dataset:{name}", ["scope-permits-act"]) for name in ("visits", "members", "campaigns", "households")
    ]
    assert receipt.policy_bundle.version == 1
    assert (receipt.consent.purpose, receipt.consent.basis) == ("measurement", "legitimate_interest")
    assert receipt.consent.ledger_revision == UNITS
    parameters = json.loads(receipt.parameters)
    assert parameters["spec"]["outcome"]["dataset"] == "visits"
    assert parameters["consent"]["ledger_revision"] == UNITS
    assert parameters["timezone"] == "America/New_York"
    assert receipt.completeness == made.completeness
    delivered = receipts_pb2.Receipt.FromString(await shop.office.receipts.get())
    assert delivered == receipt
    result = await replay(client, made)
    assert (result.outcome, result.actual_sha256) == (R.MATCH, receipt.output_sha256)


async def test_the_same_question_returns_the_same_lift_until_data_or_consents_change(shop, client):
    one = await measured(client)
    assert await measured(client) == one
    shop.office.consents.record(["somebody else"])
    assert await measured(client) == one
    shop.office.consents.record([3], allowed=False)
    other = await measured(client)
    assert other.receipt_id != one.receipt_id
    assert (other.treated, other.left_out, reasons(other)["NO_CONSENT"]) == (59, 1, 1)
    shop.ingest.put("acme", "visits", visits(units=UNITS + 2))
    shop.office.consents.record(range(UNITS, UNITS + 2))
    assert (await measured(client)).receipt_id not in (one.receipt_id, other.receipt_id)
    found = await client(client.lifts.ListLifts, lifts_pb2.ListLiftsRequest(page_size=2))
    assert [len(lift.estimates) for lift in found.lifts] == [0, 0]
    rest = lifts_pb2.ListLiftsRequest(page_size=2, page_token=found.next_page_token)
    assert [lift.lift_id for lift in (await client(client.lifts.ListLifts, rest)).lifts] == [one.lift_id]


async def test_questions_asked_at_once_share_one_lift(shop, client):
    made = await asyncio.gather(*(measured(client) for _ in range(3)))
    assert len({one.receipt_id for one in made}) == 1


async def test_a_replay_matches_after_new_data_withdrawals_and_another_policy_and_a_restart(shop):
    async with shop.serving() as running, shop.client(running) as client:
        made = await measured(client)
    shop.ingest.put("acme", "visits", pa.concat_tables([visits(), visits(seed=9)]))
    shop.office.consents.record(range(0, UNITS, 2), allowed=False)
    forbidding = '@id("no-lifts") @owner("t") forbid (principal, action == Counterfoil::Action::"use", resource);'
    shop.office.policies.put_in_force("acme", version=2, more=forbidding)
    async with shop.serving() as running, shop.client(running) as client:
        result = await replay(client, made)
        assert (result.outcome, result.field) == (R.MATCH, "")
        denied = await refused(client)
        assert (denied.code.name, denied.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
        assert denied.metadata["policy_id"] == "no-lifts"
        assert denied.metadata["bundle_version"] == "2"


async def test_consents_that_end_count_until_they_end_also_in_a_replay(shop, client):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    shop.office.consents.record(range(10), until=tomorrow)
    made = await measured(client)
    assert made.left_out == 0
    shop.office.consents.now = lambda: tomorrow
    assert (await measured(client)).left_out == 10
    assert (await replay(client, made)).outcome == R.MATCH


async def test_without_any_consent_the_use_is_refused_with_the_policys_id(shop, client):
    shop.office.consents.records.clear()
    denied = await refused(client)
    assert (denied.code.name, denied.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
    assert (denied.metadata["policy_id"], denied.metadata["resource"]) == ("use-needs-consent", "dataset:visits")
    assert not (await client(client.lifts.ListLifts, lifts_pb2.ListLiftsRequest())).lifts


async def test_consent_is_asked_for_the_purpose_that_is_named(shop, client):
    request = lifts_pb2.CreateLiftRequest(spec=spec(), purpose="advertising")
    denied = await client.refused(client.lifts.CreateLift, request)
    assert denied.metadata["policy_id"] == "use-needs-consent"
    shop.office.consents.record(range(UNITS), purpose="advertising")
    made = await client(client.lifts.CreateLift, request)
    assert made.purpose == "advertising"
    request.purpose = "Not A Purpose"
    bad = await client.refused(client.lifts.CreateLift, request)
    assert (bad.reason, bad.violations[0].field) == ("BAD_FIELD", "purpose")


async def test_units_that_are_no_people_need_no_consent(shop, client):
    made = await measured(client, outcome=outcome(unit_type=""))
    assert not shop.office.consents.asked
    receipt = await receipt_of(client, made)
    assert not receipt.HasField("consent")
    assert json.loads(receipt.parameters)["consent"] is None
    assert (await replay(client, made)).outcome == R.MATCH


async def test_a_ledger_is_asked_in_batches_of_one_state(shop, client):
    units = [f"u{number}" for number in range(10_050)]
    at = pa.array([FIRST] * len(units), pa.timestamp("us", "UTC"))
    many = pa.table({"household": units, "at": at, "amount": [1.0] * len(units), "basket": units})
    shop.ingest.put("acme", "visits", many)
    shop.ingest.put("acme", "members", pa.table({"household": units[:40], "campaign": [7] * 40}))
    shop.office.consents.record(units)
    made = await measured(client, outcome=outcome(cost_fields=[], currency=""))
    assert shop.office.consents.asked == [10_000, 50]
    assert (made.treated, made.control) == (40, 10_010)
    assert not made.cost.HasField("cost_micros")
    assert not made.cost.per_incremental


async def test_records_that_were_altered_are_named_by_the_first_number_that_differs(shop, client):
    made = await measured(client)
    table = visits()
    raised = pa.array([value + 1 for value in table["amount"].to_pylist()])
    altered = table.set_column(table.column_names.index("amount"), "amount", raised)
    shop.ingest.datasets["acme", "visits"] = numbered(altered)
    result = await replay(client, made)
    assert (result.outcome, result.field) == (R.MISMATCH, "estimates[value.naive].treated_mean")
    shop.ingest.erasure_revision = 1
    assert (await replay(client, made)).outcome == R.INPUT_ERASED


async def test_units_assigned_before_or_only_after_are_left_out_and_counted(shop, client):
    begins = {7: FIRST_DAY, 8: date(2024, 1, 31), 9: date(2024, 3, 1)}
    campaigns = pa.table({"campaign": list(begins), "begins": pa.array(list(begins.values()))})
    shop.ingest.put("acme", "campaigns", campaigns)
    households = [*range(60), 0, 1, 70, 71, 72, 9_999]
    members = pa.table({"household": households, "campaign": [7] * 60 + [8, 9, 9, 8, 6, 7]})
    shop.ingest.put("acme", "members", members)
    made = await measured(client)
    found = reasons(made)
    assert found["ASSIGNED_BEFORE"] == 2  # 0 and 71
    assert found["ASSIGNED_AFTER"] == 1  # 70; 1 was assigned in time, too
    assert found["ASSIGNED_NOT_IN_POPULATION"] == 1
    assert (found["UNMATCHED_LOOKUP"], found["ASSIGNED_WITHOUT_TIME"]) == (1, 1)  # 72, which stays treated
    assert (made.treated, made.control, made.left_out) == (60, 57, 3)


async def test_only_the_assignments_that_are_filtered_count(shop, client):
    campaigns = pa.table({"campaign": [7, 8], "begins": pa.array([FIRST_DAY] * 2)})
    shop.ingest.put("acme", "campaigns", campaigns)
    members = pa.table({"household": [*range(60), *range(100, 110)], "campaign": [7] * 60 + [8] * 10})
    shop.ingest.put("acme", "members", members)
    assignment = spec().assignment
    assignment.filter_field = "campaign"
    assignment.filter_values.append("7")
    made = await measured(client, assignment=assignment)
    assert (made.treated, made.control) == (60, 60)


async def test_what_contradicts_itself_is_refused_with_its_field(shop, client):
    for changes, field in (
        ({"first_day": "2024-02-30"}, "spec.first_day"),
        ({"last_day": "2024-01-31"}, "spec.last_day"),
        ({"pre_last_day": "2024-02-01"}, "spec.pre_last_day"),
        ({"outcome": outcome(currency="")}, "spec.outcome.currency"),
        (
            {"assignment": lifts_pb2.LiftAssignment(dataset="members", unit_field="household", filter_values=["7"])},
            "spec.assignment.filter_field",
        ),
        (
            {
                "assignment": lifts_pb2.LiftAssignment(
                    dataset="members", unit_field="household", leave_out_assigned_before=True
                )
            },
            "spec.assignment.time_field",
        ),
    ):
        bad = await refused(client, **changes)
        assert (bad.code.name, bad.reason) == ("INVALID_ARGUMENT", "BAD_FIELD")
        assert [one.field for one in bad.violations] == [field]


async def test_a_group_without_units_is_refused_and_says_which(shop, client):
    shop.ingest.put("acme", "members", pa.table({"household": [0], "campaign": [7]}))
    few = await refused(client)
    assert (few.code.name, few.reason, few.metadata["treated"]) == ("FAILED_PRECONDITION", "GROUP_TOO_SMALL", "1")
    everybody = pa.table({"household": list(range(UNITS)), "campaign": [7] * UNITS})
    shop.ingest.put("acme", "members", everybody)
    assert (await refused(client)).metadata["control"] == "0"
    shop.ingest.put("acme", "visits", visits().slice(0, 0))
    assert (await refused(client)).reason == "NO_UNITS"


async def test_fields_and_datasets_that_are_not_there_are_told(shop, client):
    assert (await refused(client, outcome=outcome(dataset="nowhere"))).reason == "DATASET_NOT_FOUND"
    text = await refused(client, outcome=outcome(value_field="basket"))
    assert (text.reason, text.metadata["field"]) == ("SERIES_FIELD_INVALID", "basket")


async def test_a_lift_needs_the_scope_of_reading_records_and_is_hidden_from_others(shop):
    async with (
        shop.serving() as running,
        shop.client(running) as client,
        shop.client(running, scopes=["models.write", "models.read"]) as narrow,
        shop.client(running, workspace="rival", scopes=SCOPES) as rival,
    ):
        missing = await refused(narrow)
        assert (missing.reason, missing.metadata["policy_id"]) == ("SCOPE_MISSING", "scope:ingest.read")
        made = await measured(client)
        get = lifts_pb2.GetLiftRequest(lift_id=made.lift_id)
        assert (await rival.refused(rival.lifts.GetLift, get)).reason == "LIFT_NOT_FOUND"
        again = receipts_pb2.ReplayRequest(receipt_id=made.receipt_id)
        assert (await rival.refused(rival.receipts.Replay, again)).reason == "RECEIPT_NOT_FOUND"


async def test_nothing_is_measured_while_nobody_knows_the_policies(shop):
    shop.office.policies = PolicyRoom()
    async with shop.serving() as running, shop.client(running, workspace="unknown") as client:
        shop.ingest.datasets.update({("unknown", name): table for (_, name), table in shop.ingest.datasets.items()})
        unknown = await refused(client, outcome=outcome(unit_type=""))
        assert (unknown.code.name, unknown.reason) == ("UNAVAILABLE", "POLICY_UNAVAILABLE")
