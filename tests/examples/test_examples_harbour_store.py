"""The generator's laws: one seed, one store; what is planted is what the records say."""

import hashlib
import subprocess
import sys
from collections import Counter
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harbour_store.calendar import BEGIN, CAMPAIGNS_BEGIN, DAYS_OF_CAMPAIGNS, END, GAP_BEGIN, GAP_END, GAP_SOURCE
from harbour_store.draws import Draws
from harbour_store.events import CURRENCY
from harbour_store.generate import TRUTH, Store, make_store, write_store, write_truth
from harbour_store.people import DESK_EMAIL, KIOSK

PEOPLE = 500
STORE_OF_SEED_3 = "d22659f28fce7256af971c6a6cd9ffd4dc263ed04925c41051f78d88365c801c"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def store() -> Store:
    """A small store."""
    return make_store(seed=3, people=PEOPLE)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_one_seed_gives_the_same_bytes_in_another_process(store: Store, tmp_path: Path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    write_store(store, tmp_path / "here")
    write_truth(store, tmp_path / "here")
    command = [sys.executable, "-m", "harbour_store.generate", "--out", tmp_path / "there", "--seed", "3"]
    environment = {"PYTHONPATH": str(EXAMPLES), "PYTHONHASHSEED": "1"}
    subprocess.run([*command, "--people", str(PEOPLE)], check=True, env=environment, capture_output=True, timeout=60)
    there = digests(tmp_path / "there")
    assert digests(tmp_path / "here").items() <= there.items()
    assert set(there) - set(digests(tmp_path / "here")) == {"harbour_events.jsonl", "consents.jsonl"}


def test_the_bytes_are_those_they_were_on_every_python(store: Store, tmp_path: Path):
    write_store(store, tmp_path)
    events = "".join(event["messageId"] for event in store.events)
    found = [*digests(tmp_path).values(), hashlib.sha256(events.encode()).hexdigest()]
    assert hashlib.sha256("".join(found).encode()).hexdigest() == STORE_OF_SEED_3


def test_another_seed_gives_another_store(store: Store):
    other = make_store(seed=4, people=PEOPLE)
    assert other.tables["harbour_deals"] != store.tables["harbour_deals"]
    assert other.events != store.events


def test_the_truth_counts_what_is_there(store: Store):
    counted = {name: len(rows) for name, rows in store.tables.items()} | {"harbour_events": len(store.events)}
    assert store.truth["rows"] == counted
    assert counted["harbour_contacts"] == PEOPLE
    assert counted["harbour_mailings"] == store.truth["mailing"]["mailed"]
    assert counted["harbour_google_ads"] == counted["harbour_meta_ads"] == 2 * DAYS_OF_CAMPAIGNS
    assert counted["harbour_linkedin_ads"] == counted["harbour_tiktok_ads"] == DAYS_OF_CAMPAIGNS


def test_the_truth_is_in_no_dataset(store: Store, tmp_path: Path):
    files = write_store(store, tmp_path)
    assert TRUTH not in {file.name for file in files.values()}
    columns = {column for rows in store.tables.values() for column in rows[0]}
    assert not columns & {"caused_by", "cause", "mailed", "rate"}
    assert all("caused" not in str(event) for event in store.events)


def test_everybody_is_in_the_outcome(store: Store):
    deals = store.tables["harbour_deals"]
    assert {deal["contact_id"] for deal in deals} == {row["hs_object_id"] for row in store.tables["harbour_contacts"]}
    assert len({deal["hs_object_id"] for deal in deals}) == len(deals)
    firsts = Counter(deal["contact_id"] for deal in deals if moment(deal["closedate"]) < BEGIN)
    assert set(firsts.values()) == {1}


def test_orders_on_the_web_are_the_deals_of_the_four_months(store: Store):
    ordered = [event["properties"] for event in store.events if event.get("event") == "Order Completed"]
    deals = {deal["dealname"]: deal for deal in store.tables["harbour_deals"] if moment(deal["closedate"]) >= BEGIN}
    assert {order["order_id"] for order in ordered} == set(deals)
    assert all(str(order["total"]) == str(float(deals[order["order_id"]]["amount"])) for order in ordered)
    assert {order["currency"] for order in ordered} == {CURRENCY}


def test_the_mailing_goes_to_those_who_bought_more(store: Store):
    before = store.truth["mailing"]["orders_before"]
    assert before["mailed"] > 2 * before["others"]


def test_planted_orders_are_as_many_as_their_mean_says():
    truth = make_store(seed=7, people=3000).truth["mailing"]
    expected = truth["extra_orders_per_customer"] * truth["mailed"]
    assert abs(truth["orders_caused"] - expected) < 4 * expected**0.5
    per_order = truth["extra_value_per_customer"] / truth["extra_orders_per_customer"]
    assert float(truth["value_caused"]) / truth["orders_caused"] == pytest.approx(per_order, rel=0.1)


def test_cost_reports_add_up_to_the_truth_in_every_shape(store: Store):
    tables: dict[str, list[dict[str, Any]]] = store.tables
    cost: Counter[str] = Counter()
    for row in tables["harbour_google_ads"]:
        cost[row["campaign_name"]] += Decimal(row["cost_micros"]) / 1_000_000
    for row in (*tables["harbour_meta_ads"], *tables["harbour_tiktok_ads"]):
        cost[row["campaign_name"]] += Decimal(row["spend"])
    for row in tables["harbour_linkedin_ads"]:
        cost[row["campaignGroupName"]] += Decimal(row["costInLocalCurrency"])
    assert cost == {each["campaign"]: Decimal(each["cost"]) for each in store.truth["ad_campaigns"]}


def test_the_gap_loses_events_and_not_the_platforms_clicks(store: Store):
    seen = [
        event
        for event in store.events
        if event["context"].get("campaign", {}).get("source") == GAP_SOURCE
        and GAP_BEGIN <= moment(event["timestamp"]) < GAP_END
    ]
    reported = [
        int(row["clicks"])
        for row in store.tables["harbour_meta_ads"]
        if f"{GAP_BEGIN:%Y-%m-%d}" <= row["date_start"] < f"{GAP_END:%Y-%m-%d}"
    ]
    assert seen == []
    assert sum(reported) >= store.truth["tracking_gap"]["lost_clicks_of_customers"] > 0


def test_events_are_segment_s_and_each_is_sent_once(store: Store):
    assert len({event["messageId"] for event in store.events}) == len(store.events)
    assert all(event.get("userId") or event.get("anonymousId") for event in store.events)
    assert all(one["timestamp"] <= other["timestamp"] for one, other in pairwise(store.events))
    assert all(BEGIN <= moment(event["timestamp"]) < END for event in store.events)
    campaigns = [event for event in store.events if "campaign" in event["context"]]
    assert min(moment(event["timestamp"]) for event in campaigns) >= CAMPAIGNS_BEGIN


def test_identities_are_as_messy_as_the_truth_says(store: Store):
    contacts, identity = store.tables["harbour_contacts"], store.truth["identity"]
    assert sum(row["email"] == DESK_EMAIL for row in contacts) == identity["desk_emails"] > 0
    assert identity["misspelt_emails"] > 0
    assert identity["shared_emails"] > 0
    users: dict[str, set[str]] = {}
    for event in store.events:
        if event["type"] == "identify":
            users.setdefault(event["anonymousId"], set()).add(event["userId"])
    assert len(users[KIOSK]) > 2
    assert sum(len(found) > 1 for device, found in users.items() if device != KIOSK) > 0


def test_consent_is_missing_for_as_many_as_the_truth_says(store: Store):
    answers = [*store.consents.prompt, *store.consents.late]
    latest: dict[str, tuple[str, str]] = {}
    for answer in answers:
        if answer["subject"]["type"] == "crm_contact_id" and answer["purpose"] == "measurement":
            value = answer["subject"]["value"]
            latest[value] = max(latest.get(value, ("", "")), (answer["happened_at"], answer["state"]))
    granted = {value for value, (_, state) in latest.items() if state == "GRANTED"}
    assert PEOPLE - len(granted) == store.truth["without_consent"] > 0
    withdrawn = {answer["subject"]["value"] for answer in store.consents.prompt if answer["state"] == "WITHDRAWN"}
    assert {answer["subject"]["value"] for answer in make_store(seed=7, people=3000).consents.late}
    assert all(answer["subject"]["value"] in withdrawn for answer in store.consents.late)


def test_draws_have_the_means_they_are_asked_for():
    draws = Draws(1, "laws")
    poisson = [draws.poisson(2.5) for _ in range(20_000)]
    gamma = [draws.gamma(2, mean=1.5) for _ in range(20_000)]
    assert sum(poisson) / len(poisson) == pytest.approx(2.5, rel=0.03)
    assert sum(gamma) / len(gamma) == pytest.approx(1.5, rel=0.03)
