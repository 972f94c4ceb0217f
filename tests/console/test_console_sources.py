"""From an SDK or a file to records, as somebody goes that way in a browser: sources, imports, datasets, quarantine."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser import Console
from tests.console.store import HOSTILE
from tests.console.test_console_pages import rows, table
from tests.system.installation import Installation, until
from tests.system.tenant import Tenant, ok

CONTRACT = f"""
apiVersion: v3.1.0
kind: DataContract
id: returns
name: Returns {HOSTILE.replace('"', "'")}
version: 1.0.0
status: active
schema:
  - name: returns
    logicalType: object
    properties:
      - {{name: order_id, logicalType: string, required: true}}
      - {{name: returned_at, logicalType: timestamp, required: true}}
      - {{name: amount, logicalType: number, required: true, logicalTypeOptions: {{minimum: 0}}}}
      - {{name: note, logicalType: string}}
      - {{name: message_id, logicalType: string}}
"""
AT = "2026-11-01T10:00:00Z"
SOUND = 12
MISSING = 3
NARROW = 420


@pytest.fixture(scope="module")
def tenant(console_installation: Installation) -> Iterator[Tenant]:
    """A workspace with a dataset of returns; some have no note, two broke their contract."""
    with console_installation.http(console_installation.admin_key) as admin:
        made = Tenant.create(console_installation, admin, workspace="console-sources")
    with contextlib.closing(made.http):
        made.activate(CONTRACT)
        sound = [_return(f"s{n}", amount=n, **({} if n < MISSING else {"note": HOSTILE})) for n in range(SOUND)]
        made.append("returns", sound)
        made.append("returns", [_return("text", amount="5"), _return(HOSTILE, amount="6")])
        yield made


def _return(message_id: str, **values: Any) -> dict[str, Any]:
    return {"message_id": message_id, "order_id": message_id, "returned_at": AT, **values}


@pytest.fixture(scope="module")
def desk(sign_in: Callable[..., Console], tenant: Tenant) -> Iterator[Console]:
    """The console of the workspace's first principal, signed in."""
    opened = sign_in(tenant.key).sign_in()
    yield opened
    opened.page.context.close()


def _dataset(tenant: Tenant) -> dict[str, Any]:
    return tenant.datasets()["returns"]


def _figure(page: Page, label: str) -> Any:
    return page.locator(".figure", has=page.get_by_text(label, exact=True)).locator(".figure-value")


def test_a_new_source_shows_its_key_once_and_its_first_event_when_it_comes(desk: Console, tenant: Tenant):
    page = desk.open("/console/sources")
    page.get_by_label("Name").fill(HOSTILE)
    page.get_by_role("button", name="Send some events elsewhere").click()
    page.get_by_label("Event", exact=True).fill("Order Refunded")
    page.get_by_label("Dataset", exact=True).fill("returns")
    page.get_by_role("button", name="Create").click()
    key = page.locator("pre[aria-label='Write key']").inner_text()
    desk.settle()
    assert key in page.get_by_label("Lines for Segment, browser").inner_text()
    expect(page.locator("#arrivals")).to_contain_text("Waiting for its first event")
    expect(page.locator("[aria-label='Live tail: on']")).to_be_visible()
    assert tenant.send_events(key, [{"type": "track", "event": HOSTILE, "userId": "u1", "messageId": "first"}])
    expect(page.locator("#arrivals")).to_contain_text("Its first event was seen")
    expect(table(page, "Newest events")).to_contain_text(HOSTILE)
    source_id = page.url.rpartition("/")[2]
    made = ok(tenant.http.get(f"/v1/sources/{source_id}"))
    assert [one["dataset"] for one in made["mappings"]] == ["returns", "events"]
    page = desk.load(f"/console/sources/{source_id}")
    assert key not in page.content(), "the API tells a key once, so does the console"
    expect(page.get_by_label("Lines for Segment, browser")).to_contain_text("WRITE_KEY")
    expect(page.locator("#arrivals")).to_contain_text("1 event")


RUN = {"Python": [sys.executable, "-c"], "curl": ["bash", "-euc"]}


