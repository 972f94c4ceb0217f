"""Overview, customers and campaigns, as somebody meets them in a browser: their numbers are the API's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.browser import Console
from tests.console.store import HOSTILE, Store

PAGES = {
    "/console/": "Overview",
    "/console/sources": "Sources",
    "/console/sources/imports": "Imports",
    "/console/sources/datasets": "Datasets",
    "/console/sources/datasets/sales": "Dataset",
    "/console/sources/datasets/mailings": "Dataset",
    "/console/sources/quarantine": "Quarantine",
    "/console/sources/contracts": "Contracts",
    "/console/sources/contracts/store": "Contract",
    "/console/sources/contracts/store-mailings?version=1.0.0": "Contract",
    "/console/sources/contracts/store/compare": "Two versions",
    "/console/sources/drafts": "Drafts",
    "/console/sources/drafts/edit": "Draft",
    "/console/sources/lineage": "Lineage",
    "/console/sources/lineage?kind=JOB": "Lineage",
    "/console/customers": "Customers",
    "/console/customers?several=true": "Customers",
    "/console/campaigns": "Campaigns",
    "/console/trust": "Receipts",
    "/console/trust/receipts?producer=models": "Receipts",
    "/console/trust/incidents": "Incidents",
    "/console/trust/incidents?state=OPEN": "Incidents",
    "/console/trust/changes": "Changes",
    "/console/trust/changes?state=": "Changes",
    "/console/trust/policies": "Policies",
    "/console/trust/retention": "Retention",
    "/console/trust/audit": "Audit",
    "/console/nothing/of/the/kind": "Nothing is here",
}


def rows(table: Locator) -> list[list[str]]:
    """Return the text of a table's cells."""
    return [
        [cell.strip() for cell in row.locator("th, td").all_inner_texts()] for row in table.locator("tbody tr").all()
    ]


def table(page: Page, caption: str) -> Locator:
    """Return the table with this caption, once it is there."""
    found = page.get_by_role("region", name=caption, exact=True).first
    found.wait_for()
    return found


def test_a_sign_in_link_opens_the_console_once(sign_in: Callable[..., Console], store: Store):
    console, other = sign_in(store.tenant.key), sign_in(store.tenant.key)
    url = console.link()
    console.page.goto(url)
    expect(console.settle().locator("h1")).to_have_text("Overview")
    assert console.page.url == f"{console.url}/console/", "the code does not stay in the address"
    answer = other.page.goto(url)
    assert answer is not None
    assert answer.status == 410
    expect(other.page.locator("body")).to_contain_text("counterfoil console")
    for each in (console, other):
        each.page.context.close()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_shows_without_a_complaint_of_the_browser(console: Console, path: str):
    page = console.load(path)
    expect(page.locator("h1")).to_have_text(PAGES[path])
    assert page.title() == f"{PAGES[path]} · Counterfoil"
    assert page.locator(".problem").all_inner_texts() == []


