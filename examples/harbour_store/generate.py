"""Writes a Harbour Store into a folder: what its systems export, and apart from it the truth of its maker."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from harbour_store import crm, spend
from harbour_store.behaviour import MEAN_ORDER_VALUE, Behaviour, Order, behave
from harbour_store.calendar import BEGIN, CAMPAIGNS_BEGIN, END, GAP_BEGIN, GAP_END, GAP_SOURCE
from harbour_store.campaigns import AD_CAMPAIGNS, MAILING, MAILING_EXTRA_ORDERS
from harbour_store.consents import Answers, make_consents
from harbour_store.events import tracked, web_events
from harbour_store.people import DESK_EMAIL, Person, make_people

SEED: Final = 7
PEOPLE: Final = 4000
TRUTH: Final = "truth.json"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Store:
    """One generated Harbour Store."""

    tables: dict[str, Rows]
    """What is imported, by dataset."""
    events: Rows
    """What is sent by the event protocol."""
    consents: Answers
    truth: dict[str, Any]
    """What is planted; the demo compares with it, Counterfoil never sees it."""


def make_store(*, seed: int = SEED, people: int = PEOPLE) -> Store:
    """Make the store of a seed and size; the same ones give the same store, byte for byte."""
    persons = make_people(seed, people)
    behaviour = behave(seed, persons)
    consents = make_consents(seed, persons)
    days = spend.days_of(seed, people, behaviour)
    tables: dict[str, Rows] = {
        "harbour_contacts": list(crm.contacts(persons)),
        "harbour_deals": list(crm.deals(behaviour)),
        "harbour_mailings": list(crm.mailings(persons, behaviour)),
        **{f"harbour_{platform}": rows for platform, rows in spend.reports(days).items()},
    }
    events = web_events(seed, persons, behaviour)
    truth = {
        "synthetic": True,
        "seed": seed,
        "people": people,
        "rows": {name: len(rows) for name, rows in tables.items()} | {"harbour_events": len(events)},
        "mailing": _truth_of_mailing(persons, behaviour, consents),
        "ad_campaigns": _truth_of_ads(behaviour, days),
        "tracking_gap": {
            "source": GAP_SOURCE,
            "first_day": f"{GAP_BEGIN:%Y-%m-%d}",
            "end": f"{GAP_END:%Y-%m-%d}",
            "lost_clicks_of_customers": sum(not tracked(click) for click in behaviour.clicks),
        },
        "identity": _truth_of_identity(persons),
        "without_consent": len(consents.without),
    }
    return Store(tables, events, consents, truth)


def write_store(store: Store, folder: Path) -> dict[str, Path]:
    """Write every dataset as its system exports it; return the files by dataset. The truth is not among them."""
    files = {}
    for dataset, rows in store.tables.items():
        is_json = dataset == "harbour_meta_ads"
        file = folder / f"{dataset}.{'jsonl' if is_json else 'csv'}"
        file.write_text(_lines(rows) if is_json else _csv(rows), encoding="utf-8", newline="")
        files[dataset] = file
    return files


def write_truth(store: Store, folder: Path) -> Path:
    """Write the truth, for tests and for people who want to look."""
    file = folder / TRUTH
    file.write_text(json.dumps(store.truth, indent=2) + "\n", encoding="utf-8")
    return file


def _csv(rows: Rows) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, separators=(',', ':'))}\n" for row in rows)


def _during_campaigns(orders: Iterable[Order]) -> list[Order]:
    return [order for order in orders if CAMPAIGNS_BEGIN <= order.ordered_at < END]


def _truth_of_mailing(people: list[Person], behaviour: Behaviour, consents: Answers) -> dict[str, Any]:
    caused = [order for order in behaviour.orders if order.caused_by == MAILING]
    before = Counter(order.person.number for order in behaviour.orders if BEGIN <= order.ordered_at < CAMPAIGNS_BEGIN)
    mailed = [before[person.number] for person in people if person.number in behaviour.mailed]
    others = [before[person.number] for person in people if person.number not in behaviour.mailed]
    return {
        "campaign": MAILING,
        "mailed": len(mailed),
        "mailed_with_consent": len(behaviour.mailed - consents.without),
        "extra_orders_per_customer": MAILING_EXTRA_ORDERS,
        "extra_value_per_customer": MAILING_EXTRA_ORDERS * MEAN_ORDER_VALUE,
        "orders_caused": len(caused),
        "value_caused": str(sum(order.value for order in caused)),
        "discounts": str(sum(order.discount for order in behaviour.orders)),
        "orders_before": {"mailed": sum(mailed) / len(mailed), "others": sum(others) / len(others)},
    }


def _truth_of_ads(behaviour: Behaviour, days: list[spend.Day]) -> list[dict[str, Any]]:
    caused = Counter(order.caused_by for order in behaviour.orders)
    found = []
    for campaign in AD_CAMPAIGNS:
        mine = [order for order in behaviour.orders if order.caused_by == campaign.name]
        found.append(
            {
                "campaign": campaign.name,
                "source": campaign.source,
                "extra_orders_per_click": campaign.extra_orders,
                "orders_caused": caused[campaign.name],
                "value_caused": str(sum(order.value for order in mine)),
                "clicks_of_customers": sum(click.campaign is campaign for click in behaviour.clicks),
                "cost": str(sum(day.cost for day in days if day.campaign is campaign)),
            }
        )
    return found


def _truth_of_identity(people: list[Person]) -> dict[str, Any]:
    devices = Counter(device for person in people for device in person.devices)
    addresses = Counter(person.email for person in people)
    return {
        "devices": len(devices),
        "shared_devices": sum(count > 1 for count in devices.values()),
        "shared_emails": sum(count > 1 for count in addresses.values()),
        "desk_emails": sum(person.crm_email == DESK_EMAIL for person in people),
        "misspelt_emails": sum(person.crm_email.lower() not in (person.email, DESK_EMAIL) for person in people),
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write into.")
@click.option("--seed", default=SEED, show_default=True, help="Which store.")
@click.option("--people", default=PEOPLE, show_default=True, help="How many customers.")
def main(out: Path, seed: int, people: int) -> None:
    """Write a Harbour Store (synthetic) as files, with its truth beside them."""
    out.mkdir(parents=True, exist_ok=True)
    store = make_store(seed=seed, people=people)
    for dataset, file in write_store(store, out).items():
        click.echo(f"{file} {len(store.tables[dataset]):,}")
    (out / "harbour_events.jsonl").write_text(_lines(store.events), encoding="utf-8", newline="")
    (out / "consents.jsonl").write_text(_lines([*store.consents.prompt, *store.consents.late]), encoding="utf-8")
    click.echo(write_truth(store, out))


if __name__ == "__main__":
    main()