@pytest.mark.parametrize("protocol", ["segment", "snowplow"])
def test_the_lines_of_each_client_name_this_host_and_send_as_they_are(desk: Console, tenant: Tenant, protocol: str):
    made = ok(tenant.http.post("/v1/sources", json={"display_name": "Tried", "protocol": protocol}))
    page = desk.open(f"/console/sources/{made['source']['source_id']}")
    page.get_by_role("button", name="New write key").click()
    key = page.locator("pre[aria-label='Write key']").inner_text()
    sent = 0
    for name in page.get_by_role("group", name="Client").get_by_role("button").all_inner_texts():
        page.get_by_role("button", name=name, exact=True).click()
        lines = page.get_by_label(f"Lines for {name}").inner_text()
        assert urlsplit(desk.url).netloc in lines
        assert key in lines
        command = next((each for kind, each in RUN.items() if name.endswith(kind)), None)
        if command is not None:  # the others are built with npm; their SDKs have tests of their own
            subprocess.run([*command, lines], check=True, capture_output=True, timeout=120)
            sent += 1
    expect(page.locator("#arrivals")).to_contain_text(f"{sent} event")
    desk.settle()


def test_a_new_write_key_takes_the_place_of_the_old_one(desk: Console, tenant: Tenant):
    source_id, old = tenant.source("Rotated")
    page = desk.open(f"/console/sources/{source_id}")
    page.get_by_label("The old one works on for").select_option(label="not at all")
    page.get_by_role("button", name="New write key").click()
    new = page.locator("pre[aria-label='Write key']").inner_text()
    assert new != old
    event = [{"type": "track", "event": "Tried", "userId": "u1", "messageId": "rotated"}]
    assert tenant.send_events(new, event).status_code == 200
    until(lambda: True if tenant.send_events(old, event).status_code == 401 else None, seconds=60, what="it works on")
    desk.settle()


def test_a_dropped_file_is_looked_at_imported_and_taken_back(desk: Console, tenant: Tenant):
    before = _dataset(tenant)
    text = f'order_id;returned_at;amount;note\nf1;{AT};5;"a;b"\nf2;{AT};-1;x\nf3;{AT};7;<b>bold</b>\n'
    page = desk.open("/console/sources/imports?dataset=returns")
    dropped = page.evaluate_handle(
        "text => {const held = new DataTransfer(); held.items.add(new File([text], 'returns <b>.csv')); return held}",
        text,
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": dropped})
    shown = rows(table(page, "First rows"))
    assert shown == [["f1", AT, "5", "a;b"], ["f2", AT, "-1", "x"], ["f3", AT, "7", "<b>bold</b>"]]
    expect(page.get_by_label("Into the dataset")).to_have_value("returns")
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url("**/console/sources/imports/*")
    expect(page.locator(".verdict .badge")).to_have_text("done")
    desk.settle()
    for label, value in (("Rows", "3"), ("Accepted", "2"), ("There before", "0"), ("Quarantined", "1")):
        expect(_figure(page, label)).to_have_text(value)
    expect(page.locator("main")).to_contain_text("separated by semicolon")
    _figure(page, "Quarantined").get_by_role("link").click()
    desk.settle()
    [quarantined] = rows(table(page, "Quarantined records"))
    assert quarantined[0].startswith("row 2 of file "), "and not 64 digits, which leave no room for the reason"
    page.go_back()
    desk.settle()
    page.get_by_label("Reason").fill("the wrong month")
    page.get_by_label("2 records will be gone, and 1 in quarantine").check()
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator(".verdict .badge")).to_have_text("taken back")
    desk.settle()
    after = _dataset(tenant)
    assert [after[name] for name in ("records", "quarantined")] == [before[name] for name in ("records", "quarantined")]
    expect(page.locator("main")).to_contain_text("the wrong month")
    assert rows(table(desk.open("/console/sources/imports"), "Imports"))[0][2] == "taken back"