@pytest.mark.parametrize(("width", "scheme"), [(900, "light"), (1280, "dark")])
def test_no_page_is_wider_than_its_window(console: Console, width: int, scheme: str):
    console.page.emulate_media(color_scheme=scheme)
    console.page.set_viewport_size({"width": width, "height": 900})
    for path in ("/console/", "/console/campaigns"):
        page = console.load(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    console.page.set_viewport_size({"width": 1280, "height": 900})
    console.page.emulate_media(color_scheme="light")


def test_the_overview_counts_what_came_in(console: Console, store: Store):
    page = console.open("/console/")
    datasets = {each["dataset"]: each for each in store.get("/v1/datasets")["datasets"]}
    total = sum(each["records"] for each in datasets.values())
    expect(page.locator("#figure-records .figure-value")).to_have_text(f"{total:,}")
    expect(page.locator("#figure-quarantined .figure-value")).to_have_text("1")
    shown = {row[0].split()[0]: row for row in rows(table(page, "Datasets"))}
    assert shown.keys() == datasets.keys()
    for name, each in datasets.items():
        assert shown[name][2:4] == [f"{each['records']:,}", f"{each['quarantined']:,}"], name
    assert "synthetic" in shown["mailings"][0]
    assert "synthetic" not in shown["sales"][0]
    assert HOSTILE in shown["sales"][1]
    graph = store.get("/v1/graph")
    expect(page.locator("#figure-persons .figure-value")).to_have_text(f"{graph['persons']:,}")


def test_records_are_counted_as_they_arrive_and_not_while_nobody_looks(console: Console, store: Store):
    page = console.open("/console/")
    live = page.locator("#figure-live")
    expect(live.locator("[aria-label='Live tail: on']")).to_be_visible()
    store.tenant.append("mailings", [_mailing("live-1"), _mailing("live-2")])
    expect(live.locator(".figure-value")).to_have_text("2")
    expect(live).to_contain_text("mailings just now")
    hide = "hidden => {Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))}"
    page.evaluate(hide, True)
    expect(live).to_contain_text("paused")
    store.tenant.append("mailings", [_mailing("live-3")])
    page.evaluate(hide, False)
    expect(live.locator("[aria-label='Live tail: on']")).to_be_visible()
    store.tenant.append("mailings", [_mailing("live-4")])
    expect(live.locator(".figure-value")).to_have_text("3")
    console.check()


def _mailing(record_id: str) -> dict[str, str]:
    return {"message_id": record_id, "household_id": "h1", "campaign": "late", "sent_at": "2026-01-01T00:00:00Z"}


def test_the_forecast_is_the_apis_and_its_numbers_open_the_receipt(console: Console, store: Store):
    page = console.open("/console/")
    forecast = store.forecast
    [first, *_] = sorted(forecast["series"], key=lambda one: -sum(point["mean"] for point in one["points"]))
    page.get_by_text("Show as a table").click()
    shown = rows(table(page, "The forecast's days"))
    assert [[float(cell.replace(",", "")) for cell in row[1:]] for row in shown] == [
        [pytest.approx(point[name], abs=0.0051) for name in ("mean", "lower", "upper")] for point in first["points"]
    ]
    assert page.locator(".chart").get_attribute("aria-label")
    page.locator(".forecast-sum .receipted").first.click()
    console.settle()
    expect(page).to_have_url(f"{console.url}/console/trust/receipts/{forecast['receipt_id']}")
    expect(page.locator("h1")).to_be_focused()
    page.go_back()
    expect(console.settle().locator("h1")).to_have_text("Overview")


def test_attribution_shows_every_model_beside_unknown_cost(console: Console, store: Store):
    page = console.open("/console/campaigns")
    attribution = store.get(f"/v1/attribution/{store.attribution['attribution_id']}")
    shown = {row[0]: row for row in rows(table(page, "Credit by model"))}
    assert len(shown) == len(attribution["rows"])
    for row in attribution["rows"]:
        cells = next(cells for name, cells in shown.items() if (row["name"] or row["subject"]) in name)
        assert cells[1] == f"{row['touchpoints']:,}"
        assert cells[2:8] == [f"{credit['conversions']:,.1f}" for credit in row["credits"]]
        assert cells[8] == "not known", "which is not zero"
    expect(page.locator("#attribution")).to_contain_text(attribution["caveat"])
    expect(page.locator("#attribution .badge-synthetic")).to_be_visible()
    page.get_by_role("button", name="Value", exact=True).click()
    expect(table(page, "Credit by model")).to_contain_text("$")
    [row, *_] = rows(table(page, "Credit by model"))
    assert all(cell.startswith("$") for cell in row[2:8]), row


def test_naive_and_adjusted_lift_stand_side_by_side_with_their_intervals(console: Console, store: Store):
    page = console.open("/console/campaigns")
    lift = store.get(f"/v1/lift/{store.lift['lift_id']}")
    shown = rows(table(page, "Estimates by method"))
    methods = ("naive", "adjusted", "matched")
    estimates = [
        next(one for one in lift["estimates"] if (one["measure"], one["method"]) == (measure, method))
        for measure in ("value", "count")
        for method in methods
    ]
    assert [row[1].lower() for row in shown] == [one["method"] for one in estimates]
    for row, one in zip(shown, estimates, strict=True):
        figures = [_figure(one[name], one["measure"]) for name in ("difference", "lower", "upper")]
        assert row[4] == figures[0]
        assert row[5] == f"{figures[1]} to {figures[2]}"
    card = page.locator(f"#lift-{lift['lift_id']}")
    expect(card).to_contain_text(HOSTILE)
    expect(card.locator(".badge-synthetic")).to_be_visible()
    assert card.locator(".chart").count() == 2
    card.scroll_into_view_if_needed()
    place = card.locator(".chart .point").first.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    expect(card.locator(".hoverlayer text").first).to_contain_text("Naive: $")
    console.check()
    for note in lift["completeness"]["notes"]:
        expect(card).to_contain_text(note["detail"])
    card.get_by_text("How alike the groups were").click()
    assert len(rows(table(page, "Balance of the groups"))) == len(lift["balance"])
    readings = page.locator(".reading.naive .big, .reading.adjusted .big").all_inner_texts()
    counted = {one["method"]: one for one in estimates if one["measure"] == "count"}
    assert [text.strip() for text in readings] == [_signed(counted[name]["incremental"]) for name in methods[:2]]


def _figure(value: float, measure: str) -> str:
    """Write a number as a person would, dollars for values."""
    digits = 2 if abs(value) < 100 else 1
    text = f"{abs(value):,.2f}" if measure == "value" else f"{abs(value):,.{digits}f}"
    return ("-" if value < 0 else "") + ("$" if measure == "value" else "") + text


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if value > 0 else f"{value:,.0f}"


def test_a_person_is_found_by_an_identifier_and_says_why_it_is_one(console: Console, store: Store):
    page = console.open("/console/customers")
    page.get_by_label("Value").fill("nobody at all")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("Nobody has the user_id nobody at all.")).to_be_visible()
    assert console.complaints, "a browser says aloud that it got a 404"
    console.complaints.clear()
    page.get_by_label("Value").fill(HOSTILE)
    page.get_by_role("button", name="Find").click()
    page.wait_for_url(f"{console.url}/console/customers/{store.person_id}")
    console.settle()
    explained = store.get(f"/v1/persons/{store.person_id}:explain")
    assert page.locator(".identifiers li").count() == len(explained["person"]["identifiers"])
    holds = [one for one in explained["evidence"] if one["accepted"]]
    refused = [one for one in explained["evidence"] if not one["accepted"]]
    assert holds
    assert refused
    assert page.locator(".pair:not(.refused)").count() == len(holds)
    assert page.locator(".pair.refused").count() == len(refused)
    for one in refused:
        expect(page.locator(".pair.refused", has_text=one["refused_because"]).first).to_be_visible()
    events = store.get(f"/v1/persons/{store.person_id}/journey")["events"]
    assert page.locator(".event").count() == len(events)
    assert page.locator(".event.conversion").count() == sum(event["kind"] == "CONVERSION" for event in events)
    expect(page.locator(".event.conversion .amount").first).to_have_text("$12.50")


