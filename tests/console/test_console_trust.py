"""Receipts, changes, policies and the audit log, as somebody meets them in a browser."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.console.browser import Console, unchanged
from tests.console.store import SECOND_PERSON, Store
from tests.system.installation import until


@pytest.mark.parametrize("output", ["forecast", "attribution", "lift"])
def test_a_receipt_says_what_stands_behind_a_number_and_replays_it(console: Console, store: Store, output: str):
    receipt_id = getattr(store, output)["receipt_id"]
    page = console.open(f"/console/trust/receipts/{receipt_id}")
    receipt = store.get(f"/v1/receipts/{receipt_id}")
    shown = page.locator(".stub")
    said = [receipt_id, receipt["output_sha256"], receipt["principal"], receipt["trace_id"], receipt["output"]]
    said += [one["contract_id"] for one in receipt["contracts"]]
    said += [policy_id for check in receipt["policy_checks"] for policy_id in check["policy_ids"]]
    for text in said:
        expect(shown).to_contain_text(text)
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".outcome")).to_have_attribute("data-outcome", "MATCH")
    console.check()


def test_every_receipt_is_listed_and_opens(console: Console, store: Store):
    page = console.open("/console/trust/receipts")
    receipts = store.get("/v1/receipts")["receipts"]
    assert page.locator("tbody tr").count() == len(receipts)
    page.locator("tbody a").first.click()
    expect(console.settle().locator(".stub-id").first).to_have_text(receipts[0]["receipt_id"])


def test_who_asked_cannot_approve_and_a_second_person_can(console: Console, second: Console, store: Store):
    page = console.open("/console/trust/changes")
    mine = page.locator(f"#change-{store.change_id}")
    expect(mine).to_contain_text("You (admin) asked for it")
    expect(mine.get_by_role("button", name="Approve")).to_be_disabled()
    change = store.get(f"/v1/changes/{store.change_id}")
    page = second.open(f"/console/trust/changes/{store.change_id}")
    expect(page.locator(".json")).to_contain_text(change["payload"]["model_id"])
    page.get_by_label("Reason").fill("looked at the backtest")
    page.get_by_role("button", name="Approve this payload").click()
    expect(page.locator(".votes")).to_contain_text(f"approved by {SECOND_PERSON}")
    [vote] = store.get(f"/v1/changes/{store.change_id}")["votes"]

    def applied() -> bool | None:
        return store.get(f"/v1/changes/{store.change_id}")["state"] == "APPLIED" or None

    until(applied, seconds=60, what="the approval has no effect")
    assert (vote["voter"], vote["payload_sha256"]) == (SECOND_PERSON, change["payload_sha256"])
    second.check()


def test_the_policies_in_force_are_listed_with_their_text(console: Console, store: Store):
    page = console.open("/console/trust/policies")
    policies = store.get("/v1/policies")["policies"]
    assert page.locator(".policy .name code").all_inner_texts() == [policy["policy_id"] for policy in policies]
    item = page.locator(f"[id='policy-{policies[-1]['policy_id']}']")
    item.locator("summary").click()
    expect(item.locator("pre")).to_have_text(policies[-1]["text"].strip())


def test_the_audit_log_verifies_and_leaves_with_its_verifier(console: Console, store: Store, tmp_path: Path):
    page, newest = unchanged(
        lambda: store.get("/v1/audit/entries", newest_first=True)["entries"],
        lambda: console.open("/console/trust/audit"),
    )
    assert page.locator("tbody tr").count() == len(newest)
    expect(page.locator("tbody tr").first).to_contain_text(newest[0]["resource"])
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".outcome")).to_have_attribute("data-ok", "true")
    expect(page.locator(".outcome")).to_contain_text("hashed again")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export with verifier").click()
    archive = tmp_path / "audit.zip"
    download.value.save_as(archive)
    names = zipfile.ZipFile(io.BytesIO(archive.read_bytes())).namelist()
    assert any(name.endswith("verify.py") for name in names), names
    console.check()
