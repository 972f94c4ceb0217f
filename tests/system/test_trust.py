"""What policy, consent and a second person hold back and let through; what replays; one trace through the log."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.system.installation import traceparent, until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, problem, sales_csv
from tests.system.trust_story import MAPPING, VISITS, visits

ATTRIBUTION = {
    "spec": {
        "conversion_type": "purchase",
        "first_day": "2025-02-01",
        "last_day": "2025-02-28",
        "subject": "CAMPAIGN",
        "window": "LOOKBACK",
        "lookback_days": 7,
    }
}
LIFT = {
    "spec": {
        "outcome": {
            "dataset": "visits",
            "unit_field": "customer",
            "unit_type": "user_id",
            "time_field": "at",
            "value_field": "bought",
            "currency": "EUR",
            "count_field": "message_id",
        },
        "assignment": {"dataset": "members", "unit_field": "customer"},
        "first_day": "2025-02-01",
        "last_day": "2025-02-28",
        "pre_first_day": "2025-01-01",
        "pre_last_day": "2025-01-31",
    }
}
MEMBERS = """
apiVersion: v3.1.0
kind: DataContract
id: shop-members
name: Members
version: 1.0.0
status: active
schema:
  - name: members
    logicalType: object
    properties:
      - {name: message_id, logicalType: string, required: true}
      - {name: customer, logicalType: string, required: true, classification: restricted}
