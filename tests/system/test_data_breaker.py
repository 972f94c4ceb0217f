"""A broken service level, from the breach to the next forecast: incident, held outputs, repair, release."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import yaml

from tests.system.installation import Installation, until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, problem, sales_csv

PERIOD = 2.0
"""How often monitors are evaluated here, in seconds."""

BUSY = 60.0
"""What a busy machine may take for what takes a second."""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def prompt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose monitors are evaluated every other second."""
    settings = {"COUNTERFOIL_INGEST_MONITOR_SECONDS": str(PERIOD)}
    if request.param == "postgresql":
        settings["COUNTERFOIL_DATABASE_URL"] = request.getfixturevalue("postgres").installation()
    with Installation.running(tmp_path_factory.mktemp("breaker") / "data", settings=settings) as started:
        yield started
        assert started.stop() == 0, started.output.read_text(errors="replace")


@pytest.fixture(scope="module")
def shop(prompt: Installation) -> Iterator[Tenant]:
    """A workspace whose model `shops` serves on sales that end in May 2025; nothing is promised of them yet."""
    with prompt.http(prompt.admin_key) as admin:
        tenant = Tenant.create(prompt, admin, workspace="breaker")
    tenant.activate(promising(version="1.0.0"))
    assert tenant.upload("sales", sales_csv(150), form="csv")["state"] == "SUCCEEDED"
    ok(tenant.http.post("/v1/models", json={"model_id": "shops", **SALES_MODEL}))
    tenant.train("shops")
    yield tenant
    tenant.http.close()


def promising(*levels: dict[str, Any], version: str) -> str:
    """Return the contract of the sales with service levels, and who is responsible."""
    document = yaml.safe_load(DAY_SALES.format(version=version))
    return yaml.safe_dump({**document, "team": {"name": "Store data"}, "slaProperties": list(levels)})


def latency(**custom: Any) -> dict[str, Any]:
    return {
        "property": "latency",
        "value": 1,
        "unit": "d",
        "element": "sales.sold_at",
        "description": "Yesterday's sales are there.",
        "customProperties": [{"property": name, "value": value} for name, value in custom.items()],
    }


def ask(shop: Tenant, **question: Any) -> httpx.Response:
    headers = {"Request-Timeout": "60"}
    return shop.http.post("/v1/forecasts", json={"model_id": "shops", **question}, headers=headers)


