"""Files as vendors and sources make them, through the gateway: read, restated, continued, taken back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.system.installation import until
from tests.system.tenant import DAY_SALES, Tenant, ok, problem

ROOT = Path(__file__).parents[2]
EXPORTS = ROOT / "examples" / "ad_spend" / "exports"
CONTRACT = ROOT / "examples" / "ad_spend" / "contracts" / "ad_spend.odcs.yaml"
FAKER = ROOT / "tests" / "ingest" / "airbyte" / "faker.jsonl"
PARAMETERS = {
    "google_ads": ["report_timezone=Europe/Berlin", "attribution_window=30d_click"],
    "meta_ads": ["report_timezone=Europe/Berlin", "conversion_action=purchase"],
    "linkedin_ads": ["attribution_window=30d_click_7d_view"],
    "tiktok_ads": ["report_timezone=UTC"],
}
NEWEST = """
    SELECT platform, currency, sum(spend_micros)::BIGINT, sum(clicks)::BIGINT, count(*) FROM (
        SELECT *, row_number() OVER (
            PARTITION BY platform, account_id, campaign_id, ad_group_id, ad_id, network, device, date_day, currency,
                conversion_action, attribution_window
            ORDER BY snapshot_at DESC
        ) AS version FROM ad_spend
    ) WHERE version = 1 GROUP BY 1, 2 ORDER BY 1, 2
"""
STREAM = """
apiVersion: v3.1.0
kind: DataContract
id: faker-{name}
name: {name}
version: 1.0.0
status: active
schema:
  - name: {name}
    logicalType: object
    customProperties:
      - {{property: contentModel, value: open}}
    properties:
      - {{name: id, logicalType: integer, required: true}}
      - {{name: updated_at, logicalType: timestamp, required: true}}
"""


@pytest.fixture
def shop(make_tenant: Callable[[str], Tenant]) -> Tenant:
    """A workspace of the test's own."""
    return make_tenant("sources")


def test_spend_of_four_vendors_is_one_form_and_restated_by_versions(shop: Tenant):
    shop.activate(CONTRACT.read_text())
    offered = {each["name"]: each for each in ok(shop.http.get("/v1/import-mappings"))["mappings"]}
    assert offered.keys() >= PARAMETERS.keys() | {"ga4"}
    for name, parameters in PARAMETERS.items():
        assert offered[name]["dataset"] == "ad_spend"
        for file in sorted(EXPORTS.glob(f"{name}_*")):
            done = shop.upload("", file.read_bytes(), form=file.suffix[1:], mapping=name, parameter=parameters)
            assert (done["state"], done["dataset"], done["rows_accepted"]) == ("SUCCEEDED", "ad_spend", 5), done
            assert done["mapping"] == f"{name}@{offered[name]['version']}"
    totals = shop.sql(NEWEST)
    money = {"EUR": 1_689_000_000, "USD": 3_378_000_000}
    assert totals == [[name, currency, money[currency], 1598, 5] for name in sorted(PARAMETERS) for currency in money]
    # Google corrects a day: another export of it is another version, and nothing is overwritten.
    restated = (EXPORTS / "google_ads_eur.csv").read_bytes().replace(b'"1,234.56"', b'"1,200.00"')
    again = shop.upload("", restated, form="csv", mapping="google_ads", parameter=PARAMETERS["google_ads"])
    assert again["rows_accepted"] == 5
    assert again["csv"] == {"encoding": "utf-8", "delimiter": ",", "quote": '"', "header_line": 3}
    assert shop.sql(NEWEST)[0] == ["google_ads", "EUR", 1_654_440_000, 1598, 5]
    before = "SELECT count(*) FROM ad_spend WHERE platform = 'google_ads' AND currency = 'EUR'"
    assert shop.sql(before) == [[10]]
    ok(shop.http.post(f"/v1/imports/{again['import_id']}:revert", json={"reason": "of the wrong account"}))
    assert shop.ended_import(again["import_id"])["state"] == "REVERTED"
    assert shop.sql(NEWEST) == totals


