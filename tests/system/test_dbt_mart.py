"""The dbt project of the examples builds its mart from a real installation, in an environment of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.bench.rivals import ENVIRONMENTS
from tests.system.tenant import Tenant, ok

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "examples" / "dbt_mart"
DAYS = ("2017-03-01", "2017-03-02")


@pytest.fixture(scope="module")
def environment() -> Path:
    """An environment with what the project needs, made once and kept; skip where it cannot be installed."""
    folder = ENVIRONMENTS / "dbt-mart"
    pinned = (PROJECT / "requirements.txt").read_bytes()
    ready = folder / "ready"
    if not ready.exists() or ready.read_bytes() != pinned:
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
        uv = str(Path(sys.executable).with_name("uv"))
        install = [uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(folder / "bin" / "python")]
        done = subprocess.run(
            [*install, "-r", str(PROJECT / "requirements.txt")],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            pytest.skip(f"dbt cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        ready.write_bytes(pinned)
    return folder


@pytest.fixture(scope="module")
def shop(tenant: Tenant) -> Tenant:
    """A workspace with spend of two days, restated once, and three orders."""
    tenant.activate((ROOT / "examples/ad_spend/contracts/ad_spend.odcs.yaml").read_text())
    spend = [
        _spend(DAYS[0], "spring", 10_000_000, snapshot="2017-03-02T00:00:00Z"),
        _spend(DAYS[0], "spring", 12_500_000, snapshot="2017-03-03T00:00:00Z"),
        _spend(DAYS[1], "spring", 4_000_000, snapshot="2017-03-03T00:00:00Z"),
    ]
    assert {each["outcome"] for each in tenant.append("ad_spend", spend)} == {"ACCEPTED"}
    orders = [
        _order(1, f"{DAYS[0]}T10:00:00Z", "20.50", "spring"),
        _order(2, f"{DAYS[0]}T11:00:00Z", "9.50", "spring"),
        _order(3, f"{DAYS[1]}T10:00:00Z", "5", None),
    ]
    assert {each["outcome"] for each in tenant.append("events", orders)} == {"ACCEPTED"}
    return tenant


def test_builds_a_mart_of_spend_and_orders_whose_sources_have_receipts(shop: Tenant, environment: Path, tmp_path: Path):
    done = subprocess.run(
        [str(environment / "bin" / "dbt"), "build", "--profiles-dir", str(PROJECT), "--project-dir", str(PROJECT)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "MART_FILE": str(tmp_path / "mart.duckdb"),
            "DBT_PROJECT_DIR": str(PROJECT),
            "DBT_TARGET_PATH": str(tmp_path / "target"),
            "DBT_LOG_PATH": str(tmp_path / "logs"),
            "COUNTERFOIL_URL": shop.installation.url,
            "DBT_ENV_SECRET_COUNTERFOIL_KEY": shop.key,
            "PYTHONPYCACHEPREFIX": str(environment / "bytecode"),  # none beside the project
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert shop.key not in done.stdout + "".join(each.read_text() for each in (tmp_path / "logs").glob("*"))
    rows = _mart(environment, tmp_path / "mart.duckdb")
    assert [row[:6] for row in rows] == [
        ["2017-03-01", "spring", 12.5, 3, 2, 30.0],
        ["2017-03-02", "none", 0.0, 0, 1, 5.0],
        ["2017-03-02", "spring", 4.0, 3, 0, 0.0],
    ]
    for receipt_id in {each for row in rows for each in row[6:] if each}:
        replayed = ok(shop.http.post(f"/v1/receipts/{receipt_id}:replay", json={}))
        assert replayed["outcome"] == "MATCH"


def _mart(environment: Path, file: Path) -> list[list[Any]]:
    code = f"""import duckdb, json
sql = '''SELECT day::VARCHAR, campaign, spend::DOUBLE, clicks::BIGINT, orders::BIGINT, revenue::DOUBLE,
    spend_receipt_id, orders_receipt_id FROM campaign_days ORDER BY day, campaign'''
print(json.dumps(duckdb.connect({str(file)!r}, read_only=True).sql(sql).fetchall()))"""
    found = subprocess.run(
        [str(environment / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    )
    rows: list[list[Any]] = json.loads(found.stdout)
    return rows


def _spend(day: str, campaign: str, micros: int, *, snapshot: str) -> dict[str, Any]:
    return {
        "platform": "google_ads",
        "account_id": "1",
        "campaign_id": "c1",
        "campaign_name": campaign,
        "date_day": day,
        "currency": "EUR",
        "spend_micros": micros,
        "impressions": 100,
        "clicks": 3,
        "conversion_action": "",
        "attribution_window": "",
        "report_timezone": "Europe/Berlin",
        "snapshot_at": snapshot,
        "is_final": False,
    }


def _order(number: int, at: str, revenue: str, campaign: str | None) -> dict[str, Any]:
    return {
        "message_id": f"o{number}",
        "type": "track",
        "event": "Order Completed",
        "timestamp": at,
        "properties": {"revenue": orjson.Fragment(revenue)},
        "context": {"campaign": {"name": campaign}} if campaign else {},
    }
