"""The demo's calls of the public API that only a web shop with ad platforms needs."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from counterfoil_cli.client import Client
from rich.progress import Progress, TaskID
from walkthrough.errors import DemoError
from walkthrough.loading import Check

from harbour_store.campaigns import MAILING
from harbour_store.events import CURRENCY
from harbour_store.generate import Store

SOURCE: Final = "Harbour Store (synthetic)"
EVENTS: Final = "harbour_events"
EVENTS_PER_BATCH: Final = 1000
CONTRACTS: Final = Path(__file__).parent / "contracts"
MAPPING: Final = Path(__file__).parent / "mapping.yaml"

ATTRIBUTION: Final[dict[str, Any]] = {
    "conversion_type": "order",
    "first_day": "2025-04-09",
    "last_day": "2025-06-28",
    "subject": "CHANNEL",
    "window": "LOOKBACK",
    "lookback_days": 7,
    "costs": [
        {
            "dataset": "harbour_google_ads",
            "time_field": "date",
            "amount_field": "cost_micros",
            "micros": True,
            "currency": CURRENCY,
            "channel": "google",
            "campaign_field": "campaign_name",
        },
        {
            "dataset": "harbour_meta_ads",
            "time_field": "date_start",
            "amount_field": "spend",
            "currency": CURRENCY,
            "channel": "facebook",
            "campaign_field": "campaign_name",
        },
        {
            "dataset": "harbour_linkedin_ads",
            "time_field": "day",
            "amount_field": "costInLocalCurrency",
            "currency": CURRENCY,
            "channel": "linkedin",
            "campaign_field": "campaignGroupName",
        },
        {
            "dataset": "harbour_tiktok_ads",
            "time_field": "stat_time_day",
            "amount_field": "spend",
            "currency": CURRENCY,
            "channel": "tiktok",
            "campaign_field": "campaign_name",
        },
    ],
}

LIFT: Final[dict[str, Any]] = {
    "name": "Spring mailing of the Harbour Store (synthetic)",
    "outcome": {
        "dataset": "harbour_deals",
        "unit_field": "contact_id",
        "unit_type": "crm_contact_id",
        "time_field": "closedate",
        "value_field": "amount",
        "currency": CURRENCY,
        "count_field": "hs_object_id",
        "cost_fields": ["discount"],
    },
    "assignment": {
        "dataset": "harbour_mailings",
        "unit_field": "contact_id",
        "filter_field": "campaign",
        "filter_values": [MAILING],
        "time_field": "sent_at",
        "leave_out_assigned_before": True,
    },
    "first_day": "2025-04-10",
    "last_day": "2025-06-28",
    "pre_first_day": "2025-03-01",
    "pre_last_day": "2025-04-09",
}

_GAP: Final = """
WITH reported AS (
    SELECT date_start AS day, sum(clicks::BIGINT) AS clicks FROM harbour_meta_ads GROUP BY 1
), seen AS (
    SELECT ("timestamp" AT TIME ZONE 'UTC')::DATE AS day, count(*) AS clicks FROM harbour_events
    WHERE json_extract_string(context, '$.campaign.source') = 'facebook' GROUP BY 1
)
SELECT count(*), sum(r.clicks), min(r.day)::VARCHAR, max(r.day)::VARCHAR
FROM reported r LEFT JOIN seen s USING (day) WHERE r.clicks > 0 AND s.clicks IS NULL
"""


def send_events(events: list[dict[str, Any]], *, key: str, host: str, progress: Progress, task: TaskID) -> None:
    """Send events in batches to Segment's HTTP route, as a server does; raise when one is not taken."""
    progress.update(task, total=len(events), unit="events")
    with httpx.Client(base_url=host, auth=(key, ""), timeout=60, trust_env=False) as client:
        for begin in range(0, len(events), EVENTS_PER_BATCH):
            some = events[begin : begin + EVENTS_PER_BATCH]
            body = orjson.dumps({"batch": some})
            answer = client.post("/v1/batch", content=body, headers={"content-type": "application/json"})
            if answer.status_code != httpx.codes.OK:
                raise DemoError(f"A batch of events was answered with HTTP {answer.status_code}: {answer.text[:200]}")
            progress.advance(task, len(some))


def count_events(api: Client) -> int:
    """Return how many of the store's events are there already."""
    found = {dataset["dataset"]: dataset["records"] for dataset in api.pages("/v1/datasets", "datasets")}
    return int(found.get(EVENTS, 0))


def check_figures(api: Client, store: Store) -> list[Check]:
    """Ask Counterfoil for the figures that the generated files have."""
    records = {dataset["dataset"]: dataset["records"] for dataset in api.pages("/v1/datasets", "datasets")}
    expected = {name: len(rows) for name, rows in store.tables.items()} | {EVENTS: len(store.events)}
    counts = " UNION ALL ".join(f"SELECT '{dataset}', count(*) FROM {dataset}" for dataset in expected)  # noqa: S608
    lake = dict(api.sql(counts))
    [[sales]] = api.sql("SELECT sum(amount::DECIMAL(18,2)) FROM harbour_deals")
    [[cost]] = api.sql(
        "SELECT (SELECT sum(cost_micros) / 1000000 FROM harbour_google_ads)::DECIMAL(18,2) "
        "+ (SELECT sum(spend::DECIMAL(18,2)) FROM harbour_meta_ads) "
        "+ (SELECT sum(costInLocalCurrency::DECIMAL(18,2)) FROM harbour_linkedin_ads) "
        "+ (SELECT sum(spend::DECIMAL(18,2)) FROM harbour_tiktok_ads)"
    )
    planned = sum((Decimal(campaign["cost"]) for campaign in store.truth["ad_campaigns"]), Decimal(0))
    return [
        *(
            Check(f"{dataset}, {place}", count, found.get(dataset, 0))
            for dataset, count in expected.items()
            for place, found in (("log", records), ("lake", lake))
        ),
        Check(
            "Won deals, euros",
            sum((Decimal(row["amount"]) for row in store.tables["harbour_deals"]), Decimal(0)),
            Decimal(sales),
        ),
        Check("Cost of ads, euros", planned, Decimal(cost)),
    ]


def tracking_gap(api: Client) -> tuple[int, int, str, str]:
    """Return the days on which Meta counted clicks and the shop saw none: how many, the clicks, the first, the last."""
    [[days, clicks, first, last]] = api.sql(_GAP)
    return int(days), int(clicks or 0), first or "", last or ""
