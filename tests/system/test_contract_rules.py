"""Contracts through the gateway: kept byte for byte, judged line by line, their rules on every way in, drafts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.installation import until
from tests.system.tenant import Tenant, ok, problem

EXAMPLES = sorted((Path(__file__).parents[1] / "contracts" / "odcs-examples").glob("*.yaml"))
YAML = {"content-type": "application/yaml"}

PURCHASES = """
apiVersion: v3.2.0
kind: DataContract
id: purchases
version: 1.0.0
status: active
schema:
  - name: purchases
    properties:
      - {name: message_id, logicalType: string, required: true}
      - {name: total, logicalType: number, required: true}
      - name: tax
        logicalType: number
        quality:
          - {type: custom, engine: cel, id: tax_not_negative, implementation: value >= 0.0}
      - name: lines
        logicalType: array
        items:
          logicalType: object
          properties:
            - name: price
              logicalType: number
              quality:
                - {type: custom, engine: cel, id: price_within_total, implementation: value <= record.total}
    quality:
      - type: custom
        engine: cel
        id: tax_in_total
        description: Tax is part of the total.
        implementation: "record.total >= record.tax"
"""
TAX = ("CONTRACT_RULE", "$", "It breaks the rule `tax_in_total`: Tax is part of the total.")


@pytest.fixture(scope="module")
def shops(make_tenant: Callable[[str], Tenant]) -> dict[str, Tenant]:
    """Workspaces by name of an example: several of them are called the same."""
    return {path.name: make_tenant("odcs") for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_official_example_is_kept_byte_for_byte(path: Path, shops: dict[str, Tenant]) -> None:
    shop, text = shops[path.name], path.read_bytes()
    kept = ok(shop.http.post("/v1/contracts", content=text, headers=YAML))
    again = ok(shop.http.get(f"/v1/contracts/{kept['contract_id']}/versions/{kept['version']}"))
    assert again["document"].encode() == text
    assert again["state"] == "DRAFT"
    checked = ok(shop.http.post("/v1/contracts:check", content=text, headers=YAML))
    lines = text.decode().splitlines()
    assert all(0 < each["line"] <= len(lines) for each in checked["findings"])
    if checked["findings"]:
        version = f"/v1/contracts/{kept['contract_id']}/versions/{kept['version']}"
        problem(shop.http.post(f"{version}:activate", json={}), status=400, reason="CONTRACT_INVALID")


def test_a_contract_in_json_is_kept_byte_for_byte(tenant: Tenant) -> None:
    text = json.dumps(yaml.safe_load(PURCHASES) | {"id": "in-json", "schema": []}, indent="\t") + "\n"
    kept = ok(tenant.http.post("/v1/contracts", content=text, headers=YAML))
    assert ok(tenant.http.get(f"/v1/contracts/in-json/versions/{kept['version']}"))["document"] == text


def test_a_fault_is_told_with_its_line_and_its_key(tenant: Tenant) -> None:
    text = PURCHASES.replace("logicalType: array", "logicalType: list")
    (found,) = ok(tenant.http.post("/v1/contracts:check", content=text, headers=YAML))["findings"]
    assert (found["reason"], found["path"]) == ("ODCS_ENUM", "$.schema[0].properties[3].logicalType")
    assert text.splitlines()[found["line"] - 1].strip() == "logicalType: list"
    refused = problem(tenant.http.post("/v1/contracts", content=text, headers=YAML), status=400)
    assert refused["errors"][0]["detail"].startswith(f"Line {found['line']}: ")
    text = PURCHASES.replace("record.total >= record.tax", "record.total >= record")
    (found,) = ok(tenant.http.post("/v1/contracts:check", content=text, headers=YAML))["findings"]
    assert (found["reason"], found["path"]) == ("RULE_INVALID", "$.schema[0].quality[0].implementation")


def hostile() -> dict[str, tuple[str, str]]:
    """Return texts that want to take for ever, with the reason for which each is refused."""
    bomb = "a: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"b{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    grown = "[record.total].all(x, [x + x + x + x].all(y, [y + y + y].all(z, z > y)))"
    pattern = "logicalType: string, logicalTypeOptions: {pattern: '('}"
    return {
        "aliases": (bomb, "DOCUMENT_TOO_LARGE"),
        "depth": ("[" * 10_000, "DOCUMENT_TOO_DEEP"),
        "depth in JSON": ('{"a":' * 10_000 + "1" + "}" * 10_000, "DOCUMENT_TOO_DEEP"),
        "no YAML": ("a: [1", "DOCUMENT_SYNTAX"),
        "tags": ("a: !!python/object/apply:os.system ['true']", "DOCUMENT_TAG"),
        "growth": (ruled(grown), "RULE_INVALID"),
        "length": (ruled("record.total" + " + 1.0" * 900 + " > 0.0"), "RULE_INVALID"),
        "pattern": (PURCHASES.replace("logicalType: number, required: true", pattern), "PATTERN_INVALID"),
    }


def ruled(expression: str) -> str:
    """Return the contract with another rule."""
    return PURCHASES.replace("record.total >= record.tax", expression)


@pytest.mark.parametrize("what", hostile())
def test_a_hostile_document_is_refused_with_a_reason(what: str, tenant: Tenant) -> None:
    text, reason = hostile()[what]
    found = ok(tenant.http.post("/v1/contracts:check", content=text, headers=YAML, timeout=20))["findings"]
    assert reason in {each["reason"] for each in found}


def test_a_document_of_five_megabytes_is_refused(tenant: Tenant) -> None:
    text = PURCHASES + "# " + "x" * (5 << 20)
    assert tenant.http.post("/v1/contracts:check", content=text, headers=YAML).status_code in (400, 413)


@pytest.fixture(scope="module")
def buyer(make_tenant: Callable[[str], Tenant]) -> Tenant:
    """A workspace whose purchases have rules."""
    made = make_tenant("buyer")
    made.activate(PURCHASES)
    return made


def reasons(verdict: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each["reason"], each["path"], each["detail"]) for each in verdict["findings"]]


def test_what_breaks_a_rule_goes_to_quarantine_with_the_rule(buyer: Tenant) -> None:
    good, taxed, dear, unsaid = buyer.append(
        "purchases",
        [
            {"message_id": "good", "total": 10, "tax": 1, "lines": [{"price": 10}, {"price": 0.5}]},
            {"message_id": "taxed", "total": 1, "tax": 2},
            {"message_id": "dear", "total": 1, "tax": 0, "lines": [{"price": 1}, {"price": 7}]},
            {"message_id": "unsaid", "total": 1},
        ],
    )
    assert (good["outcome"], reasons(good)) == ("ACCEPTED", [])
    assert (taxed["outcome"], reasons(taxed)) == ("QUARANTINED", [TAX])
    assert reasons(dear) == [("CONTRACT_RULE", "$.lines[*].price", "It breaks the rule `price_within_total`.")]
    assert [reason for reason, *_ in reasons(unsaid)] == ["CONTRACT_RULE_ERROR"]
    kept = ok(buyer.http.get(f"/v1/quarantine/{taxed['quarantine_id']}"))
    assert [(each["reason"], each["path"], each["detail"]) for each in kept["findings"]] == [TAX]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_imported_row_is_held_against_the_same_rules(form: str, buyer: Tenant) -> None:
    rows = [{"message_id": f"{form}-{number}", "total": 3.0, "tax": float(number)} for number in range(6)]
    lines = "message_id,total,tax\n" + "".join(f"{row['message_id']},{row['total']},{row['tax']}\n" for row in rows)
    text = lines if form == "csv" else "".join(json.dumps(row) + "\n" for row in rows)
    done = buyer.upload("purchases", text.encode(), form=form)
    assert (done["state"], done["rows_accepted"], done["rows_quarantined"]) == ("SUCCEEDED", 4, 2), done


def test_a_contract_is_tried_on_the_records_that_came_in_before_it_is_in_force(buyer: Tenant) -> None:
    buyer.append("purchases", [{"message_id": f"try-{number}", "total": number, "tax": 0} for number in range(20)])
    text = PURCHASES.replace("version: 1.0.0", "version: 2.0.0").replace(
        "record.total >= record.tax", "record.total < 15.0"
    )
    asked = ok(buyer.http.post("/v1/checks", json={"trial": {"document": text}, "records": 20}))

    def finished() -> dict[str, Any] | None:
        found = ok(buyer.http.get(f"/v1/checks/{asked['check_id']}"))
        return found if found["state"] != "PENDING" else None

    (trial,) = until(finished, seconds=60, what="the check was not run")["trials"]
    assert (trial["tried"], trial["failed"]) == (20, 5)
    (fault,) = trial["faults"]
    assert (fault["reason"], fault["records"]) == ("CONTRACT_RULE", 5)
    newest = ok(buyer.http.get("/v1/datasets/purchases/records", params={"from_offset": fault["offset"]}))["records"][0]
    assert newest["data"]["total"] == 19


def test_a_contract_is_drafted_from_what_no_mapping_named(make_tenant: Callable[[str], Tenant]) -> None:
    wild = make_tenant("wild")
    source = ok(
        wild.http.post(
            "/v1/sources",
            json={"display_name": "Shop", "mappings": [{"type": "identify", "event": "", "dataset": "events"}]},
        )
    )
    events = [
        {
            "type": "track",
            "event": "Coupon Used",
            "messageId": f"c{number}",
            "userId": f"user-{number % 40}",
            "properties": {
                "code": ("SPRING", "AUTUMN")[number % 2],
                "saved": number % 9 + 0.5,
                "email": f"u{number}@example.com",
            },
        }
        for number in range(120)
    ]
    assert wild.send_events(source["write_key"], events).status_code == 200
    asked = ok(wild.http.post("/v1/checks", json={"profile": {"dataset": "unplanned", "event": "Coupon Used"}}))

    def finished() -> dict[str, Any] | None:
        found = ok(wild.http.get(f"/v1/checks/{asked['check_id']}"))
        return found if found["state"] != "PENDING" else None

    profiled = until(finished, seconds=60, what="the check was not run")["profiled"]
    assert profiled["records"] == 120
    named = {"check_id": asked["check_id"], "contract_id": "coupons", "owner": "growth"}
    drafted = ok(wild.http.post("/v1/contracts:draft", json=named))
    assert "@example.com" not in json.dumps(profiled) + json.dumps(drafted)
    assert any("$.properties.email" in question for question in drafted["open_questions"])
    text = yaml.safe_load(drafted["document"])
    (dataset,) = text["schema"]
    properties = next(each for each in dataset["properties"] if each["name"] == "properties")["properties"]
    code = next(each for each in properties if each["name"] == "code")
    assert (dataset["name"], [each["value"] for each in code["enum"]]) == ("coupon_used", ["AUTUMN", "SPRING"])
    assert wild.activate(drafted["document"])["state"] == "ACTIVE"
