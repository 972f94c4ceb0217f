"""`counterfoil sync`: what a source has new comes in by a connector, once, and goes on where the last run ended."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_postgresql.dbapi as postgresql
import orjson
import pytest
from click.testing import CliRunner, Result
from counterfoil_cli.__main__ import main

from tests.connectors.hubspot_server import TOKEN, HubSpot, hubspot
from tests.postgres import Server
from tests.system.installation import COMMAND
from tests.system.tenant import Tenant, ok, problem

CONTRACT = Path(__file__).parents[2] / "examples" / "hubspot" / "contracts" / "hubspot.odcs.yaml"
NEWEST = """
    SELECT id, properties->>'lifecyclestage', archived FROM hubspot_contacts
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY "updatedAt" DESC) = 1 ORDER BY id
"""
ORDERS = """
apiVersion: v3.1.0
kind: DataContract
id: shop-orders
name: Orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: total, logicalType: number}
      - {name: seen_at, logicalType: timestamp}
      - {name: on_day, logicalType: date}
      - {name: more, logicalType: object}
      - {name: changed, logicalType: timestamp}
"""


@pytest.fixture
def shop(make_tenant: Callable[[str], Tenant]) -> Tenant:
    """A workspace of the test's own."""
    return make_tenant("syncs")


@pytest.fixture
def portal() -> Iterator[HubSpot]:
    """A HubSpot on this machine."""
    with hubspot() as served:
        yield served


def environment(shop: Tenant) -> dict[str, str]:
    """Return what the command is told by the environment."""
    return {"COUNTERFOIL_URL": shop.installation.url, "COUNTERFOIL_API_KEY": shop.key}


def sync(shop: Tenant, folder: Path, *arguments: str, secret: str = TOKEN) -> Result:
    """Run the command with the secret in a file."""
    (folder / "secret").write_text(secret + "\n")
    done = CliRunner().invoke(main, ["sync", *arguments], env=environment(shop))
    assert secret not in done.output
    return done


def test_hubspot_comes_in_by_changes_and_again_after_a_revert(shop: Tenant, portal: HubSpot, tmp_path: Path):
    arguments = ("hubspot", "--parameter", f"api_url={portal.url}", "--secret", f"token={tmp_path / 'secret'}")
    shop.activate(CONTRACT.read_text())
    home = tmp_path / "home"
    home.mkdir()
    told = {"HOME": str(home), "RUNTIME__LOG_LEVEL": "DEBUG", "COUNTERFOIL_HUBSPOT_TOKEN": TOKEN, **environment(shop)}
    first = subprocess.run(
        [COMMAND, "sync", *arguments[:3]], capture_output=True, text=True, timeout=120, check=False, cwd=home, env=told
    )
    assert first.stdout == "hubspot: 1 imports; rows: 4 read, 4 accepted, 0 duplicate, 0 quarantined.\n", first
    assert (first.returncode, TOKEN in first.stderr, list(home.iterdir())) == (0, False, [])
    assert shop.sql(NEWEST) == [["51", "customer", False], ["52", "lead", False], ["53", "subscriber", True]]
    answer = portal.answer
    portal.answer = lambda *asked: (403, {}) if "deals" in asked[1] else answer(*asked)  # type: ignore[method-assign]
    portal.change("contacts", 1, "2026-02-03T10:00:00.001Z", lifecyclestage="opportunity")
    broken = sync(shop, tmp_path, *arguments)
    assert (broken.exit_code, " 1 accepted, " in broken.stdout) == (1, True), broken.output
    assert "403" in broken.stderr
    assert "SOURCE_FAILED" in broken.stderr
    assert shop.sql(NEWEST)[1] == ["52", "opportunity", False]  # what it brought stays, and where it was
    changed, whole = ok(shop.http.get("/v1/imports", params={"connection": "hubspot"}))["imports"]
    assert ok(shop.http.get("/v1/connections/hubspot"))["import_id"] == changed["import_id"]
    ok(shop.http.post(f"/v1/imports/{changed['import_id']}:revert", json={"reason": "to be read again"}))
    shop.ended_import(changed["import_id"])
    assert shop.sql(NEWEST)[1] == ["52", "lead", False]
    assert ok(shop.http.get("/v1/connections/hubspot"))["import_id"] == whole["import_id"]
    # Who began before that revert and uploads only now is told so, rather than leave a gap.
    late = {"format": "airbyte", "connection": "hubspot", "continues": changed["import_id"]}
    problem(shop.http.post("/v1/imports", params=late, content=b"{}\n"), status=400, reason="CONNECTION_MOVED")
    portal.answer = answer  # type: ignore[method-assign]
    again = sync(shop, tmp_path, *arguments)
    assert (again.exit_code, " 1 accepted, " in again.stdout) == (0, True), again.output
    assert shop.sql(NEWEST)[1] == ["52", "opportunity", False]


