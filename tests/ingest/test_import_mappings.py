"""Mappings: exports of four ad platforms are one form with equal totals, and no row is lost or half understood."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest.files import FileUnreadableError
from counterfoil_ingest.import_files import Layout, open_file
from counterfoil_ingest.import_jobs import Format, State
from counterfoil_ingest.import_mappings import faults_of, load_mappings, plain, read_mapping
from counterfoil_ingest.mapped_rows import Given
from counterfoil_ingest.registry import ColumnType
from hypothesis import given as holds_for
from hypothesis import strategies as st

from tests.ingest.read_rig import contract, read_side

EXPORTS = Path(__file__).parents[2] / "examples" / "ad_spend" / "exports"
SHIPPED = load_mappings(None)
VENDORS = ("google_ads", "meta_ads", "linkedin_ads", "tiktok_ads")
TEXTS = (
    *(
        "platform",
        "account_id",
        "account_name",
        "campaign_id",
        "campaign_name",
        "ad_group_id",
        "ad_group_name",
        "ad_id",
    ),
    *("ad_name", "network", "device", "currency", "conversion_action", "attribution_window", "report_timezone"),
)
SPEND = {
    **dict.fromkeys(TEXTS, ColumnType.VARCHAR),
    **dict.fromkeys(("spend_micros", "impressions", "clicks", "conversions_value_micros"), ColumnType.BIGINT),
    "conversions": ColumnType.DOUBLE,
    "date_day": ColumnType.DATE,
    "snapshot_at": ColumnType.TIMESTAMPTZ,
    "is_final": ColumnType.BOOLEAN,
}
REQUIRED = (
    "platform",
    "date_day",
    "currency",
    "spend_micros",
    "conversion_action",
    "attribution_window",
    "snapshot_at",
)
GIVEN = {
    "google_ads": ("report_timezone=Europe/Berlin", "attribution_window=30d_click"),
    "meta_ads": ("report_timezone=Europe/Berlin", "conversion_action=purchase"),
    "linkedin_ads": ("attribution_window=30d_click_7d_view",),
    "tiktok_ads": ("report_timezone=UTC",),
}


def rows_of(path: Path, name: str, *parameters: str, kind: str = "", skip: int = 0) -> list[dict[str, Any]]:
    """Return the records that a shipped mapping makes of a file."""
    given = Given(datetime(2025, 4, 30, 12, tzinfo=UTC), dict(each.split("=", 1) for each in parameters))
    kind = kind or path.suffix[1:].upper()
    layout = Layout(kind, SHIPPED[name].dataset, {}, SHIPPED[name], given, encoding="", delimiter="")
    return [value for rows in open_file(path, layout, skip=skip).batches for value in rows.values]


def mapped(tmp_path: Path, name: str, row: dict[str, Any], *parameters: str) -> dict[str, Any]:
    """Return the record that a shipped mapping makes of one row."""
    file = tmp_path / "one.jsonl"
    file.write_bytes(orjson.dumps(row))
    (found,) = rows_of(file, name, *parameters)
    return found


async def test_four_vendors_exports_give_equal_totals_per_currency(rig: Any) -> None:
    rig.contracts.put(contract("ad_spend", SPEND, required=REQUIRED))
    async with read_side(rig) as side:
        for name in VENDORS:
            for currency in ("eur", "usd"):
                (file,) = EXPORTS.glob(f"{name}_{currency}.*")
                done = await side.import_file(
                    "ad_spend",
                    file.read_bytes(),
                    Format[file.suffix[1:].upper()],
                    mapping=SHIPPED[name].title,
                    parameters=orjson.dumps(GIVEN[name]).decode(),
                )
                assert (done.state, done.rows_read, done.rows_accepted) == (State.SUCCEEDED, 5, 5), (file, done)
        rows = await side.rows("ad_spend", list(SPEND))
    totals: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        total = totals.setdefault((row["platform"], row["currency"]), [0, 0, 0, 0, 0])
        for index, field in enumerate(
            ("spend_micros", "impressions", "clicks", "conversions", "conversions_value_micros")
        ):
            total[index] += row[field] or 0
    for currency, money in (("EUR", 1_689_000_000), ("USD", 3_378_000_000)):
        assert {tuple(totals[name, currency]) for name in VENDORS} == {(money, 62_265, 1_598, 47, 4_123_650_000)}
    days = {(row["platform"], row["ad_id"], row["date_day"]) for row in rows}
    assert {(name, "7003", date(2025, 4, 2)) for name in VENDORS} <= days


def test_a_record_says_what_the_export_does_not() -> None:
    google = rows_of(EXPORTS / "google_ads_eur.csv", "google_ads", *GIVEN["google_ads"])[0]
    assert google == {
        "platform": "google_ads",
        "account_id": "5550000001",
        "account_name": "Shoes Example",
        "campaign_id": "9001",
        "campaign_name": "Spring sale",
        "ad_group_id": "8101",
        "ad_group_name": "Sneakers",
        "ad_id": "7001",
        "ad_name": "Video 1",
        "network": "SEARCH",
        "device": "MOBILE",
        "date_day": "2025-04-01",
        "currency": "EUR",
        "spend_micros": 1_234_560_000,
        "impressions": 48_210,
        "clicks": 1_210,
        "conversions": 31.0,
        "conversions_value_micros": 2_480_500_000,
        "conversion_action": "all",
        "attribution_window": "30d_click",
        "report_timezone": "Europe/Berlin",
        "snapshot_at": "2025-04-30T12:00:00Z",
        "is_final": False,
    }
    meta = rows_of(EXPORTS / "meta_ads_eur.jsonl", "meta_ads", *GIVEN["meta_ads"])
    assert (meta[0]["is_final"], meta[-1]["is_final"]) == (True, False)  # 29 and 27 days before the export
    assert (meta[0]["attribution_window"], meta[0]["conversion_action"]) == ("7d_click_1d_view", "purchase")
    assert "conversions" not in meta[-1]


def test_reads_rows_of_apis_and_of_connectors(tmp_path: Path) -> None:
    nested = {
        "customer": {"id": "1", "currencyCode": "EUR", "timeZone": "Europe/Paris"},
        "campaign": {"id": "9", "name": "c"},
        "adGroup": {"id": "8"},
        "segments": {"date": "2025-04-01", "device": "MOBILE"},
        "metrics": {"costMicros": "24670001", "conversionsValue": 12.5},
    }
    dotted = {"customer.id": 1, "segments.date": "2025-04-01", "metrics.cost_micros": 24670001, "campaign.name": "c"}
    for row in (nested, dotted):
        found = mapped(tmp_path, "google_ads", row, "report_timezone=Europe/Berlin", "currency=EUR")
        assert (found["spend_micros"], found["date_day"], found["currency"]) == (24_670_001, "2025-04-01", "EUR")
        assert (found["account_id"], found["campaign_name"]) == ("1", "c")
    linkedin = {
        "pivotValues": ["urn:li:sponsoredCreative:3"],
        "sponsoredCreative": "urn:li:sponsoredCreative:3",
        "campaign_group": "urn:li:sponsoredCampaignGroup:4",
        "start_date": "2025-04-01",
        "costInLocalCurrency": "0.1000004",
        "externalWebsiteConversions": 2,
    }
    found = mapped(tmp_path, "linkedin_ads", linkedin, "currency=CHF")
    assert (found["ad_id"], found["campaign_id"], found["spend_micros"]) == ("3", "4", 100_000)
    assert (found["report_timezone"], found["conversions"]) == ("UTC", 2.0)


def test_reads_the_currency_in_the_name_of_a_column(tmp_path: Path) -> None:
    file = tmp_path / "ads.csv"
    file.write_text('"Reporting starts","Campaign name","Amount spent (GBP)","Results"\n2025-04-01,a,"1,000.5",3\n')
    (found,) = rows_of(file, "meta_ads", *GIVEN["meta_ads"])
    assert (found["currency"], found["spend_micros"], found["conversions"]) == ("GBP", 1_000_500_000, 3.0)


@pytest.mark.parametrize(
    ("text", "decimal", "micros"),
    [
        ("1,234.56", ".", 1_234_560_000),
        ("1.234,56", ",", 1_234_560_000),
        ("1 234,56 €", ",", 1_234_560_000),
        ("1'234.56", ".", 1_234_560_000),
        ("€1,234.56", ".", 1_234_560_000),
        ("-0.5", ".", -500_000),
        (0.1, ".", 100_000),
        (7, ".", 7_000_000),
        ("0.0000005", ".", 0),
        ("0.0000015", ".", 2),
        ("1234,56", ".", "1234,56"),
        ("1.234.56", ".", "1.234.56"),
        ("1e999999999", ".", "1e999999999"),
        ("9999999999999999", ".", "9999999999999999"),
        ("NaN", ".", "NaN"),
        ("9" * 5000, ".", "9" * 5000),
        (True, ".", True),
        ([1], ".", [1]),
    ],
)
def test_money_is_exact_or_left_as_it_is(tmp_path: Path, text: Any, decimal: str, micros: Any) -> None:
    row = {"stat_time_day": "2025-04-01", "spend": text}
    assert mapped(tmp_path, "tiktok_ads", row, "report_timezone=UTC", f"decimal={decimal}")["spend_micros"] == micros


@holds_for(st.decimals(min_value=-(10**9), max_value=10**9, places=6, allow_nan=False))
def test_every_amount_of_six_places_is_exact(tmp_path_factory: pytest.TempPathFactory, amount: Any) -> None:
    folder = tmp_path_factory.mktemp("amount")
    row = {"stat_time_day": "2025-04-01", "spend": f"{amount:,}"}
    assert mapped(folder, "tiktok_ads", row, "report_timezone=UTC")["spend_micros"] == int(amount * 1_000_000)


async def test_a_row_that_does_not_fit_is_kept_in_quarantine_as_the_vendor_wrote_it(rig: Any) -> None:
    rig.contracts.put(contract("ad_spend", SPEND, required=REQUIRED))
    rows = [{"stat_time_day": "2025-04-01", "spend": "12 or so", "currency": "EUR"}, {"spend": 1}, 7]
    data = b"\n".join(map(orjson.dumps, rows))
    async with read_side(rig) as side:
        done = await side.import_file(
            "ad_spend", data, Format.JSONL, mapping="tiktok_ads@1.0.0", parameters='["report_timezone=UTC"]'
        )
        kept = [await side.kept(each) for each in await side.imports.quarantined(done)]
    assert (done.state, done.rows_quarantined) == (State.SUCCEEDED, 3)
    assert sorted(each.raw for each in kept) == sorted(map(orjson.dumps, rows))
    assert {finding.path for each in kept for finding in each.findings} >= {"$.spend_micros", "$.date_day", "$"}


def test_a_file_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hours.csv"
    file.write_text("stat_time_hour,spend,ad_id\n2025-04-01 01:00:00,1,2\n")
    with pytest.raises(FileUnreadableError) as failure:
        rows_of(file, "tiktok_ads", "report_timezone=UTC")
    assert failure.value.reason == "COLUMN_MISSING"
    assert "date_day" in str(failure.value)


@pytest.mark.parametrize("skip", range(6))
def test_goes_on_after_any_row(skip: int) -> None:
    for name in VENDORS:
        (file,) = EXPORTS.glob(f"{name}_eur.*")
        assert rows_of(file, name, *GIVEN[name], skip=skip) == rows_of(file, name, *GIVEN[name])[skip:]


def test_events_of_ga4_are_events_with_one_name_wherever_they_come_from(tmp_path: Path) -> None:
    row = {
        "event_date": "20250401",
        "event_timestamp": "1743500000123456",
        "event_name": "purchase",
        "event_bundle_sequence_id": "17",
        "event_params": [
            {"key": "value", "value": {"double_value": 12.5}},
            {"key": "ga_session_id", "value": {"int_value": "1743499999"}},
            {"key": "page_location", "value": {"string_value": "https://shop.example/thanks"}},
            {"key": "nothing", "value": {}},
        ],
        "user_pseudo_id": "55.66",
        "collected_traffic_source": {"manual_source": "google", "manual_campaign_name": "spring", "gclid": "Cj0"},
        "device": {"category": "mobile"},
        "ecommerce": {"transaction_id": "T1", "purchase_revenue": 12.5},
    }
    found = mapped(tmp_path, "ga4", row)
    assert found == {
        "message_id": "55.66.1743500000123456.purchase.17",
        "type": "track",
        "event": "purchase",
        "anonymous_id": "55.66",
        "timestamp": "2025-04-01T09:33:20.123456Z",
        "properties": {"value": 12.5, "ga_session_id": 1743499999, "page_location": "https://shop.example/thanks"},
        "context": {
            "source": "ga4",
            "campaign": {"name": "spring", "source": "google"},
            "gclid": "Cj0",
            "device": {"category": "mobile"},
        },
        "ecommerce": {"transaction_id": "T1", "purchase_revenue": 12.5},
    }
    assert mapped(tmp_path, "ga4", row | {"event_name": "page_view"})["type"] == "page"


def test_reads_the_nested_columns_of_parquet(tmp_path: Path) -> None:
    params = [{"key": "value", "value": {"string_value": None, "int_value": 7, "double_value": None}}]
    row = {
        "event_timestamp": 1743500000123456,
        "event_name": "purchase",
        "event_bundle_sequence_id": 17,
        "event_params": params,
        "user_pseudo_id": "55.66",
        "collected_traffic_source": {"gclid": "Cj0"},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "day.parquet")
    (found,) = rows_of(tmp_path / "day.parquet", "ga4")
    assert (found["properties"], found["context"]["gclid"]) == ({"value": 7}, "Cj0")
    assert found["message_id"] == "55.66.1743500000123456.purchase.17"


async def test_a_day_of_ga4_exported_again_adds_only_what_is_new(rig: Any) -> None:
    types = {"message_id": ColumnType.VARCHAR, "event": ColumnType.VARCHAR}
    rig.contracts.put(contract("events", types, required=("message_id",)))
    rows = [
        orjson.dumps(
            {"event_timestamp": n, "event_name": "scroll", "event_bundle_sequence_id": 1, "user_pseudo_id": "u"}
        )
        for n in range(5)
    ]
    async with read_side(rig) as side:
        first = await side.import_file("events", b"\n".join(rows[:3]), Format.JSONL, mapping="ga4@1.0.0")
        second = await side.import_file("events", b"\n".join(rows), Format.JSONL, mapping="ga4@1.0.0")
        nameless = await side.import_file("events", b'{"event_name":"x"}', Format.JSONL, mapping="ga4@1.0.0")
    assert (first.rows_accepted, second.rows_accepted, second.rows_duplicate) == (3, 2, 3)
    assert nameless.rows_quarantined == 1


@pytest.mark.parametrize(
    ("kind", "given", "fault"),
    [
        ("csv", {"report_timezone": "Europe/Berlin"}, ""),
        ("csv", {"report_timezone": "Europe/Berlin", "delimiter": ";", "encoding": "cp1252", "decimal": ","}, ""),
        ("csv", {}, "report_timezone"),
        ("csv", {"report_timezone": "Mars"}, "report_timezone"),
        ("csv", {"report_timezone": "UTC", "currency": "euro"}, "currency"),
        ("csv", {"report_timezone": "UTC", "snapshot_at": "yesterday"}, "snapshot_at"),
        ("csv", {"report_timezone": "UTC", "snapshot_at": "2025-04-01T00:00:00"}, "snapshot_at"),
        ("csv", {"report_timezone": "UTC", "delimiter": "ab"}, "delimiter"),
        ("csv", {"report_timezone": "UTC", "encoding": "zip"}, "encoding"),
        ("jsonl", {"report_timezone": "UTC", "delimiter": ";"}, "delimiter"),
        ("jsonl", {"report_timezone": "UTC", "colour": "red"}, "colour"),
    ],
)
def test_what_an_import_is_given_is_checked_before_its_file(kind: str, given: dict[str, str], fault: str) -> None:
    assert fault in faults_of(SHIPPED["google_ads"], kind, given)
    assert bool(fault) == bool(faults_of(SHIPPED["google_ads"], kind, given))


def test_a_mapping_reads_the_formats_that_it_names() -> None:
    assert "not csv" in faults_of(SHIPPED["ga4"], "csv", {})
    assert faults_of(None, "csv", {"encoding": "cp1252"}) == ""
    assert "encoding" in faults_of(None, "parquet", {"encoding": "cp1252"})


def test_ones_own_mappings_stand_beside_the_shipped_ones(tmp_path: Path) -> None:
    text = SHIPPED["ga4"].document
    (tmp_path / "own.yaml").write_text(text.replace("mapping: ga4", "mapping: own").replace("1.0.0", "3.1.4"))
    (tmp_path / "ga4.yaml").write_text(text.replace("1.0.0", "2.0.0"))
    found = load_mappings(tmp_path)
    assert (found["own"].title, found["ga4"].title) == ("own@3.1.4", "ga4@2.0.0")
    assert list(found) == sorted({*SHIPPED, "own"})


@pytest.mark.parametrize(
    "change",
    [("as: params", "as: magic"), ("record_id: message_id", "record_id: nothing"), ("required: [", "requires: [")],
)
def test_a_mapping_that_says_what_none_does_is_refused(change: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="mapping"):
        read_mapping(SHIPPED["ga4"].document.replace(*change))


@pytest.mark.parametrize("name", ["Campaign ID", "campaign_id", "campaignId", " CAMPAIGN-ID ", "Campaign ID:"])
def test_a_column_has_one_name_however_it_is_written(name: str) -> None:
    assert plain(name) == "campaign_id"
