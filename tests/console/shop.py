"""A shop's contracts in a workspace of their own: versions that break or do not, who reads, what is unplanned."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.console.store import HOSTILE, second_person
from tests.system.installation import Installation
from tests.system.tenant import Tenant, ok

CONTRACT = "web-orders"
DATASET = "web_orders"
YAML = {"content-type": "application/yaml"}

ORDERS = """apiVersion: v3.1.0
kind: DataContract
id: web-orders
name: 'Orders {hostile}'
version: {version}
status: active
team:
  name: shop-data
schema:
  - name: web_orders
    logicalType: object
    properties:
      - {{name: order_id, logicalType: string, required: true}}
      - {{name: placed_at, logicalType: timestamp, required: true}}
      - {{name: email, logicalType: string, classification: restricted}}
      - {{name: amount, logicalType: {amount}, required: true, logicalTypeOptions: {{minimum: 0}}}}
      - name: shipping
        logicalType: object
        properties:
          - {{name: city, logicalType: string}}
{more}      - {{name: message_id, logicalType: string}}
"""

COUPON = "      - {name: coupon, logicalType: string}\n"
CHANNEL = "      - {name: channel, logicalType: string, required: true}\n"
VERSIONS = {
    "1.0.0": {"amount": "number", "more": ""},
    "1.1.0": {"amount": "number", "more": COUPON},
    "2.0.0": {"amount": "integer", "more": CHANNEL},
}
IN_FORCE = "1.1.0"
BREAKING = "2.0.0"


def document(version: str, **changes: str) -> str:
    """Return the contract's document as a version has it."""
    return ORDERS.format(hostile=HOSTILE.replace("'", "''"), version=version, **(VERSIONS.get(version, {}) | changes))


@dataclass(frozen=True)
class Shop:
    """The shop; what is in it is read from the API, never kept."""

    tenant: Tenant
    second_key: str
    """The key of a second person, who may approve."""

    def get(self, path: str, **query: Any) -> Any:
        """Return what a path answers."""
        return ok(self.tenant.http.get(path, params=query))

    def post(self, path: str, body: Any) -> Any:
        """Return what a path answers to a body."""
        return ok(self.tenant.http.post(path, json=body))

    def check(self, text: str) -> Any:
        """Return what is found in a document."""
        return self.post("/v1/contracts:check", {"document": text})


@contextlib.contextmanager
def open_shop(installation: Installation, admin: httpx.Client) -> Iterator[Shop]:
    """Make the shop."""
    tenant = Tenant.create(installation, admin, workspace="shop")
    with contextlib.closing(tenant.http):
        yield _fill(tenant)


def _fill(tenant: Tenant) -> Shop:
    for version in ("1.0.0", "1.1.0"):
        tenant.activate(document(version))
    ok(tenant.http.post("/v1/contracts", content=document(BREAKING).encode(), headers=YAML))
    for name, owner, fields in (
        (f"Report {HOSTILE}", "finance", ["coupon", "amount"]),
        ("labels", "logistics", ["shipping.city", "order_id"]),
    ):
        consumer = {"name": name, "dataset": DATASET, "owner": owner, "contact": f"{owner}@example.org"}
        ok(tenant.http.post("/v1/consumers", json=consumer | {"fields": fields}))
    orders = [
        {"message_id": f"o{number}", "order_id": f"{number}", "placed_at": "2026-11-01T10:00:00Z", "amount": number - 2}
        for number in range(10)
    ]
    tenant.append(DATASET, orders)
    source = {"display_name": "App", "mappings": [{"type": "identify", "dataset": "events"}]}
    write_key = ok(tenant.http.post("/v1/sources", json=source))["write_key"]
    assert tenant.send_events(write_key, _unplanned()).status_code == 200
    return Shop(tenant, second_person(tenant))


def _unplanned() -> list[dict[str, Any]]:
    """Return events that no mapping names: many of one name, one whose name tries to be markup."""
    begun = [
        {
            "type": "track",
            "event": "Checkout Started",
            "userId": f"u{number}",
            "messageId": f"c{number}",
            "timestamp": "2026-11-26T10:00:00Z",
            "properties": {
                "value": 10.5 + number,
                "currency": "EUR" if number % 3 else "USD",
                "email": f"person-{number}@example.org",
                **({"coupon": "SPRING"} if number % 4 == 0 else {}),
            },
        }
        for number in range(40)
    ]
    return [*begun, {"type": "track", "event": HOSTILE, "userId": "u1", "messageId": "hostile", "properties": {}}]
