"""The Harbour Store through the gateway: the demo's own run, small, and again."""

import io
from collections.abc import Iterator

import pytest
from counterfoil_cli.client import Client
from harbour_store import steps
from harbour_store.demo import Demo
from harbour_store.generate import SEED, Store, make_store
from rich.console import Console
from walkthrough import measuring
from walkthrough.settings import DemoSettings

from tests.system.tenant import Tenant

PEOPLE = 600


@pytest.fixture(scope="module")
def store() -> Store:
    """What the demo loads."""
    return make_store(seed=SEED, people=PEOPLE)


@pytest.fixture(scope="module")
def told(tenant: Tenant) -> str:
    """What the demo's first run prints."""
    return run(tenant)


def run(tenant: Tenant) -> str:
    """Run the demo in a workspace of its own; it must find everything as it was planted."""
    console = Console(file=io.StringIO(), width=200)
    settings = DemoSettings(url=tenant.installation.url, api_key=tenant.key, traces_url="")
    code = Demo(settings, console=console, seed=SEED, people=PEOPLE).run()
    text = console.file.getvalue()
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def api(told: str, tenant: Tenant) -> Iterator[Client]:
    """A client of the loaded workspace."""
    assert told
    with Client(tenant.installation.url, tenant.key) as client:
        yield client


def test_the_first_run_says_that_all_is_synthetic_and_what_it_added(told: str, store: Store):
    assert "(synthetic)" in told
    assert f"harbour_deals.csv: {len(store.tables['harbour_deals']):,} rows added, 0 were there already." in told
    assert "DIFFERENT" not in told
    assert "A gap in tracking: Meta reports" in told
    assert "Audit log: exported and verified" in told


def test_adjusted_holds_the_planted_truth_through_the_gateway_and_naive_does_not(api: Client, store: Store):
    lift = measuring.measure_lift(api, steps.LIFT)
    truth = store.truth["mailing"]
    assert lift["treated"] == truth["mailed_with_consent"]
    assert lift["treated"] + lift["control"] == PEOPLE - store.truth["without_consent"]
    planted = {"value": truth["extra_value_per_customer"], "count": truth["extra_orders_per_customer"]}
    for measure, value in planted.items():
        estimates = measuring.estimates_of(lift, measure)
        assert measuring.holds(estimates["adjusted"], value)
        assert not measuring.holds(estimates["naive"], value)


def test_costs_of_every_platform_stand_beside_the_credit(api: Client, store: Store):
    attribution = measuring.attribute(api, steps.ATTRIBUTION)
    found = {row["subject"]: row.get("cost_micros") for row in attribution["rows"]}
    expected: dict[str, float] = {}
    for campaign in store.truth["ad_campaigns"]:
        expected[campaign["source"]] = expected.get(campaign["source"], 0.0) + float(campaign["cost"])
    for source, cost in expected.items():
        assert found[source] == pytest.approx(cost * 1e6, rel=1e-9), source
    assert found["mailing"] is None, "what the mailing cost is not known, which is not zero"


def test_persons_are_joined_across_devices_and_no_shared_device_joins_many(api: Client, store: Store):
    contacts = {row["hs_object_id"]: row for row in store.tables["harbour_contacts"]}
    person = api.post("/v1/persons:lookup", {"type": "user_id", "value": "hs-000001"})
    types = [each["identifier"]["type"] for each in person["identifiers"]]
    assert types.count("user_id") == 1
    assert types.count("crm_contact_id") == 1
    assert "anonymous_id" in types
    assert contacts["700001"]["email"].lower() in {each["identifier"]["value"] for each in person["identifiers"]}


def test_the_truth_is_nowhere_in_the_platform(api: Client):
    for dataset in ("harbour_deals", "harbour_mailings", steps.EVENTS):
        answer = api.post("/v1/sql", {"sql": f"SELECT * FROM {dataset}", "max_rows": 1})
        columns = {column["name"] for column in answer["columns"]}
        assert not columns & {"caused_by", "cause", "rate"}


def test_a_second_run_adds_nothing_and_gives_the_same_receipts(tenant: Tenant, told: str, store: Store):
    again = run(tenant)
    assert f"harbour_deals.csv: 0 rows added, {len(store.tables['harbour_deals']):,} were there already." in again
    assert f"{len(store.events):,} sent, {len(store.events):,} were there already." in again
    assert "Answers on consent: 0 recorded" in again
    first, second = ([line for line in text.splitlines() if line.startswith("Replay of")] for text in (told, again))
    assert first == second
