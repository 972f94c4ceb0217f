"""A person is erased from a whole installation: nothing holds them any more, and old receipts say what has happened."""

import subprocess
from typing import Any

import orjson
import pytest
from counterfoil_chassis.stores import stores

from tests.byte_scan import holding, holding_tables
from tests.cli.running import COMMAND
from tests.system.installation import until
from tests.system.tenant import Tenant, ok, problem
from tests.system.test_trust import ATTRIBUTION
from tests.system.trust_story import MAPPING, VISITS, visits

GRACE = {"c05@example.com": "Grace.Hopper@example.com", '"c05"': '"grace-hopper-1906"', '"d05"': '"device-of-grace"'}


def read(shop: Tenant, offset: int) -> bool | None:
    """Tell whether the graph has read the log up to an offset."""
    answer = shop.http.get("/v1/graph")
    if answer.status_code != 200 or answer.json()["rebuilding"]:
        return None
    return True if answer.json()["state"]["next_offset"] > offset else None


def everybody(shop: Tenant) -> dict[str, Any]:
    """Return every person by id."""
    return {one["person_id"]: one for one in ok(shop.http.get("/v1/persons", params={"page_size": 1000}))["persons"]}


@pytest.fixture(scope="module")
def shop(tenant: Tenant) -> Tenant:
    """A workspace whose graph knows two dozen people, Grace among them, who all let themselves be measured."""
    tenant.activate(VISITS)
    ok(tenant.http.post("/v1/graph/mappings", content=MAPPING.encode(), headers={"content-type": "application/yaml"}))
    text = orjson.dumps(visits()).decode()
    for old, new in GRACE.items():
        text = text.replace(old, new)
    broken = {"message_id": "broken", "customer": "grace-hopper-1906", "email": "grace.hopper@example.com"}
    verdicts = tenant.append("visits", [*orjson.loads(text), broken])
    assert [each["outcome"] for each in verdicts].count("QUARANTINED") == 1
    last = max(int(each["position"]["offset"]) for each in verdicts if each.get("position"))
    until(lambda: read(tenant, last), seconds=60, what="the graph is behind")
    consents = [
        {
            "subject": {"type": "user_id", "value": record["customer"]},
            "purpose": "measurement",
            "state": "GRANTED",
            "basis": "CONSENT",
            "happened_at": "2025-01-01T00:00:00Z",
        }
        for record in orjson.loads(text)
        if "customer" in record
    ]
    ok(tenant.http.post("/v1/consents", json={"consents": consents}))
    return tenant


def leave_traces(shop: Tenant) -> None:
    """Have every part meet Grace: events, a file, a repair, a query, a description of records, the graph, a hold."""
    _, write_key = shop.source()
    traits = {"email": "grace.hopper@example.com", "device": "device-of-grace"}
    event = {"type": "identify", "messageId": "hello", "userId": "grace-hopper-1906", "traits": traits}
    assert shop.send_events(write_key, [event]).status_code == 200
    rows = "message_id,at,customer\nfile-1,2025-02-08T10:00:00Z,grace-hopper-1906\nfile-2,never,grace-hopper-1906\n"
    done = shop.upload("visits", rows.encode(), form="csv", name="visits.csv")
    assert (done["state"], int(done["rows_quarantined"])) == ("SUCCEEDED", 1)
    quarantined = ok(shop.http.get("/v1/quarantine", params={"dataset": "visits"}))["quarantined_records"]
    patch = [{"op": "add", "path": "/at", "value": "2025-02-09T10:00:00Z"}]
    repair = {"quarantine_ids": [each["quarantine_id"] for each in quarantined], "patch": patch}
    assert len(ok(shop.http.post("/v1/quarantine:repair", json=repair))["records"]) == 2
    assert shop.sql("SELECT count(*) FROM visits WHERE customer = ?", "grace-hopper-1906") == [[3]]
    check = ok(shop.http.post("/v1/checks", json={"profile": {"dataset": "visits"}, "records": 500}))

    def described() -> bool | None:
        return True if ok(shop.http.get(f"/v1/checks/{check['check_id']}"))["state"] != "PENDING" else None

    until(described, seconds=60, what="the records are not described")
    head = int(ok(shop.http.post("/v1/snapshots", json={"dataset": "visits"}))["offsets"][0]["offset"])
    until(lambda: read(shop, head - 1), seconds=60, what="the graph is behind")