def test_what_an_import_asks_for_is_said_before_its_file_is_taken(shop: Tenant):
    def refused(reason: str, **params: Any) -> None:
        answer = shop.http.post("/v1/imports", params={"format": "csv", **params}, content=b"a\n1\n")
        problem(answer, status=400, reason=reason)

    shop.activate(CONTRACT.read_text())
    refused("IMPORT_PARAMETER_INVALID", mapping="nobody_ads")
    refused("IMPORT_PARAMETER_INVALID", mapping="meta_ads", parameter="report_timezone=UTC")
    refused("IMPORT_PARAMETER_INVALID", mapping="tiktok_ads", parameter="report_timezone=Mars/Base")
    refused("IMPORT_PARAMETER_INVALID", mapping="ga4")
    refused("UPLOAD_INVALID")
    refused("NO_CONTRACT", mapping="tiktok_ads", dataset="nowhere", parameter="report_timezone=UTC")


def test_an_airbyte_source_lands_in_its_streams_and_continues_by_its_state(shop: Tenant):
    for name in ("products", "users", "purchases"):
        shop.activate(STREAM.format(name=name))
    sent = [orjson.loads(line) for line in FAKER.read_bytes().splitlines()]
    records = [each["record"] for each in sent if each["type"] == "RECORD"]
    done = shop.upload("", FAKER.read_bytes(), form="airbyte")
    assert (done["state"], done["rows_accepted"], done["dataset"]) == ("SUCCEEDED", len(records), ""), done
    for name in ("products", "users", "purchases"):
        ids = [each["data"]["id"] for each in records if each["stream"] == name]
        assert shop.sql(f"SELECT id FROM {name} ORDER BY id") == [[each] for each in sorted(ids)]
    states = orjson.loads(done["source_state"])
    assert {each["stream"]["stream_descriptor"]["name"] for each in states} == {"products", "users", "purchases"}
    (listed,) = ok(shop.http.get("/v1/imports"))["imports"]
    assert not listed.get("source_state")


def test_a_reverted_import_is_gone_and_told_of(shop: Tenant):
    shop.activate(DAY_SALES.format(version="1.0.0"))
    rows = b"2025-01-01T10:00:00;north;1.5;x\n2025-01-02T10:00:00;north;-1;x\n"
    kept = shop.upload("sales", b"sold_at,shop,amount,note\n2025-01-01T10:00:00,south,2,y\n", form="csv")
    before = shop.datasets()["sales"]
    done = shop.upload(
        "sales", "sold_at;shop;amount;note\n".encode("utf-16") + rows.decode().encode("utf-16-le"), form="csv"
    )
    assert (done["rows_accepted"], done["rows_quarantined"], done["csv"]["encoding"]) == (1, 1, "utf-16")
    path = f"/v1/imports/{done['import_id']}:revert"
    problem(shop.http.post(path, json={}), status=400)
    begun = ok(shop.http.post(path, json={"reason": "wrong shop"}))
    assert begun["state"] in ("REVERTING", "REVERTED")
    found = shop.ended_import(done["import_id"])
    assert (found["revert"]["reason"], found["revert"]["reverted_by"]) == ("wrong shop", "admin")
    assert (found["revert"]["records"], found["revert"]["quarantined"]) == (1, 1)
    after = shop.datasets()["sales"]
    assert (after["records"], after.get("quarantined", 0)) == (before["records"], before.get("quarantined", 0))
    assert shop.sql("SELECT shop FROM sales") == [["south"]]
    assert ok(shop.http.get("/v1/quarantine", params={"dataset": "sales"})).get("records", []) == []
    entries = until(lambda: _entries(shop, done["import_id"]), seconds=60, what="nobody was told of the revert")
    assert [(each["action"], each["principal"]) for each in entries] == [("import.revert", "admin")]
    problem(shop.http.post("/v1/imports/nobody:revert", json={"reason": "x"}), status=404, reason="IMPORT_NOT_FOUND")
    assert kept["rows_accepted"] == 1
    again = shop.upload("sales", rows, form="csv", parameter="delimiter=;")
    assert again["error"]["reason"] == "HEADER_UNKNOWN"


def _entries(shop: Tenant, import_id: str) -> list[dict[str, Any]] | None:
    answer = ok(shop.http.get("/v1/audit/entries", params={"resource": f"imports/{import_id}"}))
    return answer.get("entries") or None