def test_a_mapping_asks_for_what_the_file_does_not_say(desk: Console, tenant: Tenant):
    page = desk.open("/console/sources/imports")
    page.set_input_files("#file", {"name": "spend.csv", "mimeType": "text/csv", "buffer": b"Day,Cost\n2026-11-01,5\n"})
    page.get_by_label("Its rows are read").select_option("google_ads")
    [mapping] = [one for one in ok(tenant.http.get("/v1/import-mappings"))["mappings"] if one["name"] == "google_ads"]
    for one in mapping["parameters"]:
        expect(page.get_by_label(one["name"])).to_be_visible()
    expect(page.get_by_label("Into the dataset").locator("option").first).to_contain_text(mapping["dataset"])
    page.get_by_label("Format").select_option("PARQUET")
    expect(page.locator(".parameters")).to_be_hidden()
    page.get_by_role("button", name="Import", exact=True).click()
    assert page.get_by_label("Into the dataset").evaluate("field => !field.validity.valid"), "it says what is missing"
    desk.settle()


def test_a_packed_file_is_looked_into_and_its_numbers_are_read_as_said(desk: Console, tenant: Tenant):
    page = desk.open("/console/sources/imports?dataset=returns")
    packed = gzip.compress(f"order_id;returned_at;amount\ngz1;{AT};1.234,5\n".encode())
    page.set_input_files("#file", {"name": "returns.csv.gz", "mimeType": "application/gzip", "buffer": packed})
    assert rows(table(page, "First rows")) == [["gz1", AT, "1.234,5"]]
    page.get_by_label("Its numbers are written").select_option(",")
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url("**/console/sources/imports/*")
    expect(page.locator(".verdict .badge")).to_have_text("done")
    desk.settle()
    assert tenant.sql("SELECT amount FROM returns WHERE order_id = 'gz1'") == [[1234.5]]


@pytest.mark.parametrize(("file", "told"), [(b"PK\x03\x04" + bytes(range(256)), "no text"), (b"\x1f\x8bno", "damaged")])
def test_a_file_that_cannot_be_shown_is_told_so(desk: Console, file: bytes, told: str):
    page = desk.open("/console/sources/imports")
    page.set_input_files("#file", {"name": "spend.csv", "mimeType": "text/csv", "buffer": file})
    expect(page.locator(".notice")).to_contain_text(told)
    desk.settle()


def test_a_dataset_tells_what_came_and_what_is_missing_in_it(desk: Console, tenant: Tenant):
    page = desk.open("/console/sources/datasets/returns")
    it = _dataset(tenant)
    expect(_figure(page, "Records in the log")).to_have_text(f"{it['records']:,}")
    expect(_figure(page, "In quarantine")).to_have_text(f"{it['quarantined']:,}")
    missing = {row[0]: row[3] for row in rows(table(page, "Fields"))}
    [[total, without]] = tenant.sql("SELECT count(*), count(*) - count(note) FROM returns")
    assert missing["note"] == f"{100 * without / total:.1f}%"
    assert missing["order_id"] == "never"
    assert {name for name in missing if name.startswith("_")} == {"_extra"}, "not what the lake adds"
    assert HOSTILE in table(page, "Sample").inner_text()
    assert str(it["records"]) in (page.locator(".chart").get_attribute("aria-label") or "")


def test_the_sql_box_answers_saves_a_file_and_says_what_is_wrong(desk: Console, tenant: Tenant, tmp_path: Path):
    page = desk.open("/console/sources/datasets/returns")
    sql = page.get_by_role("textbox", name="SQL")
    sql.fill("SELECT order_id, amount FROM returns WHERE amount < 3 ORDER BY amount")
    sql.press("Control+Enter")
    wanted = [[order, f"{amount:g}"] for order, amount in tenant.sql(sql.input_value())]
    assert rows(table(page, "Rows")) == wanted
    with page.expect_download() as saving:
        page.get_by_role("button", name="All rows as CSV").click()
    saving.value.save_as(tmp_path / "rows.csv")
    [header, *lines] = (tmp_path / "rows.csv").read_text().splitlines()
    assert header == "order_id,amount"
    assert [line.split(",")[0] for line in lines] == [order for order, _ in wanted]
    page.get_by_label("with a receipt").check()
    page.get_by_label("For what").fill("measurement")
    page.get_by_role("button", name="Run").click()
    receipt = page.locator(".receipt-link").get_attribute("href")
    assert receipt
    desk.settle()
    sql.fill("SELECT nothing FROM returns")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".problem")).to_contain_text("nothing")
    desk.complaints.clear()
    expect(desk.open(receipt).locator("h1")).to_have_text("Receipt")


