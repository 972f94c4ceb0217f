"""What coupons seem to do, and what they do: who was chosen, attribution beside lift, and what it cost."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from counterfoil_cli.client import Client

from complete_journey.files import STORES_TIMEZONE

FIRST_DAY: Final = "2017-01-01"
CHOSEN_FROM: Final = "2017-02-08"
LAST_DAY_BEFORE: Final = "2017-02-07"
LAST_DAY: Final = "2017-12-31"

_GROUPS: Final = """
WITH assigned AS (
    SELECT m.household_id, min(c.start_date) AS first_start
    FROM campaign_members m JOIN campaigns c USING (campaign_id) GROUP BY m.household_id
), spent AS (
    SELECT household_id, sum(sales_value::DECIMAL(18,2)) AS year,
           coalesce(sum(sales_value::DECIMAL(18,2)) FILTER (transaction_timestamp < ?::TIMESTAMPTZ), 0) AS before
    FROM transactions GROUP BY household_id
)
SELECT CASE WHEN a.first_start IS NULL THEN 'never'
            WHEN a.first_start < ?::TIMESTAMPTZ THEN 'earlier' ELSE 'later' END AS chosen,
       count(*), sum(s.before), sum(s.year)
FROM spent s LEFT JOIN assigned a USING (household_id) GROUP BY 1
"""


@dataclass(frozen=True)
class Group:
    """Households and what they spent together, in US dollars."""

    households: int
    before: Decimal
    """From 1 January to 7 February."""
    year: Decimal

    @property
    def mean_before(self) -> float:
        """Dollars per household before."""
        return float(self.before) / self.households

    @property
    def mean_year(self) -> float:
        """Dollars per household in the whole year."""
        return float(self.year) / self.households

    def __add__(self, other: "Group") -> "Group":
        return Group(self.households + other.households, self.before + other.before, self.year + other.year)


@dataclass(frozen=True)
class Chosen:
    """The households by when they were first assigned to a campaign."""

    earlier: Group
    """Before 8 February: their time before is none."""
    later: Group
    never: Group

    @property
    def times_before(self) -> float:
        """How many times as much those who were assigned later spent before, as those who never were."""
        return self.later.mean_before / self.never.mean_before

    @property
    def times_year(self) -> float:
        """How many times as much all who were ever assigned spent in the year, as those who never were."""
        return (self.earlier + self.later).mean_year / self.never.mean_year


def who_was_chosen(api: Client) -> Chosen:
    """Ask for the groups, in the stores' days."""
    boundary = f"{CHOSEN_FROM} 00:00:00 {STORES_TIMEZONE}"
    rows = api.sql(_GROUPS, boundary, boundary)
    return Chosen(**{name: Group(count, Decimal(before), Decimal(year)) for name, count, before, year in rows})


ATTRIBUTION: Final[dict[str, Any]] = {
    "conversion_type": "basket",
    "first_day": FIRST_DAY,
    "last_day": LAST_DAY,
    "subject": "CAMPAIGN",
    "window": "FLIGHT",
}

LIFT: Final[dict[str, Any]] = {
    "name": "Coupon campaigns of 2017",
    "outcome": {
        "dataset": "transactions",
        "unit_field": "household_id",
        "unit_type": "household_id",
        "time_field": "transaction_timestamp",
        "value_field": "sales_value",
        "currency": "USD",
        "count_field": "basket_id",
        "cost_fields": ["coupon_disc", "coupon_match_disc"],
    },
    "assignment": {
        "dataset": "campaign_members",
        "unit_field": "household_id",
        "time_field": "start_date",
        "lookup_dataset": "campaigns",
        "lookup_key": "campaign_id",
        "leave_out_assigned_before": True,
    },
    "first_day": CHOSEN_FROM,
    "last_day": LAST_DAY,
    "pre_first_day": FIRST_DAY,
    "pre_last_day": LAST_DAY_BEFORE,
}