def test_a_household_leads_to_its_campaign(console: Console, store: Store):
    person = store.post("/v1/persons:lookup", {"type": "household_id", "value": "h1"})
    page = console.open(f"/console/customers/{person['person_id']}")
    expect(table(page, "Neighbours")).to_contain_text(HOSTILE)
    expect(table(page, "Neighbours")).to_contain_text("assigned to")


def test_names_that_are_markup_stay_text(console: Console, store: Store):
    paths = [
        "/console/",
        "/console/customers?several=true",
        f"/console/customers/{store.person_id}",
        "/console/campaigns",
    ]
    paths += [f"/console/trust/receipts/{store.lift['receipt_id']}", "/console/trust/changes", "/console/trust/audit"]
    for path in paths:
        page = console.open(path)
        assert page.locator("img[src=x]").count() == 0, path
        assert "taken" not in page.title(), path
    assert HOSTILE in console.open(paths[0]).locator("main").inner_text()


def test_an_unknown_person_and_a_missing_scope_say_what_to_do(
    console: Console, sign_in: Callable[..., Console], store: Store
):
    page = console.page
    page.goto(f"{console.url}/console/customers/per_nobody")
    expect(page.get_by_text("There is no such person.")).to_be_visible()
    console.complaints.clear()
    key = store.post("/v1/keys", {"principal_id": "admin", "display_name": "few", "scopes": ["ingest.read"]})["api_key"]
    few = sign_in(key).sign_in()
    few.page.wait_for_selector("#figure-records")
    few.page.goto(f"{few.url}/console/trust/receipts")
    box = few.page.locator(".problem")
    expect(box).to_contain_text("SCOPE_MISSING")
    assert len(box.locator(".trace").inner_text()) == 32
    few.page.context.close()


def test_who_is_signed_out_is_told_how_to_come_back(sign_in: Callable[..., Console], store: Store):
    console = sign_in(store.tenant.key)
    console.page.goto(f"{console.url}/console/campaigns")
    expect(console.page.locator("h1")).to_have_text("Sign in to Counterfoil")
    expect(console.page.locator(".command")).to_have_text("counterfoil console")
    console.complaints.clear()
    console.sign_in().settle()
    console.page.get_by_role("button", name="Sign out").click()
    expect(console.page.locator("h1")).to_have_text("You are signed out")
    console.complaints.clear()
    console.page.goto(f"{console.url}/console/")
    expect(console.page.locator(".command")).to_have_text("counterfoil console")
    console.page.context.close()
