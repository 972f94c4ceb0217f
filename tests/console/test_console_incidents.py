"""A promise that is broken, as somebody meets it in a browser: noticed, held, looked after, repaired, released."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.console.browser import Console
from tests.console.shop import Shop
from tests.console.store import HOSTILE
from tests.console.test_console_pages import rows, table
from tests.system.installation import until

ENOUGH = 20
PROMISE = f"""
apiVersion: v3.1.0
kind: DataContract
id: ad-spend
name: Ad spend
version: 1.0.0
status: active
team: {{name: media-team}}
schema:
  - name: ad_spend
    logicalType: object
    properties:
      - {{name: spent_at, logicalType: timestamp, required: true}}
      - name: spend
        logicalType: number
        quality: [{{id: no_gaps, metric: nullValues, mustBe: 0}}]
      - {{name: message_id, logicalType: string}}
    quality:
      - id: enough
        metric: rowCount
        mustBeGreaterOrEqualTo: {ENOUGH}
        severity: error
        customProperties: [{{property: dataBreaker, value: true}}]
"""
MONITOR = "ad_spend.enough"


def _send(shop: Shop, numbers: range) -> None:
    records = [{"message_id": f"a{n}", "spent_at": "2026-11-01T10:00:00Z", "spend": n} for n in numbers]
    assert all(one["outcome"] == "ACCEPTED" for one in shop.tenant.append("ad_spend", records))


def _incident(shop: Shop, **wanted: Any) -> dict[str, Any]:
    """Return the newest incident of the monitor, once it has these values."""

    def told() -> dict[str, Any] | None:
        found = [one for one in shop.get("/v1/incidents")["incidents"] if one["resource"] == f"monitors/{MONITOR}"]
        return found[0] if found and all(found[0].get(name) == value for name, value in wanted.items()) else None

    return until(told, seconds=60, what=f"no incident has {wanted}")


def test_a_broken_promise_is_told_from_its_breach_to_its_release(
    shop_console: Console, sign_in: Callable[..., Console], shop: Shop
):
    shop.tenant.activate(PROMISE)
    _send(shop, range(5))
    assert shop.post(f"/v1/monitors/{MONITOR}:evaluate", {})["state"] == "FAILING"
    incident = _incident(shop, state="OPEN")

    page = shop_console.open("/console/")
    expect(page.locator(".notice")).to_contain_text("ad_spend")
    page.locator(".notice a").click()
    shop_console.settle()
    expect(page).to_have_url(f"{shop_console.url}/console/trust/incidents/{incident['incident_id']}")
    told = page.locator(".story li .strong")
    assert told.all_inner_texts() == ["Noticed", "Held"]
    expect(page.locator("main")).to_contain_text("media-team")
    expect(page.locator(".story")).to_contain_text(incident["detail"])

    page.get_by_label("Note").fill(f"asked them {HOSTILE}")
    page.get_by_role("button", name="I look after it").click()
    expect(told).to_have_text(["Noticed", "Held", "Looked after by admin"])
    expect(page.locator(".story")).to_contain_text(HOSTILE)
    shop_console.settle()

    page.get_by_label("Reason").fill("the export came")
    page.get_by_role("button", name="Resume and resolve").click()
    expect(page.locator(".problem")).to_be_visible()
    assert shop_console.complaints, "a browser says aloud that it was refused while the promise is not kept"
    shop_console.complaints.clear()

    _send(shop, range(5, ENOUGH))
    page.get_by_role("button", name="Look at it now").click()
    expect(told).to_have_text(["Noticed", "Held", "Looked after by admin", "Kept again"])
    shop_console.settle()
    page.get_by_label("Reason").fill("the export came")
    page.get_by_role("button", name="Resume and resolve").click()
    expect(told.last).to_have_text("Released, by admin")
    expect(page.locator("[data-state]")).to_have_attribute("data-state", "RESOLVED")
    shop_console.settle()

    def released() -> bool | None:
        return None if shop.get("/v1/monitors", held_only=True)["monitors"] else True

    until(released, seconds=60, what="the dataset is still held")
    page = shop_console.open("/console/")
    assert page.locator(".notice").count() == 0
    page = shop_console.open("/console/trust/incidents?state=RESOLVED")
    [row] = rows(table(page, "Incidents"))
    assert row[1:4] == ["ad_spend", "over", "media-team"]
    assert page.locator("img[src=x]").count() == 0


def test_a_contracts_page_shows_what_it_promises_and_whether_it_is_kept(shop_console: Console, shop: Shop):
    page = shop_console.open("/console/sources/contracts/ad-spend")
    watched = shop.get("/v1/monitors", dataset="ad_spend")["monitors"]
    monitors = [one for one in watched if one["origin"] == "CONTRACT"]
    assert len(monitors) < len(watched), "the dataset has others by itself"
    shown = rows(table(page, "Monitors"))
    assert [row[0].split("\n")[-1] for row in shown] == [one["monitor_id"] for one in monitors]
    assert [row[1] for row in shown] == [one["expectation"] for one in monitors]
    [enough] = [row for row in shown if MONITOR in row[0]]
    assert enough[2] == f"{ENOUGH} rows"
    assert enough[3].startswith("kept")
    page.locator("tr", has_text=MONITOR).get_by_text("Last results").first.click()
    expect(page.locator("tr", has_text=MONITOR).locator(".sparkline")).to_be_visible()
    results = shop.get(f"/v1/monitors/{MONITOR}")["results"]
    assert page.locator(".sparkline circle").count() == len(results)


def test_an_unknown_incident_says_where_to_go(shop_console: Console, shop: Shop):
    page = shop_console.page
    page.goto(f"{shop_console.url}/console/trust/incidents/nobody")
    expect(page.get_by_text("There is no such incident.")).to_be_visible()
    shop_console.complaints.clear()
