"""What a stranger does with a Counterfoil that runs in containers, through its published port alone."""

from dataclasses import dataclass
from typing import Any

import httpx
from segment.analytics import Client

from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, sales_csv

EVENTS = 1000
PEOPLE = 50
DAYS = 120
PATIENCE = 60
"""Seconds that a call may take: containers that have just started on a busy machine are slow."""


@dataclass(frozen=True)
class Door:
    """The gateway's REST door, and the key of the principal `admin`."""

    url: str
    admin_key: str

    def http(self, key: str | None = None) -> httpx.Client:
        """Return a client of the door; without a key it shows none."""
        headers = {"Request-Timeout": f"{PATIENCE}"} | ({"X-Api-Key": key} if key else {})
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE + 5, trust_env=False)


@dataclass(frozen=True)
class Told:
    """A workspace in which everything was done once, and what must be there from now on."""

    tenant: Tenant
    write_key: str
    forecast: dict[str, Any]

    def close(self) -> None:
        """Close its connections; what was told stays."""
        self.tenant.http.close()


def tell(door: Door, workspace: str) -> Told:
    """Make a workspace; send events by Segment's client, import a file, train, forecast; check every answer."""
    with door.http(door.admin_key) as admin:
        tenant = Tenant.create(door, admin, workspace=workspace)  # type: ignore[arg-type]  # it needs the door alone
    try:
        return _tell(door, tenant)
    except BaseException:
        tenant.http.close()
        raise


def _tell(door: Door, tenant: Tenant) -> Told:
    _, write_key = tenant.source()
    send_events(door, write_key)
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    assert tenant.upload("sales", sales_csv(DAYS), form="csv", name="sales.csv")["state"] == "SUCCEEDED"
    ok(tenant.http.post("/v1/models", json={"model_id": "shops", **SALES_MODEL}))
    tenant.train("shops")
    told = Told(tenant, write_key, forecast(tenant))
    check(told)
    return told


def send_events(door: Door, write_key: str) -> None:
    """Send the same events every time with Segment's unmodified client."""
    failures: list[Any] = []
    client = Client(write_key, host=door.url, max_queue_size=EVENTS, on_error=lambda error, _: failures.append(error))
    for number in range(EVENTS):
        client.track(
            user_id=f"user-{number % PEOPLE}",
            event="Order Completed",
            properties={"total": number},
            message_id=f"smoke-{number}",
        )
    client.flush()
    client.shutdown()
    assert failures == []


def forecast(tenant: Tenant) -> dict[str, Any]:
    """Ask for a forecast."""
    return ok(tenant.http.post("/v1/forecasts", json={"model_id": "shops"}))


def check(told: Told) -> None:
    """Assert that everything told is there once, and that the forecast's receipt replays."""
    tenant = told.tenant
    events = "SELECT count(*), count(DISTINCT message_id), count(DISTINCT user_id) FROM events"
    assert tenant.sql(f"{events} WHERE message_id LIKE 'smoke-%'") == [[EVENTS, EVENTS, PEOPLE]]
    assert tenant.sql("SELECT shop, count(*) FROM sales GROUP BY 1 ORDER BY 1") == [["north", DAYS], ["south", DAYS]]
    receipt_id = told.forecast["receipt_id"]
    assert ok(tenant.http.get(f"/v1/receipts/{receipt_id}"))["output"] == f"forecasts/{told.forecast['forecast_id']}"
    replay = ok(tenant.http.post(f"/v1/receipts/{receipt_id}:replay", json={}))
    assert replay["outcome"] == "MATCH", replay