def test_a_held_person_waits_and_the_request_says_for_what(shop: Tenant):
    """She is held by her device and asks by her address: the hold keeps her for the graph knows that she is one."""
    device = {"type": "anonymous_id", "value": "d11"}
    hold = ok(shop.http.post("/v1/legal-holds", json={"identifiers": [device], "reason": "case 17"}))
    asked = {"kind": "ERASURE", "identifiers": [{"type": "email", "value": "c11@example.com"}]}
    path = f"/v1/privacy-requests/{ok(shop.http.post('/v1/privacy-requests', json=asked))['privacy_request_id']}"

    def held() -> dict[str, Any] | None:
        found = ok(shop.http.get(path))
        return found if found["state"] == "HELD" else None

    assert until(held, seconds=60, what="nobody says that it waits")["legal_hold_ids"] == [hold["legal_hold_id"]]
    assert shop.sql("SELECT count(*) FROM visits WHERE customer = 'c11'") == [[2]]
    ok(shop.http.post(f"/v1/legal-holds/{hold['legal_hold_id']}:release", json={"reason": "closed"}))
    until(lambda: completed(shop, path), seconds=90, what="the person is not erased")
    assert shop.sql("SELECT count(*) FROM visits WHERE customer = 'c11'") == [[0]]


def test_no_file_and_no_table_holds_an_erased_person(shop: Tenant):
    folder = shop.installation.data
    leave_traces(shop)
    receipt = ok(shop.http.post("/v1/attribution", json=ATTRIBUTION))["receipt_id"]
    replay = f"/v1/receipts/{receipt}:replay"
    assert ok(shop.http.post(replay, json={}))["outcome"] == "MATCH"
    before = ok(shop.http.post("/v1/snapshots", json={"dataset": "visits"}))
    people, records = everybody(shop), int(shop.datasets()["visits"]["records"])
    grace = ok(shop.http.post("/v1/persons:lookup", json={"type": "user_id", "value": "grace-hopper-1906"}))
    assert holding(folder, "grace.hopper@example.com", "grace-hopper-1906", "device-of-grace")
    asked = {
        "kind": "ERASURE",
        "identifiers": [{"type": "email", "value": " grace.hopper@EXAMPLE.com"}],
        "reference": "T-1",
    }
    made = ok(shop.http.post("/v1/privacy-requests", json=asked))
    path = f"/v1/privacy-requests/{made['privacy_request_id']}"
    done = until(lambda: completed(shop, path), seconds=60, what="the person is not erased")
    erased = {kind: int(count) for kind, count in done["reports"][0]["erased"].items()}
    assert erased == {"persons": 1, "identifiers": 3, "records": 4, "quarantined_records": 2}
    assert holding(folder, "grace.hopper@example.com", "grace-hopper-1906", "device-of-grace") == []
    if shop.installation.server:
        url = shop.installation.servers[folder]
        databases = [f"{url}_{service}" for service in stores()]
        assert holding_tables(databases, "grace.hopper@example.com", "grace-hopper-1906", "device-of-grace") == []
    until(lambda: read(shop, 0), seconds=60, what="the graph reads the log again")
    gone = problem(shop.http.get(f"/v1/persons/{grace['person_id']}"), status=404, reason="PERSON_ERASED")
    assert "grace" not in str(gone).lower()
    assert everybody(shop) == {number: one for number, one in people.items() if number != grace["person_id"]}
    assert int(shop.datasets()["visits"]["records"]) == records - 3
    assert shop.sql("SELECT count(*) FROM visits") == [[records - 3]]
    revision = ok(shop.http.post("/v1/snapshots", json={"dataset": "visits"}))["erasure_revision"]
    assert int(revision) > int(before["erasure_revision"])
    assert ok(shop.http.post(replay, json={}))["outcome"] == "INPUT_ERASED"
    fresh = ok(shop.http.post("/v1/attribution", json=ATTRIBUTION))["receipt_id"]
    assert fresh != receipt
    assert ok(shop.http.post(f"/v1/receipts/{fresh}:replay", json={}))["outcome"] == "MATCH"
    entries = ok(shop.http.get("/v1/audit/entries", params={"page_size": 1000}))["entries"]
    assert {"privacy_request.create", "privacy_request.complete"} <= {entry["action"] for entry in entries}
    assert ok(shop.http.post("/v1/audit:verify", json={}))["ok"]


def completed(shop: Tenant, path: str) -> dict[str, Any] | None:
    """Return a privacy request once every service has reported."""
    found = ok(shop.http.get(path))
    return found if found["state"] == "COMPLETED" else None


def test_the_command_line_erases_and_lists(shop: Tenant):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        door = ("--url", shop.installation.url, "--key", shop.key)
        return subprocess.run([COMMAND, "privacy", *arguments, *door], capture_output=True, text=True, check=False)

    done = run("erase", "--identifier", "user_id=c07", "--identifier", "email=c07@example.com", "--reference", "T-2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 persons" in done.stdout.replace("\n", " ")
    nobody = run("erase", "--identifier", "email=nobody@example.com")
    assert nobody.returncode == 0
    assert "Nobody was known by that" in nobody.stderr
    assert run("erase", "--identifier", "email").returncode == 2
    listed = run("list").stdout
    assert "T-2" in listed
    assert "completed" in listed
    assert "c07" not in listed
