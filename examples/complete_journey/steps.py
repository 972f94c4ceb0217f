"""The demo's steps, one call of the public API after the other."""

import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as midnight_of
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from counterfoil_cli.client import ApiProblem, Client
from journey import AFFILIATION, Order, Totals
from rich.progress import Progress, TaskID
from segment.analytics import Client as SegmentClient

TIMEZONE = "America/New_York"
MODEL = "department_sales"
SOURCE = "Web shop"
HORIZON_DAYS = 28

_POLL_SECONDS = 0.25
_FLUSH_EVERY = 500  # whole batches of the client's 100, so that no flush waits for a batch to fill
_CONTRACTS = Path(__file__).parent / "contracts"


class DemoError(Exception):
    """Ends the demo; its text is one sentence that says what went wrong."""


@dataclass(frozen=True)
class Check:
    """One figure, as the source files have it and as Counterfoil answers it."""

    what: str
    expected: int | Decimal
    found: int | Decimal

    @property
    def exact(self) -> bool:
        """Whether the two are the same to the record and the cent."""
        return self.expected == self.found


def set_timezone(api: Client) -> None:
    """Cut business days where the stores are."""
    api.request("PATCH", "/v1/workspaces/default", json={"timezone": TIMEZONE})


def activate_contracts(api: Client) -> list[str]:
    """Submit both contracts and put them in force; return them as `id version`."""
    names = []
    for file in sorted(_CONTRACTS.glob("*.odcs.yaml")):
        version = api.submit_contract(file.read_bytes())
        if version["state"] != "ACTIVE":
            raise DemoError(f"The contract in {file.name} was kept as {version['state']}, not activated.")
        names.append(f"{version['contract_id']} {version['version']}")
    return names


def import_file(api: Client, file: Path, *, dataset: str, progress: Progress, task: TaskID) -> dict[str, Any]:
    """Upload a file and follow its import to the end; every row must be accepted or known already."""
    progress.update(task, total=file.stat().st_size, unit="bytes")
    started = api.upload_import(
        file, dataset=dataset, file_format=file.suffix[1:], on_bytes=lambda count: progress.advance(task, count)
    )
    found = started
    for found in api.follow_import(started["import_id"]):
        progress.update(task, total=found["rows_total"] or None, completed=found["rows_read"], unit="rows")
    if found["state"] == "FAILED":
        raise DemoError(f"The import of {file.name} failed: {found['error']['detail']} ({found['error']['reason']})")
    if found["rows_quarantined"]:
        raise DemoError(f"{found['rows_quarantined']} rows of {file.name} broke their contract; see /v1/quarantine.")
    return found


def write_key(api: Client) -> str:
    """Return a new write key of the demo's source, made when it does not exist yet.

    A key is shown once, so a second run gives the same source a new key: its events are then known by their ids.
    """
    for source in api.pages("/v1/sources", "sources"):
        if source["display_name"] == SOURCE:
            rotated = api.post(f"/v1/sources/{source['source_id']}:rotate_key", {"keep_previous_for": "0s"})
            return str(rotated["write_key"])
    return str(api.post("/v1/sources", {"display_name": SOURCE})["write_key"])


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
    [[products]] = api.sql("SELECT count(*) FROM products")
    [[transactions, sales]] = api.sql("SELECT count(*), sum(sales_value::DECIMAL(18,2)) FROM transactions")
    [[unmatched, unmatched_sales]] = api.sql(
        "SELECT count(*), sum(t.sales_value::DECIMAL(18,2)) FROM transactions t "
        "LEFT JOIN products p USING (product_id) WHERE p.product_id IS NULL"
    )
    delivered, distinct, ordered = _order_figures(api)
    return [
        Check("Products in the log", totals.products, records.get("products", 0)),
        Check("Products in the lake", totals.products, products),
        Check("Transactions in the log", totals.transactions, records.get("transactions", 0)),
        Check("Transactions in the lake", totals.transactions, transactions),
        Check("Sales, US dollars", totals.sales, Decimal(sales)),
        Check("Transactions of unknown products", totals.unmatched, unmatched),
        Check("Their sales, US dollars", totals.unmatched_sales, Decimal(unmatched_sales)),
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


def train_champion(api: Client, model: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the version that serves and whether it was trained just now; an earlier run's champion stays."""
    versions = f"/v1/models/{MODEL}/versions"
    if model["champion_version"]:
        return api.get(f"{versions}/{model['champion_version']}"), False
    version = api.post(f"{versions}:train")
    path = f"{versions}/{version['version']}"
    while version["state"] in ("DRAFT", "TRAINED") and "error" not in version:
        time.sleep(_POLL_SECONDS)
        version = api.get(path)
    if version["state"] != "VALIDATED":
        why = version.get("error", {}).get("detail", "its backtest did not pass")
        raise DemoError(f"Version {version['version']} of {MODEL} is {version['state']}: {why}")
    api.post(f"{path}:promote", {"reason": "The first version that passed its backtest."})
    return api.get(path), True


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


def read_receipt(api: Client, receipt_id: str) -> dict[str, Any]:
    """Return what stands behind an output."""
    return api.get(f"/v1/receipts/{receipt_id}")


def replay_receipt(api: Client, receipt_id: str) -> dict[str, Any]:
    """Make the output again from its cited inputs and compare."""
    return api.post(f"/v1/receipts/{receipt_id}:replay", headers={"Request-Timeout": "60"}, timeout=65)