def test_what_is_wrong_about_a_run_is_said_before_it(shop: Tenant, tmp_path: Path):
    problem(shop.http.get("/v1/connections/nobody"), status=404, reason="CONNECTION_NOT_FOUND")
    shop.activate(CONTRACT.read_text())
    rows = {"format": "csv", "dataset": "hubspot_deals", "connection": "hubspot"}
    problem(shop.http.post("/v1/imports", params=rows, content=b"id\n1\n"), status=400, reason="UPLOAD_INVALID")
    for arguments, told in (
        (["salesforce"], "There are: hubspot, postgresql"),
        (["postgresql", "--parameter", "uri=postgresql://u@h/d"], "say --secret"),
        (["postgresql", "--secret", f"uri={tmp_path / 'none'}"], "cannot be read"),
        (["hubspot"], "`token` is missing"),
        (["hubspot", "--parameter", "shop=1"], "no parameter `shop`"),
    ):
        refused = sync(shop, tmp_path, *arguments)
        assert (refused.exit_code, told in refused.stderr) == (2, True), refused.output
    assert ok(shop.http.get("/v1/imports")).get("imports", []) == []


def test_a_table_of_postgresql_comes_in_with_its_types(shop: Tenant, postgres: Server, tmp_path: Path):
    url = f"{postgres.url}/postgres"

    def run(*statements: str) -> None:
        with postgresql.connect(url) as connection, connection.cursor() as cursor:
            for each in statements:
                cursor.execute(each)
            connection.commit()

    run(
        "DROP TABLE IF EXISTS synced",
        "CREATE TABLE synced "
        "(id bigint, total numeric(12, 2), seen_at timestamptz, on_day date, more jsonb, changed timestamptz)",
        "INSERT INTO synced SELECT n, n + 0.25, '2026-01-01T00:00:00.5+01', '2026-01-01', '{\"a\": [1]}', "
        "timestamptz '2026-02-01' + n * interval '1 minute' FROM generate_series(1, 2000) AS n",
    )
    shop.activate(ORDERS)
    arguments = [
        "postgresql", "--connection", "shop", "--secret", f"uri={tmp_path / 'secret'}", "--parameter", "stream=orders",
        "--parameter", "table=synced", "--parameter", "cursor=changed", "--parameter", "key=id",
    ]  # fmt: skip
    assert " 2,000 accepted, " in sync(shop, tmp_path, *arguments, secret=url).stdout
    assert shop.sql("SELECT count(*), sum(total), max(seen_at), max(on_day), max(more) FROM orders") == [
        [2000, 2_001_500.0, "2025-12-31T23:00:00.500000Z", "2026-01-01", '{"a":[1]}']
    ]
    run("UPDATE synced SET total = 7, changed = '2026-03-01' WHERE id <= 3")
    again = sync(shop, tmp_path, *arguments, secret=url)
    assert " 3 accepted, " in again.stdout, again
    assert shop.sql("SELECT count(*) FROM orders") == [[2003]]
    state = orjson.loads(ok(shop.http.get("/v1/connections/shop"))["source_state"])
    assert state[0]["stream"]["stream_state"] == {"cursor": "2026-03-01 00:00:00+00:00"}