def test_a_quarantined_record_is_repaired_after_it_was_tried_and_comes_into_the_log(desk: Console, tenant: Tenant):
    before = _dataset(tenant)
    page = desk.open("/console/sources/quarantine")
    [group] = [row for row in rows(table(page, "Groups")) if row[0].endswith("$.amount")]
    assert group[3] == "2"
    page.get_by_role("row").filter(has_text="$.amount").get_by_role("link").first.click()
    desk.settle()
    page.get_by_role("link", name=HOSTILE).click()
    desk.settle()
    expect(page.locator(".marked mark")).to_contain_text('"amount": "6"')
    expect(page.get_by_label("Type")).to_have_value("NUMBER")
    page.get_by_label("Type").select_option("TIMESTAMP")
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("main")).to_contain_text("It would not pass yet.")
    page.get_by_label("Type").select_option("NUMBER")
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("main")).to_contain_text("It would pass.")
    assert _dataset(tenant)["records"] == before["records"], "a try keeps nothing"
    page.get_by_role("button", name="Repair and replay").click()
    expect(page.locator(".badge-good", has_text="in the log")).to_be_visible()
    desk.settle()
    after = _dataset(tenant)
    assert after["records"] == before["records"] + 1
    assert tenant.sql("SELECT amount FROM returns WHERE message_id = ?", HOSTILE) == [[6]]


def test_all_records_of_a_group_are_repaired_by_a_patch_or_set_aside(desk: Console, tenant: Tenant):
    tenant.append("returns", [_return(f"late{n}", amount=-n) for n in (1, 2)] + [{"message_id": "empty"}])
    page = desk.open("/console/sources/quarantine?dataset=returns&reason=CONTRACT_RANGE&path=%24.amount")
    page.get_by_role("button", name="JSON Patch").click()
    page.get_by_label("JSON Patch", exact=True).last.fill("[{")
    page.get_by_role("button", name="Try it").click()
    expect(page.locator(".problem")).to_contain_text("The JSON Patch is no JSON")
    page.get_by_label("JSON Patch", exact=True).last.fill('[{"op": "replace", "path": "/amount", "value": 0}]')
    page.get_by_role("button", name="Repair and replay all").click()
    expect(page.locator("[data-outcome=ACCEPTED]")).to_have_text("2 records are in the log.")
    desk.settle()
    page = desk.open("/console/sources/quarantine?dataset=returns&reason=CONTRACT_REQUIRED")
    page.get_by_label("Reason").fill("a test of the sender")
    page.get_by_role("button", name="Discard all").click()
    expect(page.locator("main")).to_contain_text("1 record is set aside.")
    [aside] = ok(tenant.http.get("/v1/quarantine", params={"state": "DISCARDED"}))["quarantined_records"]
    page = desk.open(f"/console/sources/quarantine/{aside['quarantine_id']}")
    expect(page.locator("main")).to_contain_text("a test of the sender")


def test_what_is_watched_of_a_dataset_is_added_changed_and_undone(desk: Console, tenant: Tenant):
    page = desk.open("/console/sources/datasets/returns")
    page.get_by_text("Watch something more").click()
    page.get_by_label("Name", exact=True).fill("notes")
    page.get_by_label("What is watched").select_option("nullShare")
    page.get_by_label("Property", exact=True).fill("note")
    page.get_by_label("Bound, in points of percent").fill("7.5")
    page.get_by_role("button", name="Watch it").click()
    row = page.get_by_role("row").filter(has_text="returns.notes")
    expect(row).to_be_visible()
    made = ok(tenant.http.get("/v1/monitors/returns.notes"))
    assert (made["metric"], made["property"], made["threshold"]) == ("nullShare", "note", 7.5)
    row.get_by_text("Change", exact=True).first.click()
    row.get_by_label("is looked at").uncheck()
    row.get_by_label("Owner").fill(HOSTILE)
    row.get_by_role("button", name="Change").click()
    expect(row).to_contain_text("turned off")
    made = ok(tenant.http.get("/v1/monitors/returns.notes"))
    assert (made["enabled"], made["owner"], made["threshold"]) == (False, HOSTILE, 7.5)
    row.get_by_text("Change", exact=True).first.click()
    row.get_by_role("button", name="Undo what was set").click()
    expect(row).to_have_count(0)
    desk.settle()
    assert tenant.http.get("/v1/monitors/returns.notes").status_code == 404


