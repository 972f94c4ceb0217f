"""A small store in a workspace of its own: what the console shows of it is known to the last digit.

Half of its households were sent a mailing, and those bought twice as much before it was sent; names try to be markup.
"""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.system.installation import Installation, until
from tests.system.tenant import Tenant, ok

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
MODEL = "store_sales"
SECOND_PERSON = "bea"
FIRST_DAY = datetime(2025, 1, 1, 15, tzinfo=UTC)
DAYS = 100
MAILED_ON = 45
HOUSEHOLDS = 60

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: store
name: 'Sales of the store {hostile}'
version: 1.0.0
status: active
schema:
  - name: sales
    logicalType: object
    properties:
      - {{name: sold_at, logicalType: timestamp, required: true}}
      - {{name: shop, logicalType: string, required: true}}
      - {{name: household_id, logicalType: string, required: true}}
      - {{name: basket_id, logicalType: string, required: true}}
      - {{name: amount, logicalType: number, required: true, logicalTypeOptions: {{minimum: 0}}}}
      - {{name: discount, logicalType: number, required: true}}
      - {{name: message_id, logicalType: string}}
"""

MADE_UP = """
apiVersion: v3.1.0
kind: DataContract
id: store-mailings
name: Mailings
version: 1.0.0
status: active
tags: [crm, synthetic]
schema:
  - name: mailings
    logicalType: object
    properties:
      - {name: household_id, logicalType: string, required: true}
      - {name: campaign, logicalType: string, required: true}
      - {name: sent_at, logicalType: timestamp, required: true}
      - {name: message_id, logicalType: string}
"""

MAPPING = """
mapping: store
datasets:
  sales:
    time: sold_at
    identifiers: [{type: household_id, field: household_id}]
    conversions: [{type: basket, key: basket_id, value: amount, currency: {const: USD}}]
  mailings:
    time: sent_at
    identifiers: [{type: household_id, field: household_id}]
    nodes: [{type: campaign, key: campaign}]
    edges: [{type: assigned_to, from: person, to: {type: campaign, key: campaign}}]
    touchpoints: [{type: assigned, channel: {const: mailing}, campaign: campaign}]
"""

FORECAST = {
    "series": {
        "dataset": "sales",
        "time_field": "sold_at",
        "value_field": "amount",
        "aggregation": "SUM",
        "dimension": "shop",
    },
    "horizon_days": 7,
    "season_days": 7,
    "min_active_days": 60,
}

ATTRIBUTION = {
    "conversion_type": "basket",
    "first_day": "2025-01-01",
    "last_day": "2025-04-10",
    "subject": "CAMPAIGN",
    "window": "LOOKBACK",
    "lookback_days": 30,
}

LIFT = {
    "name": f"Mailing {HOSTILE}",
    "outcome": {
        "dataset": "sales",
        "unit_field": "household_id",
        "unit_type": "household_id",
        "time_field": "sold_at",
        "value_field": "amount",
        "currency": "USD",
        "count_field": "basket_id",
        "cost_fields": ["discount"],
    },
    "assignment": {"dataset": "mailings", "unit_field": "household_id"},
    "first_day": "2025-02-15",
    "last_day": "2025-04-10",
    "pre_first_day": "2025-01-01",
    "pre_last_day": "2025-02-14",
}


@dataclass(frozen=True)
class Store:
    """The store, and what was asked of it; figures are read from the API, never kept."""

    tenant: Tenant
    second_key: str
    """The key of a second person, who may approve."""
    person_id: str
    """Somebody with several identifiers, one of them hostile."""
    forecast: dict[str, Any]
    attribution: dict[str, Any]
    lift: dict[str, Any]
    change_id: str
    """A promotion that waits for the second person."""

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Return what the API answers."""
        return ok(self.tenant.http.get(path, params=query))

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """Post and return what the API answers."""
        return ok(self.tenant.http.post(path, json=body, headers={"Request-Timeout": "60"}))


@contextlib.contextmanager
def open_store(installation: Installation, admin: httpx.Client) -> Iterator[Store]:
    """Make the workspace, send its records, and ask for one output of each kind."""
    tenant = Tenant.create(installation, admin, workspace="console-store")
    with contextlib.closing(tenant.http):
        yield _fill(tenant)


def _fill(tenant: Tenant) -> Store:
    tenant.activate(CONTRACT.format(hostile=HOSTILE.replace("'", "''")))
    tenant.activate(MADE_UP)
    ok(tenant.http.post("/v1/graph/mappings", content=MAPPING.encode(), headers={"content-type": "application/yaml"}))
    sales, mailings = _records()
    for begin in range(0, len(sales), 2000):
        tenant.append("sales", sales[begin : begin + 2000])
    tenant.append("mailings", mailings)
    tenant.append("sales", [{"message_id": "broken", "sold_at": "2025-01-01T00:00:00Z", "shop": "north", "amount": -1}])
    _, write_key = tenant.source(f"Shop {HOSTILE}")
    assert tenant.send_events(write_key, _events()).status_code == 200
    ok(tenant.http.post("/v1/consents", json={"consents": _consents()}))
    ok(tenant.http.post("/v1/models", json=_model(MODEL, "IMPACT_TIER_LOW", f"Sales {HOSTILE}")))
    tenant.train(MODEL)
    forecast = ok(tenant.http.post("/v1/forecasts", json={"model_id": MODEL}))
    change_id = _waiting_promotion(tenant)
    _wait_for_graph(tenant)
    person = ok(tenant.http.post("/v1/persons:lookup", json={"type": "user_id", "value": HOSTILE}))
    slow = {"Request-Timeout": "60"}
    attribution = ok(tenant.http.post("/v1/attribution", json={"spec": ATTRIBUTION}, headers=slow))
    lift = ok(tenant.http.post("/v1/lift", json={"spec": LIFT}, headers=slow))

    def in_ledger() -> bool | None:
        return len(ok(tenant.http.get("/v1/receipts"))["receipts"]) == 3 or None

    until(in_ledger, seconds=60, what="the ledger has not three receipts")
    return Store(tenant, second_person(tenant), person["person_id"], forecast, attribution, lift, change_id)


