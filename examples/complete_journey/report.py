"""What the demo prints: tables and sentences for people who do not read code."""

from decimal import Decimal
from typing import Any

from rich.table import Table

from complete_journey.reveal import Chosen
from complete_journey.steps import HORIZON_DAYS

_METHODS = {"theta_ets_mean": "Theta + ETS", "seasonal_naive": "same day last week"}


def backtest_table(version: dict[str, Any]) -> Table:
    """Show how each department would have been forecast in the past."""
    table = Table(
        title=f"How good is it? {HORIZON_DAYS} days ahead, tried on the past",
        title_justify="left",
        caption="Error (MASE): 1.00 is as far off as repeating the same day of last week; lower is better.\n"
        "Inside: share of past days within the range that shall hold 80 %. What had the smaller error serves.",
        caption_justify="left",
    )
    table.add_column("Department")
    table.add_column("Error", justify="right")
    table.add_column("Error of last week", justify="right")
    table.add_column("Inside", justify="right")
    table.add_column("What serves")
    for test in sorted(version["backtests"], key=lambda test: test["mase"]):
        table.add_row(
            test["series"],
            f"{test['mase']:.2f}",
            f"{test['mase_seasonal_naive']:.2f}",
            f"{test['coverage']:.0%}",
            _METHODS.get(test["method"], test["method"]),
        )
    return table


def skipped_lines(version: dict[str, Any]) -> list[str]:
    """Say which departments were left out of the model, and why."""
    lines = [
        f"Not forecast: {series['records']:,} sales worth ${series['total']:,.2f} whose product is not in the product "
        f"list (department '{series['series']}')."
        for series in version["skipped"]
        if series["reason"] == "UNKNOWN_DIMENSION"
    ]
    sparse = [series["series"] for series in version["skipped"] if series["reason"] == "TOO_FEW_ACTIVE_DAYS"]
    if sparse:
        lines.append(f"Not forecast: {len(sparse)} departments with sales on fewer than 300 days: {', '.join(sparse)}.")
    return lines


def forecast_table(forecast: dict[str, Any], recent: dict[str, Decimal]) -> Table:
    """Add up each department's days ahead, beside as many days just before them."""
    first, last = (forecast["series"][0]["points"][index]["day"] for index in (0, -1))
    days = forecast["horizon_days"]
    table = Table(
        title=f"Forecast: sales in US dollars, {first} to {last}",
        title_justify="left",
        caption=f"From and to add up the limits of the {forecast['coverage']:.0%} range of each day, so they are wide "
        "for a total.",
        caption_justify="left",
    )
    table.add_column("Department")
    table.add_column(f"Last {days} days", justify="right")
    table.add_column(f"Next {days} days", justify="right")
    table.add_column("From", justify="right")
    table.add_column("To", justify="right")
    rows = [
        (series["series"], *(sum(point[key] for point in series["points"]) for key in ("mean", "lower", "upper")))
        for series in forecast["series"]
    ]
    for name, mean, lower, upper in sorted(rows, key=lambda row: -row[1]):
        table.add_row(name, f"{recent.get(name, Decimal(0)):,.0f}", f"{mean:,.0f}", f"{lower:,.0f}", f"{upper:,.0f}")
    total = sum(row[1] for row in rows)
    before = sum(recent.get(row[0], Decimal(0)) for row in rows)
    table.add_section()
    table.add_row("All of these", f"{before:,.0f}", f"{total:,.0f}", "", "")
    return table


def chosen_table(chosen: Chosen) -> Table:
    """Show what households spent before, by when they were first assigned to a campaign."""
    table = Table(title="Who was assigned to coupon campaigns?", title_justify="left")
    table.add_column("First assigned")
    table.add_column("Households", justify="right")
    table.add_column("Spent 1 Jan to 7 Feb, each", justify="right")
    table.add_column("Spent in the year, each", justify="right")
    named = {"before 8 February": chosen.earlier, "later": chosen.later, "never": chosen.never}
    for name, group in named.items():
        table.add_row(name, f"{group.households:,}", f"${group.mean_before:,.2f}", f"${group.mean_year:,.2f}")
    return table


def chosen_lines(chosen: Chosen) -> list[str]:
    """Say what the groups mean for a plain comparison."""
    later, never = chosen.later.mean_before, chosen.never.mean_before
    before = (
        f"Households that were assigned later already spent {chosen.times_before:.1f} times as much before any of "
        f"their campaigns (${later:,.0f} against ${never:,.0f})."
    )
    year = (
        f"So that the assigned spend {chosen.times_year:.1f} times as much in the year is mostly selection: it says "
        "who was chosen, not what the coupons did. Assigned means that coupons were sent, not that anybody saw them."
    )
    return [before, year]