def test_a_dataset_has_its_retention_and_a_hold_that_is_released(desk: Console, tenant: Tenant):
    page = desk.open("/console/trust/retention")
    page.get_by_text("Set a policy").click()
    page.get_by_label("Dataset").first.select_option("returns")
    page.get_by_label("Days after receipt").fill("400")
    page.get_by_label("What for").fill(HOSTILE)
    page.get_by_role("button", name="Set", exact=True).click()
    assert rows(table(page, "Retention policies"))[0][:3] == ["returns", "400 days", HOSTILE]
    page.get_by_text("Hold something").click()
    page.get_by_label("Dataset").last.select_option("returns")
    page.get_by_label("Reason").fill("case 12")
    page.get_by_role("button", name="Hold", exact=True).click()
    assert rows(table(page, "Holds"))[0][:3] == ["returns", "held", "case 12"]
    desk.settle()
    page.get_by_text("Release", exact=True).first.click()
    page.get_by_label("Reason").first.fill("settled")
    page.get_by_role("button", name="Release").click()
    expect(table(page, "Holds")).to_contain_text("Released: settled")
    [hold] = ok(tenant.http.get("/v1/legal-holds"))["legal_holds"]
    assert (hold["state"], hold["release_reason"]) == ("RELEASED", "settled")
    page.get_by_role("button", name="Keep for ever: returns").click()
    expect(page.locator("main")).to_contain_text("Everything is kept for ever.")
    desk.settle()
    assert ok(tenant.http.get("/v1/retention-policies"))["retention_policies"] == []


READING = [f"{service}.read" for service in ("ingest", "contracts", "graph", "models", "governance")]
PATHS = ["/console/sources", "/console/sources/imports", "/console/sources/datasets", "/console/sources/quarantine"]


def test_pages_fit_a_narrow_window_and_names_stay_text(desk: Console, tenant: Tenant):
    [held, *_] = ok(tenant.http.get("/v1/quarantine"))["quarantined_records"]
    source_id, _ = tenant.source(HOSTILE)
    more = [
        "datasets/returns",
        f"quarantine/{held['quarantine_id']}",
        "quarantine?dataset=returns",
        source_id,
    ]
    desk.page.set_viewport_size({"width": NARROW, "height": 900})
    for path in PATHS + [f"/console/sources/{one}" for one in more]:
        page = desk.open(path)
        assert page.locator(".problem").all_inner_texts() == [], path
        assert page.locator("img[src=x], main b").count() == 0, path
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, path
        assert page.locator("h1").bounding_box()["y"] < 300, "the menu leaves a small window room for its page"
    desk.page.set_viewport_size({"width": 1280, "height": 900})


def test_who_may_only_read_is_told_so_and_what_is_not_there_says_where_to_look(
    desk: Console, sign_in: Callable[..., Console], tenant: Tenant
):
    few = {"principal_id": "admin", "display_name": "few", "scopes": READING}
    reader = sign_in(ok(tenant.http.post("/v1/keys", json=few))["api_key"]).sign_in()
    for path, scope in zip(PATHS[:2], ("ingest.admin", "ingest.write"), strict=True):
        expect(reader.open(path).locator("main")).to_contain_text(f"Your key has not the scope {scope}.")
    reader.page.context.close()
    for path in (
        "sources/nothing",
        "sources/imports/nothing",
        "sources/datasets/nothing",
        "sources/quarantine/nothing",
    ):
        page = desk.page
        page.goto(f"{desk.url}/console/{path}")
        expect(page.locator(".empty-text")).to_contain_text("There is no such")
    desk.complaints.clear()
