"""What only this demo prints: the planted truth, for comparison."""

from typing import Any

from rich.table import Table


def caused_table(truth: dict[str, Any]) -> Table:
    """Show what each campaign truly caused, which only the generator knows."""
    table = Table(
        title="The planted truth (synthetic): orders that would not have come otherwise",
        title_justify="left",
        caption="Credit goes to who was there; brand search is there before orders that come anyway.",
        caption_justify="left",
    )
    table.add_column("Campaign")
    table.add_column("Source")
    table.add_column("Clicks of customers", justify="right")
    table.add_column("Orders it caused", justify="right")
    table.add_column("Cost, euros", justify="right")
    for campaign in truth["ad_campaigns"]:
        clicks, caused = campaign["clicks_of_customers"], campaign["orders_caused"]
        table.add_row(
            campaign["campaign"], campaign["source"], f"{clicks:,}", f"{caused:,}", f"{float(campaign['cost']):,.2f}"
        )
    mailing = truth["mailing"]
    table.add_row(mailing["campaign"], "mailing", "", f"{mailing['orders_caused']:,}", "")
    return table
