"""What the demo prints: tables and sentences for people who do not read code."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.table import Table
from steps import HORIZON_DAYS, Check

_METHODS = {"theta_ets_mean": "Theta + ETS", "seasonal_naive": "same day last week"}


def checks_table(checks: list[Check]) -> Table:
    """Lay each figure of the source files beside Counterfoil's answer."""
    table = Table(title="Does Counterfoil have exactly what the files have?", title_justify="left")
    table.add_column("Figure")
    table.add_column("Source files", justify="right")
    table.add_column("Counterfoil", justify="right")
    table.add_column("")
    for check in checks:
        mark = "[green]same[/green]" if check.exact else "[bold red]DIFFERENT[/bold red]"
        table.add_row(check.what, f"{check.expected:,}", f"{check.found:,}", mark)
    return table


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


def receipt_lines(receipt: dict[str, Any]) -> list[tuple[str, str]]:
    """Put a receipt into plain words, as heading and sentence."""
    made = datetime.fromisoformat(receipt["created_at"])
    model, runtime = receipt["model"], receipt["runtime"]
    code = f"Counterfoil {runtime['release']}, Python {runtime['python']} on {runtime['platform']}"
    asked = f"principal '{receipt['principal']}' of workspace '{receipt['workspace']}'"
    lines = [
        ("What", f"{receipt['output']}, for the purpose '{receipt['purpose']}', impact {_tier(receipt)}"),
        ("Who, when", f"{asked}, {made:%d %B %Y %H:%M:%S} UTC"),
        *((f"Data ({source['role']})", _input(source)) for source in receipt["inputs"]),
        *(("Contract", _contract(contract)) for contract in receipt["contracts"]),
        ("Model", f"{model['model_id']} version {model['version']}, artifact {_short(model['artifact_sha256'])}"),
        ("Code", f"{code}, packages {_short(runtime['lock_sha256'])}"),
    ]
    policies = {policy for check in receipt["policy_checks"] for policy in check["policy_ids"]}
    lines += [("Allowed by", ", ".join(sorted(policies)))] if policies else []
    notes = receipt.get("completeness", {}).get("notes", [])
    lines += [("Left out", note["detail"]) for note in notes] or [("Left out", "nothing")]
    lines.append(("Fingerprint", f"of the numbers: sha256 {receipt['output_sha256']}"))
    return lines


def _input(source: dict[str, Any]) -> str:
    snapshot = source["snapshot"]
    offsets = ", ".join(str(offset["offset"]) for offset in snapshot["offsets"])
    return f"{source['rows']:,} records of {snapshot['dataset']}, the log below offset {offsets}"


def _contract(contract: dict[str, Any]) -> str:
    name = f"{contract['contract_id']} {contract['version']}"
    return f"{name} for {contract['dataset']}, rules {_short(contract['compiled_sha256'])}"


def _short(sha256: str) -> str:
    return f"sha256 {sha256[:12]}…"


def _tier(receipt: dict[str, Any]) -> str:
    return str(receipt["impact_tier"]).removeprefix("IMPACT_TIER_").lower()