"""


@pytest.fixture(scope="module")
def shop(tenant: Tenant) -> Tenant:
    """A workspace with visits, who was treated, sales, and a graph that has read them."""
    tenant.activate(VISITS)
    tenant.activate(MEMBERS)
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    ok(tenant.http.post("/v1/graph/mappings", content=MAPPING.encode(), headers={"content-type": "application/yaml"}))
    tenant.append("visits", visits())
    verdicts = tenant.append("members", [{"message_id": f"m{n}", "customer": f"c{n:02}"} for n in range(0, 24, 2)])
    assert tenant.upload("sales", sales_csv(150), form="csv")["state"] == "SUCCEEDED"
    until(lambda: _read(tenant, verdicts[-1]["position"]["offset"]), seconds=60, what="the graph is behind")
    return tenant


def _read(tenant: Tenant, offset: int) -> bool | None:
    answer = tenant.http.get("/v1/graph")
    if answer.status_code != 200 or answer.json()["rebuilding"]:
        return None
    return True if answer.json()["state"]["next_offset"] > offset else None


@pytest.fixture(scope="module")
def second(shop: Tenant) -> Iterator[httpx.Client]:
    """Another person, who may vote."""
    ok(shop.http.post("/v1/principals", json={"principal_id": "second", "kind": "HUMAN", "roles": ["reviewer"]}))
    key = ok(shop.http.post("/v1/keys", json={"principal_id": "second"}))["api_key"]
    with shop.installation.http(key) as client:
        yield client


def person(shop: Tenant, value: str) -> str:
    """Return who has a user id."""
    found: str = ok(shop.http.post("/v1/persons:lookup", json={"type": "user_id", "value": value}))["person_id"]
    return found


def consent(shop: Tenant, purpose: str, values: list[str], *, state: str = "GRANTED") -> None:
    """Record what people said."""
    records = [
        {
            "subject": {"type": "user_id", "value": value},
            "purpose": purpose,
            "state": state,
            "basis": "CONSENT",
            "happened_at": "2025-01-01T00:00:00Z",
        }
        for value in values
    ]
    ok(shop.http.post("/v1/consents", json={"consents": records}))


def approve(second: httpx.Client, change_id: str) -> dict[str, Any]:
    """Vote for a change as it stands."""
    change = ok(second.get(f"/v1/changes/{change_id}"))
    return ok(second.post(f"/v1/changes/{change_id}:approve", json={"payload_sha256": change["payload_sha256"]}))


def test_measures_nobody_without_consent(shop: Tenant):
    for path, body in (("/v1/attribution", ATTRIBUTION), ("/v1/lift", LIFT)):
        refused = problem(shop.http.post(path, json=body), status=403, reason="POLICY_DENIED")
        assert refused["metadata"]["policy_id"] == "use-needs-consent", path


def test_an_export_needs_consent_and_a_second_person(shop: Tenant, second: httpx.Client):
    body = {"purpose": "advertising", "destination": "a printer", "person_ids": [person(shop, "c05")]}
    refused = problem(shop.http.post("/v1/persons:export", json=body), status=403, reason="POLICY_DENIED")
    assert "export-needs-consent" in refused["metadata"]["policy_ids"]
    consent(shop, "advertising", ["c05"])
    refused = problem(shop.http.post("/v1/persons:export", json=body), status=403, reason="POLICY_DENIED")
    assert refused["metadata"]["policy_id"] == "export-needs-second-person"
    asked = ok(shop.http.post("/v1/persons:export", json={**body, "request_approval": True, "reason": "cards"}))
    assert asked["persons"] == []
    problem(
        shop.http.post("/v1/persons:export", json={**body, "change_id": asked["change_id"]}),
        status=400,
        reason="CHANGE_NOT_APPROVED",
    )
    own = ok(shop.http.get(f"/v1/changes/{asked['change_id']}"))
    vote = {"payload_sha256": own["payload_sha256"]}
    problem(shop.http.post(f"/v1/changes/{asked['change_id']}:approve", json=vote), status=403)
    assert approve(second, asked["change_id"])["state"] == "APPROVED"
    done = until(
        lambda: _exported(shop, {**body, "change_id": asked["change_id"]}),
        seconds=60,
        what="the approval has no effect",
    )
    assert [one["person_id"] for one in done["persons"]] == body["person_ids"]
    receipt = ok(shop.http.get(f"/v1/receipts/{done['receipt_id']}"))
    assert receipt["changes"] == [asked["change_id"]]
    assert receipt["consent"]["purpose"] == "advertising"
    assert ok(shop.http.post(f"/v1/receipts/{done['receipt_id']}:replay", json={}))["outcome"] == "MATCH"
    used_up = shop.http.post("/v1/persons:export", json={**body, "change_id": asked["change_id"]})
    assert used_up.status_code != 200, "an approval is good for one export"


def _exported(shop: Tenant, body: dict[str, Any]) -> dict[str, Any] | None:
    answer = shop.http.post("/v1/persons:export", json=body)
    return ok(answer) if answer.status_code != 403 else None


def test_a_promotion_needs_a_second_person(shop: Tenant, second: httpx.Client):
    model = {"model_id": "shops", "impact_tier": "IMPACT_TIER_MEDIUM", "purpose": "planning", **SALES_MODEL}
    answer = shop.http.post("/v1/models", json=model)
    if answer.status_code == 400:  # enum values travel without their prefix
        answer = shop.http.post("/v1/models", json={**model, "impact_tier": "MEDIUM"})
    ok(answer)
    version = ok(shop.http.post("/v1/models/shops/versions:train", json={}))["version"]
    path = f"/v1/models/shops/versions/{version}"
    until(
        lambda: True if ok(shop.http.get(path))["state"] == "VALIDATED" else None, seconds=60, what="it is not trained"
    )
    refused = problem(shop.http.post(f"{path}:promote", json={}), status=403, reason="POLICY_DENIED")
    assert refused["metadata"]["policy_id"] == "promotion-needs-second-person"
    waiting = ok(shop.http.post(f"{path}:promote", json={"request_approval": True, "reason": "it is better"}))
    assert waiting["state"] == "PENDING_APPROVAL"
    approve(second, waiting["change_id"])
    until(
        lambda: True if ok(shop.http.get(path))["state"] == "CHAMPION" else None, seconds=60, what="it does not serve"
    )
    change = until(
        lambda: _applied(shop, waiting["change_id"]), seconds=60, what="the change was not reported as carried out"
    )
    assert [vote["voter"] for vote in change["votes"]] == ["second"]


def _applied(shop: Tenant, change_id: str) -> dict[str, Any] | None:
    found = ok(shop.http.get(f"/v1/changes/{change_id}"))
    return found if found["state"] == "APPLIED" else None


@pytest.fixture(scope="module")
def outputs(shop: Tenant, second: httpx.Client) -> dict[str, dict[str, Any]]:
    """A forecast, an attribution and a lift."""
    consent(shop, "measurement", [f"c{n:02}" for n in range(20)])
    return {
        "forecasts": ok(shop.http.post("/v1/forecasts", json={"model_id": "shops"})),
        "attribution": ok(shop.http.post("/v1/attribution", json=ATTRIBUTION)),
        "lift": ok(shop.http.post("/v1/lift", json=LIFT)),
    }


def test_receipts_say_on_what_basis_people_were_measured(shop: Tenant, outputs: dict[str, dict[str, Any]]):
    for kind in ("attribution", "lift"):
        receipt = ok(shop.http.get(f"/v1/receipts/{outputs[kind]['receipt_id']}"))
        assert receipt["consent"]["purpose"] == "measurement"
        assert receipt["policy_bundle"]["version"] >= 1
        assert all(check["allowed"] and check["policy_ids"] for check in receipt["policy_checks"])
        notes = {note["reason"]: note["records"] for note in receipt["completeness"]["notes"]}
        assert notes["NO_CONSENT"] > 0, notes


def test_the_same_question_gets_the_same_answer(shop: Tenant, outputs: dict[str, dict[str, Any]]):
    assert ok(shop.http.post("/v1/attribution", json=ATTRIBUTION)) == outputs["attribution"]
    assert ok(shop.http.post("/v1/lift", json=LIFT)) == outputs["lift"]


def test_everything_replays_after_new_data_a_retrain_and_a_policy_change(
    shop: Tenant, second: httpx.Client, outputs: dict[str, dict[str, Any]]
):
    shop.append("sales", [{"sold_at": "2025-03-03T08:00:00Z", "shop": "north", "amount": 999}])
    late = {"message_id": "late", "at": "2025-02-07T08:00:00Z", "customer": "c01", "device": "d01", "bought": 500.0}
    verdicts = shop.append("visits", [late])
    until(lambda: _read(shop, verdicts[-1]["position"]["offset"]), seconds=60, what="the graph is behind")
    consent(shop, "measurement", ["c20", "c21"])
    ok(shop.http.post("/v1/models/shops/versions:train", json={}))
    bundle = ok(shop.http.get("/v1/policy-bundles/0"))["policies"]
    more = (
        '\n@id("one-more")\n@owner("governance")\nforbid(principal in Counterfoil::Role::"guest", action, resource);\n'
    )
    made = ok(shop.http.post("/v1/policy-bundles", json={"policies": bundle + more, "reason": "guests"}))
    approve(second, made["change_id"])
    for kind, made in outputs.items():
        replay = ok(shop.http.post(f"/v1/receipts/{made['receipt_id']}:replay", json={}))
        assert replay["outcome"] == "MATCH", (kind, replay)
    fresh = ok(shop.http.post("/v1/attribution", json=ATTRIBUTION))
    assert fresh["receipt_id"] != outputs["attribution"]["receipt_id"]


def test_one_trace_crosses_gateway_ingest_and_through_the_log_graph_and_models(shop: Tenant):
    header, trace_id = traceparent()
    visit = {"message_id": "traced", "at": "2025-02-20T08:00:00Z", "customer": "c22", "device": "d22"}
    verdicts = shop.append("visits", [visit], traceparent=header)
    spans = shop.installation.trace(trace_id, services={"gateway", "ingest", "graph", "models"})
    assert {span["traceID"] for span in spans} == {trace_id}
    until(lambda: _read(shop, verdicts[-1]["position"]["offset"]), seconds=60, what="the graph is behind")


def test_a_rebuild_gives_the_same_people(shop: Tenant):
    before = everybody(shop)
    ok(shop.http.post("/v1/graph:rebuild", json={"reason": "the test"}))
    until(lambda: _rebuilt(shop), seconds=60, what="the graph is still rebuilding")
    assert everybody(shop) == before


def everybody(shop: Tenant) -> list[dict[str, Any]]:
    """Return every person."""
    answer = ok(shop.http.get("/v1/persons", params={"page_size": 1000}))
    return list(answer["persons"])


def _rebuilt(shop: Tenant) -> bool | None:
    answer = shop.http.get("/v1/graph")
    return True if answer.status_code == 200 and not answer.json()["rebuilding"] else None


def test_the_audit_log_holds_all_of_it_and_verifies(shop: Tenant):
    found = ok(shop.http.post("/v1/audit:verify", json={}))
    assert found["ok"], found
    entries = ok(shop.http.get("/v1/audit/entries", params={"page_size": 1000}))["entries"]
    actions = {entry["action"] for entry in entries}
    assert actions >= {"key.create", "change.create", "change.approve", "model.promote", "persons.export"}, actions


def test_a_policy_binds_a_role_at_the_door(make_tenant: Callable[[str], Tenant]):
    house = make_tenant("policed")
    ok(house.http.post("/v1/principals", json={"principal_id": "second", "kind": "HUMAN", "roles": ["reviewer"]}))
    voter = house.installation.http(ok(house.http.post("/v1/keys", json={"principal_id": "second"}))["api_key"])
    ok(house.http.post("/v1/principals", json={"principal_id": "eve", "kind": "HUMAN", "roles": ["analyst"]}))
    eve = house.installation.http(ok(house.http.post("/v1/keys", json={"principal_id": "eve"}))["api_key"])
    assert eve.get("/v1/datasets").status_code == 200
    text = ok(house.http.get("/v1/policy-bundles/0"))["policies"] + (
        '\n@id("analysts-see-no-datasets")\n@owner("governance")\n'
        'forbid(principal in Counterfoil::Role::"analyst", action == Counterfoil::Action::"call", '
        'resource == Counterfoil::Method::"counterfoil.ingest.v1.RecordService/ListDatasets");\n'
    )
    made = ok(house.http.post("/v1/policy-bundles", json={"policies": text, "reason": "a try"}))
    assert eve.get("/v1/datasets").status_code == 200, "a proposal binds nobody"
    approve(voter, made["change_id"])
    until(lambda: True if eve.get("/v1/datasets").status_code == 403 else None, seconds=60, what="still let through")
    refused = problem(eve.get("/v1/datasets"), status=403, reason="POLICY_DENIED")
    assert refused["metadata"]["policy_id"] == "analysts-see-no-datasets"
    assert house.http.get("/v1/datasets").status_code == 200
    for client in (voter, eve):
        client.close()
