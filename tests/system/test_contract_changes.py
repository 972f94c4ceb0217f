"""A contract is changed in a whole installation: what nobody reads goes, what a model reads waits for approval."""

from typing import Any

import httpx
import pytest

from tests.system.installation import until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, problem

CONTRACT = "/v1/contracts/day-sales"
NOTE = "      - {name: note, logicalType: string}\n"
AMOUNT = "      - {name: amount, logicalType: number, required: true, logicalTypeOptions: {minimum: 0}}\n"


def day_sales(version: str, *, without: str) -> str:
    """Return the contract of the sales without a line."""
    text = DAY_SALES.format(version=version)
    assert without in text
    return text.replace(without, "")


def submit(shop: Tenant, text: str, **params: str) -> httpx.Response:
    headers = {"content-type": "application/yaml"}
    return shop.http.post("/v1/contracts", params=params, content=text.encode(), headers=headers)


@pytest.fixture(scope="module")
def shop(tenant: Tenant) -> Tenant:
    """A workspace with a model that reads the sales, of which contracts knows."""
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    ok(tenant.http.post("/v1/models", json={"model_id": "sales", "purpose": "planning", **SALES_MODEL}))

    def known() -> dict[str, Any] | None:
        listed = ok(tenant.http.get("/v1/consumers", params={"dataset": "sales"}))["consumers"]
        return next((each for each in listed if each["service"] == "models"), None)

    consumer = until(known, seconds=60, what="contracts does not know what the model reads")
    assert (consumer["name"], consumer["fields"]) == ("models/sales", ["$.sold_at", "$.amount", "$.shop"])
    assert consumer["undeclared_fields"] == []
    return tenant


def test_a_field_that_nobody_reads_is_shown_as_unused_and_goes_at_once(shop: Tenant):
    fields = ok(shop.http.get(f"{CONTRACT}/fields"))["fields"]
    readers = {each["path"]: [one["name"] for one in each["consumers"]] for each in fields}
    assert readers == {
        "$.amount": ["models/sales"],
        "$.message_id": [],
        "$.note": [],
        "$.shop": ["models/sales"],
        "$.sold_at": ["models/sales"],
    }
    low = submit(shop, day_sales("1.1.0", without=NOTE), activate="true")
    assert problem(low, status=400, reason="VERSION_TOO_LOW")["metadata"]["needed_version"] == "2.0.0"
    assert ok(submit(shop, day_sales("2.0.0", without=NOTE), activate="true"))["in_force"]


def test_a_field_that_a_model_reads_goes_only_with_a_second_person(shop: Tenant):
    text = day_sales("3.0.0", without=AMOUNT)
    refused = problem(submit(shop, text, activate="true"), status=400, reason="CONSUMERS_BROKEN")
    assert refused["metadata"]["consumers"] == "models/sales"
    assert {each["field"] for each in refused["errors"]} == {"$.amount"}
    checked = ok(shop.http.post("/v1/contracts:check", json={"document": text}))["comparison"]
    assert (checked["level"], checked["needs_approval"], checked["consumer_count"]) == ("MAJOR", True, 1)
    ok(submit(shop, text))
    asked = ok(shop.http.post(f"{CONTRACT}/versions/3.0.0:propose", json={"reason": "Amounts come from the till now."}))
    change_id = asked["version"]["change_id"]
    assert asked["version"]["state"] == "PROPOSED"
    change = ok(shop.http.get(f"/v1/changes/{change_id}"))
    assert change["payload"]["consumers"] == ["models/sales (sales)"]
    vote = {"payload_sha256": change["payload_sha256"]}
    problem(shop.http.post(f"/v1/changes/{change_id}:approve", json=vote), status=403)  # nobody approves their own
    ok(shop.http.post("/v1/principals", json={"principal_id": "second", "kind": "HUMAN", "roles": ["reviewer"]}))
    key = ok(shop.http.post("/v1/keys", json={"principal_id": "second"}))["api_key"]
    with shop.installation.http(key) as second:
        ok(second.post(f"/v1/changes/{change_id}:approve", json=vote))

    def active() -> bool | None:
        return ok(shop.http.get(f"{CONTRACT}/versions/3.0.0"))["in_force"] or None

    until(active, seconds=60, what="the approved version is not in force")
    newest, *_ = ok(shop.http.get(f"{CONTRACT}/changelog"))["entries"]
    assert (newest["action"], newest["version"], newest["change_id"]) == ("ACTIVATED", "3.0.0", change_id)
    assert newest["consumers"] == ["models/sales"]
    [consumer] = ok(shop.http.get("/v1/consumers", params={"dataset": "sales"}))["consumers"]
    assert consumer["undeclared_fields"] == ["$.amount"]


def test_a_contract_that_a_model_reads_ends_with_an_announcement_and_not_under_its_feet(shop: Tenant):
    version = ok(shop.http.get(CONTRACT))["active_version"]
    ending = {"sunset_at": "2026-01-01T00:00:00Z", "reason": "The till sends totals."}
    announced = ok(shop.http.post(f"{CONTRACT}/versions/{version}:deprecate", json=ending))
    assert (announced["state"], announced["in_force"]) == ("DEPRECATED", True)
    retired = shop.http.post(f"{CONTRACT}/versions/{version}:retire", json={"reason": "It is time."})
    assert problem(retired, status=400, reason="CONSUMERS_READ")["metadata"]["consumers"] == "models/sales"
