"""A person is erased from a whole installation: nothing holds them any more, and old receipts say what has happened."""

import subprocess
from typing import Any

import orjson
import pytest

from tests.byte_scan import holding
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
    until(lambda: read(tenant, last), seconds=30, what="the graph is behind")
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


def test_nothing_in_the_data_folder_holds_an_erased_person(shop: Tenant):
    folder = shop.installation.data
    receipt = ok(shop.http.post("/v1/attribution", json=ATTRIBUTION))["receipt_id"]
    replay = f"/v1/receipts/{receipt}:replay"
    assert ok(shop.http.post(replay, json={}))["outcome"] == "MATCH"
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
    assert erased == {"persons": 1, "identifiers": 3, "records": 2, "quarantined_records": 1}
    if not shop.installation.server:
        assert holding(folder, "grace.hopper@example.com", "grace-hopper-1906", "device-of-grace") == []
    until(lambda: read(shop, 0), seconds=60, what="the graph reads the log again")
    gone = problem(shop.http.get(f"/v1/persons/{grace['person_id']}"), status=404, reason="PERSON_ERASED")
    assert "grace" not in str(gone).lower()
    assert everybody(shop) == {number: one for number, one in people.items() if number != grace["person_id"]}
    assert int(shop.datasets()["visits"]["records"]) == records - 2
    assert shop.sql("SELECT count(*) FROM visits") == [[records - 2]]
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
