"""The demo's steps up to the forecast, one call of the public API after the other."""

import time
from datetime import date, datetime, timedelta
from datetime import time as midnight_of
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from counterfoil_cli.client import ApiProblem, Client
from rich.progress import Progress, TaskID
from segment.analytics import Client as SegmentClient
from walkthrough.errors import DemoError
from walkthrough.loading import Check

from complete_journey.files import AFFILIATION, STORES_TIMEZONE, Order, Totals

MODEL = "department_demand"
SOURCE = "Web shop"
HORIZON_DAYS = 28
CONTRACTS = Path(__file__).parent / "contracts"
MAPPING = Path(__file__).parent / "mapping.yaml"

_POLL_SECONDS = 0.25
_FLUSH_EVERY = 500  # whole batches of the client's 100, so that no flush waits for a batch to fill


def set_timezone(api: Client) -> None:
    """Cut business days where the stores are."""
    api.request("PATCH", "/v1/workspaces/default", json={"timezone": STORES_TIMEZONE})


def send_orders(orders: list[Order], *, key: str, host: str, progress: Progress, task: TaskID) -> None:
    """Send the orders with Segment's own Python client, as a web shop does; raise when it gives up on one."""
    failures: list[str] = []
    client = SegmentClient(
        key, host=host, on_error=lambda error, batch: failures.append(f"{error}: {len(batch)} events")
    )
    progress.update(task, total=len(orders), unit="events")
    for number, order in enumerate(orders, start=1):
        client.track(
            user_id=order.household,
            event="Order Completed",
            properties=order.properties,
            timestamp=order.paid_at,
            message_id=order.message_id,
        )
        if number % _FLUSH_EVERY == 0 or number == len(orders):
            client.flush()
            progress.update(task, completed=number)
    client.shutdown()
    if failures:
        raise DemoError(f"The Segment client could not deliver every event: {failures[0]}")


def count_orders(api: Client) -> int:
    """Return how many of the demo's orders are there already."""
    if not any(dataset["dataset"] == "events" for dataset in api.pages("/v1/datasets", "datasets")):
        return 0
    return int(_order_figures(api)[0])


def check_figures(api: Client, totals: Totals, orders: list[Order]) -> list[Check]:
    """Ask Counterfoil for the figures that the source files have."""
    records = {dataset["dataset"]: dataset["records"] for dataset in api.pages("/v1/datasets", "datasets")}
    counts = " UNION ALL ".join(f"SELECT '{dataset}', count(*) FROM {dataset}" for dataset in totals.rows)  # noqa: S608
    lake = dict(api.sql(counts))
    [[sales, shoppers]] = api.sql(
        "SELECT sum(sales_value::DECIMAL(18,2)), count(DISTINCT household_id) FROM transactions"
    )
    [[unmatched, unmatched_sales]] = api.sql(
        "SELECT count(*), sum(t.sales_value::DECIMAL(18,2)) FROM transactions t "
        "LEFT JOIN products p USING (product_id) WHERE p.product_id IS NULL"
    )
    [[repeated]] = api.sql("SELECT count(*) - count(DISTINCT (coupon_upc, product_id, campaign_id)) FROM coupons")
    delivered, distinct, ordered = _order_figures(api)
    return [
        *(
            Check(f"{dataset}, {place}", expected, found.get(dataset, 0))
            for dataset, expected in totals.rows.items()
            for place, found in (("log", records), ("lake", lake))
        ),
        Check("Sales, US dollars", totals.sales, Decimal(sales)),
        Check("Households that shopped", totals.shoppers, shoppers),
        Check("Transactions of unknown products", totals.unmatched, unmatched),
        Check("Their sales, US dollars", totals.unmatched_sales, Decimal(unmatched_sales)),
        Check("Coupons that repeat another exactly", totals.repeated_coupons, repeated),
        Check("Live orders", len(orders), delivered),
        Check("Live orders with different ids", len({order.message_id for order in orders}), distinct),
        Check("Sales in live orders, US dollars", sum((order.total for order in orders), Decimal(0)), ordered),
    ]


def _order_figures(api: Client) -> tuple[int, int, Decimal]:
    """Return how many of the demo's orders there are, how many have different ids, and their sum."""
    [[delivered, distinct, total]] = api.sql(
        "SELECT count(*), count(DISTINCT message_id), "
        "coalesce(sum(json_extract_string(properties, '$.total')::DECIMAL(18,2)), 0) FROM events "
        "WHERE event = 'Order Completed' AND json_extract_string(properties, '$.affiliation') = ?",
        AFFILIATION,
    )
    return delivered, distinct, Decimal(total)


def create_model(api: Client) -> dict[str, Any]:
    """Return the demo's model, created when it does not exist yet."""
    try:
        return api.get(f"/v1/models/{MODEL}")
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
    return api.post(
        "/v1/models",
        {
            "model_id": MODEL,
            "display_name": "Daily sales per department",
            "purpose": "demand_planning",
            "impact_tier": "IMPACT_TIER_MEDIUM",
            "forecast": {
                "series": {
                    "dataset": "transactions",
                    "time_field": "transaction_timestamp",
                    "value_field": "sales_value",
                    "aggregation": "SUM",
                    "lookup": {"dataset": "products", "key": "product_id"},
                    "dimension": "department",
                },
                "horizon_days": HORIZON_DAYS,
                "season_days": 7,
                "min_active_days": 300,
            },
        },
    )


def champion(api: Client, model: dict[str, Any]) -> dict[str, Any] | None:
    """Return the version that serves, with its backtest, or None."""
    if not model["champion_version"]:
        return None
    return api.get(f"/v1/models/{MODEL}/versions/{model['champion_version']}")


def train_version(api: Client) -> dict[str, Any]:
    """Train a version of the model to its end; it must have passed its backtest."""
    versions = f"/v1/models/{MODEL}/versions"
    version = api.post(f"{versions}:train")
    path = f"{versions}/{version['version']}"
    while version["state"] in ("DRAFT", "TRAINED") and "error" not in version:
        time.sleep(_POLL_SECONDS)
        version = api.get(path)
    if version["state"] != "VALIDATED":
        why = version.get("error", {}).get("detail", "its backtest did not pass")
        raise DemoError(f"Version {version['version']} of {MODEL} is {version['state']}: {why}")
    return version


def create_forecast(api: Client, *, traceparent: str) -> dict[str, Any]:
    """Forecast every department under the caller's trace."""
    headers = {"traceparent": traceparent, "Request-Timeout": "60"}
    return api.post("/v1/forecasts", {"model_id": MODEL}, headers=headers, timeout=65)


def recent_sales(api: Client, forecast: dict[str, Any]) -> dict[str, Decimal]:
    """Return each department's sales in the days of history right before the forecast, as many as it has ahead."""
    zone = ZoneInfo(forecast["timezone"])
    after_last = date.fromisoformat(forecast["series"][0]["last_day"]) + timedelta(days=1)
    start = datetime.combine(after_last - timedelta(days=forecast["horizon_days"]), midnight_of(), zone)
    end = datetime.combine(after_last, midnight_of(), zone)
    rows = api.sql(
        "SELECT p.department, sum(t.sales_value::DECIMAL(18,2)) FROM transactions t JOIN products p USING (product_id) "
        "WHERE t.transaction_timestamp >= ?::TIMESTAMPTZ AND t.transaction_timestamp < ?::TIMESTAMPTZ GROUP BY 1",
        start.isoformat(),
        end.isoformat(),
    )
    return {department: Decimal(total) for department, total in rows}