def _records() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return baskets by chance, and a mailing to the first half of the households, who buy twice as often."""
    chance = random.Random(7)
    sales = []
    for day in range(DAYS):
        for number in range(HOUSEHOLDS):
            if chance.random() < (0.6 if number < HOUSEHOLDS // 2 else 0.3):
                at = FIRST_DAY + timedelta(days=day, minutes=number)
                sales.append(
                    {
                        "message_id": f"s{day}-{number}",
                        "sold_at": at.isoformat(),
                        "shop": "north" if number % 2 else "south",
                        "household_id": f"h{number}",
                        "basket_id": f"b{day}-{number}",
                        "amount": round(20 + 10 * chance.random() + day % 7, 2),
                        "discount": 0.5 if number < HOUSEHOLDS // 2 and day >= MAILED_ON else 0.0,
                    }
                )
    sent = (FIRST_DAY + timedelta(days=MAILED_ON)).isoformat()
    mailings = [
        {"message_id": f"m{number}", "household_id": f"h{number}", "campaign": HOSTILE, "sent_at": sent}
        for number in range(HOUSEHOLDS // 2)
    ]
    return sales, mailings


def _events() -> list[dict[str, Any]]:
    """Return events of a person on two devices, and of another one who used the second device once."""
    at = "2025-04-01T10:00:00Z"
    user = {"type": "identify", "userId": HOSTILE, "timestamp": at}
    clicked = {"campaign": {"name": HOSTILE, "medium": "email", "source": "news"}}
    return [
        user | {"anonymousId": "device-1", "traits": {"email": "ada@example.org"}, "messageId": "e1"},
        user | {"anonymousId": "device-2", "messageId": "e2"},
        {"type": "identify", "userId": "grace", "anonymousId": "device-2", "timestamp": at, "messageId": "e3"},
        {"type": "page", "userId": HOSTILE, "context": clicked, "timestamp": "2025-04-02T10:00:00Z", "messageId": "e4"},
        {
            "type": "track",
            "userId": HOSTILE,
            "event": "Order Completed",
            "properties": {"order_id": "o1", "total": 12.5, "currency": "USD"},
            "timestamp": "2025-04-03T10:00:00Z",
            "messageId": "e5",
        },
    ]


def _consents() -> list[dict[str, Any]]:
    """Return a legal basis for all households but two, who are left out and counted."""
    return [
        {
            "subject": {"type": "household_id", "value": f"h{number}"},
            "purpose": "measurement",
            "state": "GRANTED",
            "basis": "LEGITIMATE_INTEREST",
            "happened_at": "2024-12-01T00:00:00Z",
        }
        for number in range(HOUSEHOLDS - 2)
    ]


def _model(model_id: str, tier: str, name: str) -> dict[str, Any]:
    return {"model_id": model_id, "display_name": name, "impact_tier": tier, "forecast": FORECAST}


def _waiting_promotion(tenant: Tenant) -> str:
    """Train a model of medium impact and ask a second person to let it serve."""
    ok(tenant.http.post("/v1/models", json=_model("steering", "IMPACT_TIER_MEDIUM", "Steering")))
    versions = "/v1/models/steering/versions"
    version = ok(tenant.http.post(f"{versions}:train", json={}))["version"]

    def ended() -> bool | None:
        found = ok(tenant.http.get(f"{versions}/{version}"))
        assert "error" not in found, found
        return True if found["state"] == "VALIDATED" else None

    until(ended, seconds=60, what="the training has not ended")
    asked = {"reason": f"Better {HOSTILE}", "request_approval": True}
    return ok(tenant.http.post(f"{versions}/{version}:promote", json=asked))["change_id"]


def second_person(tenant: Tenant) -> str:
    """Return the key of somebody else with every scope that reading and approving need."""
    principal = {"principal_id": SECOND_PERSON, "kind": "HUMAN", "roles": ["reviewer"]}
    ok(tenant.http.post("/v1/principals", json=principal))
    [role] = [role for role in ok(tenant.http.get("/v1/roles"))["roles"] if role["role"] == "reviewer"]
    key = {"principal_id": SECOND_PERSON, "display_name": "review", "scopes": role["scopes"]}
    return ok(tenant.http.post("/v1/keys", json=key))["api_key"]


def _wait_for_graph(tenant: Tenant) -> None:
    """Wait until the graph has read everything that was sent."""
    snapshots = [ok(tenant.http.post("/v1/snapshots", json={"dataset": name})) for name in ("events", "sales")]
    head = max(place["offset"] for snapshot in snapshots for place in snapshot["offsets"])

    def read() -> bool | None:
        found = tenant.http.get("/v1/graph")
        if found.status_code == 503:
            return None  # it reads the log again under the new mapping
        graph = ok(found)
        return True if not graph["rebuilding"] and graph["state"]["next_offset"] >= head else None

    until(read, seconds=60, what="the graph has not caught up")