def incidents(shop: Tenant, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok(shop.http.get("/v1/incidents", params={"state": state}))["incidents"]
    return found


def one(shop: Tenant, state: str) -> dict[str, Any]:
    """Return the one incident in a state, once there is one."""
    found = until(lambda: incidents(shop, state) or None, seconds=BUSY, what=f"no incident is {state}")
    assert len(found) == 1, found
    return found[0]


def refused(shop: Tenant) -> dict[str, Any]:
    """Return the problem of a forecast that is refused, once it is."""

    def held() -> dict[str, Any] | None:
        answer = ask(shop)
        return None if answer.status_code == 200 else problem(answer, status=400, reason="DATA_HELD")

    return until(held, seconds=BUSY, what="forecasts are still made")


def sell_today(shop: Tenant) -> None:
    now = datetime.now(UTC).isoformat()
    verdicts = shop.append("sales", [{"sold_at": now, "shop": "north", "amount": 12.5}])
    assert [each["outcome"] for each in verdicts] == ["ACCEPTED"]


def audited(shop: Tenant) -> list[tuple[str, str]]:
    entries = ok(shop.http.get("/v1/audit/entries", params={"page_size": 1000}))["entries"]
    return [
        (each["principal"], each["action"]) for each in entries if each["action"].startswith(("incident.", "dataset."))
    ]


def test_a_breach_opens_an_incident_holds_outputs_and_releases_them_after_repair(shop: Tenant) -> None:
    last_good = ok(ask(shop))
    begun = datetime.now(UTC)
    shop.activate(promising(latency(dataBreaker=True), version="1.1.0"))

    opened = one(shop, "OPEN")
    took = datetime.fromisoformat(opened["opened_at"]) - begun
    assert took < timedelta(seconds=PERIOD + BUSY / 2)
    assert (opened["owner"], opened["dataset"], opened["holds_data"]) == ("Store data", "sales", True)
    assert (opened["summary"], opened["contract_version"]) == ("Yesterday's sales are there.", "1.1.0")

    told = refused(shop)
    assert told["metadata"]["incident_id"] == opened["incident_id"]
    assert opened["incident_id"] in told["detail"]
    assert ok(shop.http.get(f"/v1/forecasts/{last_good['forecast_id']}")) == last_good
    replayed = ok(shop.http.post(f"/v1/receipts/{last_good['receipt_id']}:replay", json={}))
    assert replayed["outcome"] == "MATCH"

    acknowledged = ok(
        shop.http.post(f"/v1/incidents/{opened['incident_id']}:acknowledge", json={"note": "The till export hangs."})
    )
    assert acknowledged["state"] == "ACKNOWLEDGED"
    early = shop.http.post(f"/v1/incidents/{opened['incident_id']}:resolve", json={"reason": "Surely fine."})
    problem(early, status=400, reason="BREACH_LASTS")

    sell_today(shop)
    until(
        lambda: ok(shop.http.get(f"/v1/incidents/{opened['incident_id']}")).get("recovered_at"),
        seconds=BUSY,
        what="nobody noticed the repair",
    )
    monitor = ok(shop.http.get("/v1/monitors/sales.latency"))
    assert (monitor["state"], monitor["held"]) == ("PASSING", True)
    until(  # models hear of it a moment after ingest has seen it
        lambda: True if "passes again" in refused(shop)["detail"] else None,
        seconds=BUSY,
        what="who is refused is not told that it passes again",
    )
    states = [each["state"] for each in monitor["results"]]
    assert (states[0], states[-1]) == ("PASSING", "FAILING")

    done = ok(shop.http.post(f"/v1/incidents/{opened['incident_id']}:resolve", json={"reason": "The export runs."}))
    assert (done["state"], done["breach_accepted"]) == ("RESOLVED", False)
    fresh = until(
        lambda: answer.json() if (answer := ask(shop)).status_code == 200 else None,
        seconds=BUSY,
        what="forecasts are still held",
    )
    assert fresh["forecast_id"] != last_good["forecast_id"]
    until(
        lambda: True if ("admin", "dataset.resume") in audited(shop) else None,
        seconds=BUSY,
        what="the resumption is not in the audit log",
    )
    assert sorted(audited(shop)) == sorted(
        [
            ("service:ingest", "incident.open"),
            ("service:ingest", "dataset.hold"),
            ("admin", "incident.acknowledge"),
            ("admin", "incident.resolve"),
            ("admin", "dataset.resume"),
        ]
    )


def test_where_the_contract_says_so_the_monitor_resumes_by_itself(shop: Tenant) -> None:
    """Sales promise a thousand rows; a repair ends the incident without anybody."""
    count = shop.sql("SELECT count(*) FROM sales")[0][0]
    document = yaml.safe_load(promising(version="1.2.0"))
    document["schema"][0]["quality"] = [
        {
            "metric": "rowCount",
            "mustBeGreaterThan": count,
            "customProperties": [
                {"property": "dataBreaker", "value": True},
                {"property": "autoResume", "value": True},
            ],
        }
    ]
    shop.activate(yaml.safe_dump(document))
    opened = one(shop, "OPEN")
    assert opened["resource"] == "monitors/sales.rowCount"
    refused(shop)
    sell_today(shop)
    until(lambda: None if incidents(shop, "OPEN") else True, seconds=BUSY, what="the incident is still open")
    ended = ok(shop.http.get(f"/v1/incidents/{opened['incident_id']}"))
    assert (ended["state"], ended["resolved_by"]) == ("RESOLVED", "service:ingest")
    until(lambda: True if ask(shop).status_code == 200 else None, seconds=BUSY, what="forecasts are still held")


def test_an_engineer_puts_up_with_a_breach_receipts_say_so_and_a_new_version_ends_it(shop: Tenant) -> None:
    document = yaml.safe_load(promising(version="1.3.0"))
    rule = {"type": "sql", "query": "SELECT count(*) FROM {object} WHERE amount < 0", "mustBeGreaterThan": 0}
    breaker = {"customProperties": [{"property": "dataBreaker", "value": True}]}
    document["schema"][0]["quality"] = [rule | breaker, {**rule, "name": "unheard", **breaker}]
    shop.activate(yaml.safe_dump(document))
    until(lambda: len(incidents(shop, "OPEN")) == 2 or None, seconds=BUSY, what="not both incidents are open")
    refused(shop)
    with shop.installation.http(engineer(shop)) as client:
        accepted = {"reason": "Refunds come next week.", "accept_breach": True}
        early = client.post("/v1/monitors/sales.sql:resume", json={"reason": "Try."})
        problem(early, status=400, reason="MONITOR_FAILING")
        for name in ("sql", "unheard"):
            resumed = ok(client.post(f"/v1/monitors/sales.{name}:resume", json=accepted))
            assert (resumed["state"], resumed["held"], resumed["incident_id"]) == ("FAILING", False, "")
        problem(client.post("/v1/incidents/x:resolve", json=accepted), status=403, reason="SCOPE_MISSING")
    made = until(
        lambda: answer.json() if (answer := ask(shop, horizon_days=3)).status_code == 200 else None,
        seconds=BUSY,
        what="forecasts are still held",
    )
    receipt = ok(shop.http.get(f"/v1/receipts/{made['receipt_id']}"))
    said = [note["detail"] for note in receipt["completeness"]["notes"] if note["reason"] == "PROMISE_BROKEN"]
    assert len(said) == 2
    assert all("'sales'" in each and "put up with" in each for each in said)
    resolved = incidents(shop, "RESOLVED")[:2]
    assert {(each["resolved_by"], each["breach_accepted"]) for each in resolved} == {("eve", True)}
    assert incidents(shop, "OPEN") == []

    shop.activate(promising(version="1.4.0"))

    until(
        lambda: (
            None if "CONTRACT" in {one["origin"] for one in ok(shop.http.get("/v1/monitors"))["monitors"]} else True
        ),
        seconds=BUSY,
        what="the promises are still watched",
    )

    def without_note() -> bool | None:
        sell_today(shop)  # with new data it is another question
        made = ok(ask(shop))
        return None if "PROMISE_BROKEN" in {note["reason"] for note in made["completeness"]["notes"]} else True

    until(without_note, seconds=BUSY, what="receipts still speak of what is promised no more")
    problem(shop.http.get("/v1/monitors/sales.sql"), status=404, reason="MONITOR_NOT_FOUND")


def engineer(shop: Tenant) -> str:
    """Hire one and return their key."""
    ok(shop.http.post("/v1/principals", json={"principal_id": "eve", "kind": "HUMAN", "roles": ["engineer"]}))
    return str(ok(shop.http.post("/v1/keys", json={"principal_id": "eve"}))["api_key"])
