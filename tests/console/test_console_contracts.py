"""Contracts as somebody meets them in a browser: their versions, who reads, what breaks, and how one is drafted."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser import Console
from tests.console.shop import BREAKING, CONTRACT, DATASET, IN_FORCE, Shop, document
from tests.console.store import HOSTILE, SECOND_PERSON
from tests.console.test_console_pages import rows, table
from tests.system.installation import until

PAGE = f"/console/sources/contracts/{CONTRACT}"
EDITOR = "/console/sources/drafts/edit"
CHECKED = "[data-checked='yes']"


def test_contracts_are_listed_with_what_came_in_under_them(shop_console: Console, shop: Shop):
    page = shop_console.open("/console/sources/contracts")
    contracts = shop.get("/v1/contracts")["contracts"]
    shown = rows(table(page, "Contracts"))
    assert [row[0].split("\n")[-1] for row in shown] == [one["contract_id"] for one in contracts]
    [row] = [row for row in shown if CONTRACT in row[0]]
    counted = shop.tenant.datasets()[DATASET]
    assert HOSTILE in row[0]
    assert row[1:7] == [DATASET, IN_FORCE, BREAKING, "none", f"{counted['records']}", f"{counted['quarantined']}"]


def test_a_contract_says_who_reads_each_field_and_which_nobody_does(shop_console: Console, shop: Shop):
    page = shop_console.open(PAGE)
    fields = shop.get(f"/v1/contracts/{CONTRACT}/fields", page_size=1000)["fields"]
    shown = {row[0]: row[4] for row in rows(table(page, f"Fields of {DATASET}"))}
    assert shown == {
        one["path"].removeprefix("$."): ", ".join(each["name"] for each in one["consumers"]) or "nobody"
        for one in fields
    }
    unread = sum(not one["consumers"] for one in fields)
    assert 0 < unread < len(fields)
    expect(page.locator("main")).to_contain_text(f"{unread} fields of {len(fields)} are read by nobody")
    consumers = shop.get("/v1/consumers", dataset=DATASET)["consumers"]
    assert [row[0] for row in rows(table(page, "Consumers"))] == [one["name"] for one in consumers]


def test_who_reads_is_registered_and_taken_away_again(shop_console: Console, shop: Shop):
    page = shop_console.open(PAGE)
    page.get_by_text("Register another").click()
    for label, text in (
        ("Consumer", "map"),
        ("Owner (a team)", "geo"),
        ("Fields it reads", "shipping.city, $.order_id"),
    ):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("button", name="Remove map")).to_be_visible()
    shop_console.settle()
    consumers = shop.get("/v1/consumers", dataset=DATASET)["consumers"]
    [registered] = [one for one in consumers if one["name"] == "map"]
    assert (registered["owner"], registered["fields"]) == ("geo", ["$.shipping.city", "$.order_id"])
    page.get_by_role("button", name="Remove map").click()
    expect(page.get_by_role("button", name="Remove map")).to_have_count(0)
    shop_console.settle()
    assert "map" not in {one["name"] for one in shop.get("/v1/consumers", dataset=DATASET)["consumers"]}


def test_a_text_is_left_by_keyboard(shop_console: Console, shop: Shop):
    page = shop_console.open(f"{EDITOR}?contract={CONTRACT}&version=1.0.0")
    area = page.get_by_label("The contract's document")
    area.fill("schema:\n")
    page.keyboard.press("Tab")
    assert area.input_value() == "schema:\n  "
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(area).not_to_be_focused()


def test_a_contract_shows_its_versions_and_what_was_done(shop_console: Console, shop: Shop):
    page = shop_console.open(PAGE)
    versions = shop.get(f"/v1/contracts/{CONTRACT}/versions")["versions"]
    shown = rows(table(page, "Versions"))
    assert [(row[0], row[1].upper()) for row in shown] == [(one["version"], one["state"]) for one in reversed(versions)]
    entries = shop.get(f"/v1/contracts/{CONTRACT}/changelog", page_size=10)["entries"]
    assert page.locator(".changelog > li").count() == len(entries)
    page.get_by_role("link", name="1.0.0", exact=True).first.click()
    expect(shop_console.settle().locator("main")).to_contain_text("As version 1.0.0 says.")
    page.get_by_text("Show the document").click()
    expect(page.locator(".document")).to_have_text(document("1.0.0"))


def test_two_versions_stand_side_by_side_with_what_breaks_and_a_record_that_shows_it(shop_console: Console, shop: Shop):
    page = shop_console.open(f"{PAGE}/compare?from={IN_FORCE}&to={BREAKING}")
    [comparison] = shop.check(document(BREAKING))["comparisons"]
    for direction in ("backward", "forward"):
        box = page.locator(f"[data-direction={direction}]")
        expect(box).to_have_attribute("data-verdict", comparison[direction]["verdict"])
        for one in comparison[direction]["breaks"][:5]:
            expect(box).to_contain_text(one["detail"])
    first = page.locator("[data-direction=backward] .breaks > li").first
    witness = page.evaluate("text => JSON.parse(text)", first.locator(".json").inner_text())
    assert witness == comparison["backward"]["breaks"][0]["witness"]
    _shows_both_documents(page, document(IN_FORCE), document(BREAKING))
    page.get_by_role("combobox", name="To").select_option("1.0.0")
    shop_console.settle()
    expect(page).to_have_url(f"{shop_console.url}{PAGE}/compare?from={IN_FORCE}&to=1.0.0")
    _shows_both_documents(page, document(IN_FORCE), document("1.0.0"))


def _shows_both_documents(page: Page, left: str, right: str) -> None:
    """Fail unless each side, with everything unfolded, is its document."""
    for button in page.locator(".beside .folded button").all():
        button.click()
    lines = page.locator(".beside tbody tr").evaluate_all(
        "rows => rows.map(row => [1, 3].map(at => row.cells[at].querySelector('code')?.textContent ?? null))"
    )
    for side, text in ((0, left), (1, right)):
        assert "\n".join(line[side] for line in lines if line[side] is not None) == text


def test_versions_compare_with_any_other_not_only_with_the_one_in_force(shop_console: Console, shop: Shop):
    page = shop_console.open(f"{PAGE}/compare?from=1.0.0&to={BREAKING}")
    box = page.locator("[data-direction=backward]")
    expect(box).to_have_attribute("data-verdict", "PROVEN_BREAKING")
    expect(box).not_to_contain_text("coupon")
    expect(page.locator(".comparison h3")).to_contain_text("version 1.0.0")


def test_what_is_wrong_with_a_document_is_said_by_line_and_a_click_goes_there(shop_console: Console, shop: Shop):
    page = shop_console.open(f"{EDITOR}?contract={CONTRACT}&version={IN_FORCE}")
    page.wait_for_selector(CHECKED)
    area = page.get_by_label("The contract's document")
    assert area.input_value() == document(IN_FORCE)
    broken = document(IN_FORCE).replace("name: coupon, logicalType: string", "name: _coupon, logicalType: string")
    area.fill(broken)
    line = broken.split("\n").index("      - {name: _coupon, logicalType: string}") + 1
    found = page.locator(".findings li")
    expect(found).to_have_count(1)
    [finding] = shop.check(broken)["findings"]
    assert finding["line"] == line
    expect(found).to_contain_text(finding["detail"])
    expect(page.locator(".gutter .marked")).to_have_text(str(line))
    expect(page.get_by_role("button", name="Submit as a draft")).to_be_disabled()
    found.get_by_role("button", name=f"Line {line}").click()
    expect(area).to_be_focused()
    chosen = area.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)")
    assert chosen == broken.split("\n")[line - 1]
    shop_console.check()


def test_what_was_written_is_there_after_leaving_and_coming_back(shop_console: Console, shop: Shop):
    page = shop_console.open(EDITOR)
    area = page.get_by_label("The contract's document")
    begun = area.input_value()
    area.fill(begun.replace("What people call it", HOSTILE))
    shop_console.open("/console/sources/drafts")
    page = shop_console.open(EDITOR)
    area = page.get_by_label("The contract's document")
    assert HOSTILE in area.input_value()
    assert page.locator("img[src=x]").count() == 0
    page.get_by_role("button", name="Begin again").click()
    assert area.input_value() == begun


def test_who_would_be_broken_is_named_and_a_second_person_puts_it_in_force(
    shop_console: Console, sign_in: Callable[..., Console], shop: Shop
):
    page = shop_console.open(f"{PAGE}?version={BREAKING}")
    found = shop.check(document(BREAKING))["comparison"]
    broken = page.locator(".broken > li")
    expect(broken).to_have_count(len(found["consumers"]))
    for one in found["consumers"]:
        expect(broken.filter(has_text=one["name"])).to_contain_text(one["owner"])
    page.get_by_label("Reason").first.fill("channels are needed")
    page.get_by_role("button", name="Propose").click()
    expect(page.locator(".vote-form")).to_be_visible()
    shop_console.settle()
    [version] = [
        one for one in shop.get(f"/v1/contracts/{CONTRACT}/versions")["versions"] if one["version"] == BREAKING
    ]
    assert version["state"] == "PROPOSED"
    expect(page.locator(f"#change-{version['change_id']}")).to_contain_text("channels are needed")
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    second = sign_in(shop.second_key).sign_in()
    theirs = second.open(PAGE)
    theirs.get_by_role("button", name="Approve this payload").click()
    expect(theirs.locator(".votes")).to_contain_text(f"approved by {SECOND_PERSON}")
    second.check()
    second.page.context.close()

    def in_force() -> bool | None:
        return True if shop.get(f"/v1/contracts/{CONTRACT}")["active_version"] == BREAKING else None

    until(in_force, seconds=60, what="the approved version is not in force")
    expect(shop_console.open(PAGE).locator(".contract-head")).to_contain_text(f"{BREAKING} in force")
    page.get_by_role("link", name=IN_FORCE, exact=True).first.click()
    shop_console.settle()
    page.get_by_label("Reason").first.fill("the report is not ready")
    page.get_by_role("button", name="Put in force again").click()
    expect(page.locator(".vote-form")).to_be_visible()
    expect(page.locator(".changelog > li").first).to_contain_text("the report is not ready")
    shop_console.settle()


def test_a_contract_is_drafted_from_unplanned_events_finished_and_proposed(shop_console: Console, shop: Shop):
    page = shop_console.open("/console/sources/drafts")
    seen = {row[0]: row[2] for row in rows(table(page, "Unplanned events"))}
    assert seen == {"Checkout Started": "40", HOSTILE: "1"}
    page.get_by_role("button", name="Describe Checkout Started").click()
    page.wait_for_url("**/drafts/profile?*")
    shop_console.settle()
    fields = {row[0]: row for row in rows(table(page, "Fields that were seen"))}
    assert fields["properties.currency"][4] == "EUR, USD"
    assert fields["properties.coupon"][2] == "25%"
    assert "email" in fields["properties.email"][5]
    assert "example.org" not in page.locator("main").inner_text(), "personal values are told"
    page.get_by_label("Owner").fill("web-team")
    page.get_by_role("button", name="Draft", exact=True).click()
    page.wait_for_url("**/drafts/edit?*")
    shop_console.settle()
    page.wait_for_selector(CHECKED)
    area = page.get_by_label("The contract's document")
    assert "checkout_started" in area.input_value()
    assert "web-team" in area.input_value()
    expect(page.locator(".findings")).to_have_count(0)
    page.get_by_role("button", name="Try it on recent records").click()
    expect(page.locator("[data-failed]")).to_contain_text("checkout_started")
    page.get_by_role("button", name="Submit as a draft").click()
    page.wait_for_url("**/contracts/checkout-started?version=*")
    shop_console.settle()
    page.get_by_label("Reason").first.fill("checkouts are planned for")
    page.get_by_role("button", name="Propose").click()
    expect(page.locator(".contract-head")).to_contain_text("1.0.0 in force")
    shop_console.settle()
    assert shop.get("/v1/contracts/checkout-started")["active_version"] == "1.0.0"


def test_a_key_that_may_not_write_is_told_so(shop_console: Console, sign_in: Callable[..., Console], shop: Shop):
    scopes = [f"{service}.read" for service in ("contracts", "ingest", "governance", "graph", "models")]
    key = shop.post("/v1/keys", {"principal_id": "admin", "display_name": "reader", "scopes": scopes})["api_key"]
    reader = sign_in(key).sign_in()
    page = reader.open(PAGE)
    expect(page.get_by_text("Your key has not the scope contracts.write.")).to_be_visible()
    expect(page.get_by_role("button", name="Announce its end")).to_be_disabled()
    reader.page.context.close()


def test_an_unknown_contract_version_and_draft_say_where_to_go(shop_console: Console, shop: Shop):
    page = shop_console.page
    for path, says in (
        ("/console/sources/contracts/nobody", "There is no such contract."),
        (f"{PAGE}?version=9.9.9", "The contract has no such version."),
        ("/console/sources/drafts/profile?check=nobody", "There is no such check"),
    ):
        page.goto(f"{shop_console.url}{path}")
        expect(page.get_by_text(says)).to_be_visible()
        assert page.locator(".problem").count() == 0, path
    shop_console.complaints.clear()


WIDE = (
    "/console/sources/contracts",
    PAGE,
    f"{PAGE}?version={BREAKING}",
    f"{PAGE}/compare?from={IN_FORCE}&to={BREAKING}",
    f"{EDITOR}?contract={CONTRACT}&version={BREAKING}",
)


@pytest.mark.parametrize(("width", "scheme"), [(900, "light"), (1280, "dark")])
def test_no_page_of_contracts_is_wider_than_its_window(
    shop_console: Console, shop: Shop, width: int, scheme: Literal["light", "dark"]
):
    shop_console.page.emulate_media(color_scheme=scheme)
    shop_console.page.set_viewport_size({"width": width, "height": 900})
    for path in WIDE:
        page = shop_console.load(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    shop_console.page.set_viewport_size({"width": 1280, "height": 900})
    shop_console.page.emulate_media(color_scheme="light")


UNNAMED = """() => ['input', 'select', 'textarea', 'button', 'a[href]', 'svg']
    .flatMap(name => [...document.querySelectorAll(`main ${name}`)])
    .filter(one => !one.closest('[aria-hidden=true]'))
    .filter(one => !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim()))
    .map(one => one.outerHTML)"""
LEVELS = "() => [...document.querySelectorAll('main h1, main h2, main h3')].map(one => Number(one.tagName[1]))"


@pytest.mark.parametrize("path", WIDE)
def test_everything_that_can_be_used_has_a_name_and_headings_do_not_skip(shop_console: Console, shop: Shop, path: str):
    page = shop_console.open(path)
    if path.startswith(EDITOR):
        page.wait_for_selector(CHECKED)
    assert page.evaluate(UNNAMED) == []
    levels = page.evaluate(LEVELS)
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


@pytest.mark.parametrize("seed", range(3))
def test_a_diff_has_every_line_of_both_texts_and_no_more_edits_than_needed(
    shop_console: Console, shop: Shop, seed: int
):
    chance = random.Random(seed)
    texts = [["\n".join(chance.choices("abc", k=chance.randrange(1, 12))) for _ in range(2)] for _ in range(300)]
    page = shop_console.open("/console/sources/contracts")
    found = page.evaluate(
        "async texts => { const {compareLines} = await import('/console/js/diff.js');"
        " return texts.map(([left, right]) => compareLines(left, right)) }",
        texts,
    )
    for (left, right), pairs in zip(texts, found, strict=True):
        a, b = left.split("\n"), right.split("\n")
        assert [pair["left"] for pair in pairs if pair["left"]] == [number + 1 for number in range(len(a))]
        assert [pair["right"] for pair in pairs if pair["right"]] == [number + 1 for number in range(len(b))]
        both = [pair for pair in pairs if pair["left"] and pair["right"]]
        assert all(a[pair["left"] - 1] == b[pair["right"] - 1] for pair in both)
        assert len(both) == _common(a, b), (left, right)


def _common(a: list[str], b: list[str]) -> int:
    """Return how many lines the longest common subsequence has."""
    best = [0] * (len(b) + 1)
    for one in a:
        row = [0]
        for index, other in enumerate(b):
            row.append(best[index] + 1 if one == other else max(best[index + 1], row[-1]))
        best = row
    return best[-1]


def test_large_documents_that_have_nothing_in_common_are_compared_at_once(shop_console: Console, shop: Shop):
    page = shop_console.open("/console/sources/contracts")
    found: Any = page.evaluate(
        "async () => { const {compareLines} = await import('/console/js/diff.js');"
        " const text = word => Array.from({length: 30000}, (_, index) => `${word} ${index}`).join('\\n');"
        " const begun = performance.now(); const pairs = compareLines(text('a'), text('b'));"
        " return {pairs: pairs.length, milliseconds: performance.now() - begun} }"
    )
    assert found["pairs"] == 60_000
    assert found["milliseconds"] < 10_000
