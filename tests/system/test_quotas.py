"""Quotas of a workspace, set by whoever runs the installation, held at every door that records come in by."""

import itertools

import httpx

from tests.system.installation import until
from tests.system.tenant import DAY_SALES, Tenant, ok, problem, sales_csv


def test_beyond_its_quota_a_workspace_is_told_to_come_later_and_nothing_is_dropped(tenant: Tenant, admin: httpx.Client):
    def set_quotas(**quotas: int) -> None:
        ok(admin.post(f"/v1/workspaces/{tenant.workspace}:set_quotas", json={"quotas": quotas}))

    tenant.activate(DAY_SALES.format(version="1.0.0"))
    _, write_key = tenant.source()
    number = itertools.count()

    def send() -> httpx.Response:
        return tenant.send_events(
            write_key, [{"type": "track", "event": "Q", "userId": "u", "messageId": f"q{next(number)}"}]
        )

    assert send().status_code == 200
    set_quotas(records_per_day=3)
    refused = until(lambda: None if (answer := send()).status_code == 200 else answer, seconds=60, what="no bound")
    told = problem(refused, status=429, reason="QUOTA_EXCEEDED")
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert "may bring 3" in told["detail"]
    records = tenant.http.post(
        "/v1/datasets/sales/records", json=[{"sold_at": "2025-01-01T00:00:00Z", "shop": "n", "amount": 1}]
    )
    problem(records, status=429, reason="QUOTA_EXCEEDED")
    upload = tenant.http.post("/v1/imports", params={"dataset": "sales", "format": "csv"}, content=sales_csv(5))
    problem(upload, status=429, reason="QUOTA_EXCEEDED")
    assert ok(tenant.http.get(f"/v1/workspaces/{tenant.workspace}"))["quotas"]["records_per_day"] == 3
    own = tenant.http.post(f"/v1/workspaces/{tenant.workspace}:set_quotas", json={"quotas": {}})
    problem(own, status=403, reason="SCOPE_MISSING")
    set_quotas()
    until(lambda: True if send().status_code == 200 else None, seconds=60, what="the bound is still there")
    kept = tenant.sql("SELECT count(*) FROM events WHERE event = 'Q'")[0][0]
    assert 4 <= kept < next(number)
