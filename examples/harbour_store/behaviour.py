"""What the customers do: orders out of habit, clicks, and the orders that campaigns truly cause.

Habit is a Poisson rate drawn from a gamma distribution, so what is to be expected of somebody later is a straight line
in what they ordered before. Who is mailed depends on nothing but those orders. Hence a comparison that adjusts for the
time before finds the planted effect, and a naive one does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from harbour_store.calendar import BEGIN, CAMPAIGNS_BEGIN, DAYS_BEFORE, DAYS_OF_CAMPAIGNS, END, MAILED_AT
from harbour_store.campaigns import AD_CAMPAIGNS, MAILING, MAILING_EXTRA_ORDERS, AdCampaign, chance_of_mailing
from harbour_store.draws import Draws
from harbour_store.people import Person

MEAN_ORDER_VALUE: Final = 60.0
_LEAST_ORDER_VALUE: Final = 35.0
_VOUCHER_USED: Final = 0.3
_VOUCHER: Final = Decimal("0.05")
_DAYS_TO_ORDER: Final = 3
_HABIT = ""


@dataclass(frozen=True)
class Order:
    """One order, with what truly caused it: a campaign's name, or nothing but habit."""

    person: Person
    ordered_at: datetime
    value: Decimal
    discount: Decimal
    caused_by: str


@dataclass(frozen=True)
class Click:
    """One visit that came from an ad."""

    person: Person
    clicked_at: datetime
    device: str
    campaign: AdCampaign


@dataclass(frozen=True)
class Behaviour:
    """Everything that happened, by person and time."""

    mailed: frozenset[int]
    """Numbers of the customers that the mailing was sent to."""
    orders: list[Order]
    clicks: list[Click]


def behave(seed: int, people: list[Person]) -> Behaviour:
    """Let everybody live through the four months."""
    orders, clicks, mailed = [], [], set()
    draws = {topic: Draws(seed, topic) for topic in ("habit", "mailing", "clicks", "values")}
    for person in people:
        before = draws["habit"].poisson(person.rate)
        if draws["mailing"].chance(chance_of_mailing(before)):
            mailed.add(person.number)
        times = [(draws["habit"].moment(BEGIN, CAMPAIGNS_BEGIN), _HABIT) for _ in range(before)]
        later = draws["habit"].poisson(person.rate * DAYS_OF_CAMPAIGNS / DAYS_BEFORE)
        habitual = [draws["habit"].moment(CAMPAIGNS_BEGIN, END) for _ in range(later)]
        times += [(at, _HABIT) for at in habitual]
        if person.number in mailed:
            extra = draws["mailing"].poisson(MAILING_EXTRA_ORDERS)
            times += [(draws["mailing"].moment(MAILED_AT, END), MAILING) for _ in range(extra)]
        for click in _clicks(person, habitual, draws["clicks"]):
            clicks.append(click)
            times += [
                (draws["clicks"].moment(click.clicked_at, min(_later(click.clicked_at), END)), click.campaign.name)
                for _ in range(draws["clicks"].poisson(click.campaign.extra_orders))
            ]
        times.append((person.registered_at, _HABIT))  # everybody's first order: it made them a customer
        for at, cause in sorted(times):
            orders.append(_order(person, at, cause=cause, mailed=person.number in mailed, draws=draws["values"]))
    return Behaviour(
        frozenset(mailed), orders, sorted(clicks, key=lambda click: (click.person.number, click.clicked_at))
    )


def _clicks(person: Person, habitual: list[datetime], draws: Draws) -> Iterator[Click]:
    for campaign in AD_CAMPAIGNS:
        expected = campaign.clicks + campaign.clicks_by_habit * person.rate * DAYS_OF_CAMPAIGNS / DAYS_BEFORE
        times = [draws.moment(CAMPAIGNS_BEGIN, END) for _ in range(draws.poisson(expected))]
        times += [
            max(CAMPAIGNS_BEGIN, draws.moment(order - timedelta(hours=20), order))
            for order in habitual
            if draws.chance(campaign.clicks_before_orders)
        ]
        for at in times:
            yield Click(person, at, draws.pick(person.devices), campaign)


def _order(person: Person, at: datetime, *, cause: str, mailed: bool, draws: Draws) -> Order:
    value = _LEAST_ORDER_VALUE + draws.exponential(MEAN_ORDER_VALUE - _LEAST_ORDER_VALUE)
    amount = Decimal(round(value * 100)) / 100
    voucher = draws.chance(_VOUCHER_USED) and mailed and at >= MAILED_AT
    discount = (amount * _VOUCHER).quantize(Decimal("0.01")) if voucher else Decimal("0.00")
    return Order(person, at, amount, discount, cause)


def _later(at: datetime) -> datetime:
    return at + timedelta(days=_DAYS_TO_ORDER)
