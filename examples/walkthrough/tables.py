"""What the demos print: tables and sentences for people who do not read code."""

from datetime import datetime
from typing import Any

from counterfoil_chassis.audit_verify import Report
from rich.markup import escape
from rich.table import Table

from walkthrough.loading import Check
from walkthrough.measuring import estimates_of, holds
from walkthrough.trust import Approval

MICROS = 1_000_000
_SHOWN_CREDITS = ("last", "linear", "markov")

Json = dict[str, Any]


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


def lift_table(lift: Json, measure: str, *, title: str, truth: float | None = None) -> Table:
    """Lay the three estimates of one measure beside each other, and say which interval holds a planted truth."""
    table = Table(title=title, title_justify="left")
    table.add_column("Method")
    for column in ("Treated", "Not treated", "Times", "Difference"):
        table.add_column(column, justify="right")
    table.add_column(f"{lift['spec']['coverage']:.0%} interval", justify="right")
    if truth is not None:
        table.add_column(f"Holds {truth:g}?")
    for method, found in estimates_of(lift, measure).items():
        ratio = f"{found['ratio']:.2f}" if "ratio" in found else ""
        means = [f"{found[key]:,.2f}" for key in ("treated_mean", "control_mean")]
        interval = f"{found['lower']:,.2f} to {found['upper']:,.2f}"
        row = [method, *means, ratio, f"{found['difference']:,.2f}", interval]
        if truth is not None:
            row.append("[green]yes[/green]" if holds(found, truth) else "[bold red]no[/bold red]")
        table.add_row(*row)
    return table


def lift_lines(lift: Json) -> list[str]:
    """Say who was compared, how, and what to keep in mind."""
    groups = f"{lift['treated']:,} treated and {lift['control']:,} others; {lift['left_out']:,} left out."
    methods = (
        "Naive is the plain difference; adjusted takes out what the time before explains; matched compares each with "
        "the others most alike."
    )
    return [groups, methods, lift["caveat"]]


def cost_lines(lift: Json, *, what: str) -> list[str]:
    """Say what the treatment cost, and per incremental unit by each method."""
    cost = lift.get("cost", {})
    if "cost_micros" not in cost:
        return ["What it cost is not known, which is not zero."]
    parts = ", ".join(f"{part['field']} {_money(part['cost_micros'])}" for part in cost["parts"])
    lines = [
        f"Discounts given to the treated in the period: {_money(cost['cost_micros'])} {cost['currency']} ({parts})."
    ]
    for per in cost["per_incremental"]:
        name = per["method"]
        if "cost_micros" not in per:
            lines.append(f"Cost per incremental {what}, {name}: none, for the estimate is not above zero.")
            continue
        upper = f"to {_money(per['upper_micros'])}" if "upper_micros" in per else "without an upper bound"
        lower = _money(per["lower_micros"]) if "lower_micros" in per else "0"
        lines.append(f"Cost per incremental {what}, {name}: {_money(per['cost_micros'])} (from {lower} {upper}).")
    return lines


def attribution_table(attribution: Json, *, title: str, most: int) -> Table:
    """Show who gets how much credit by three of the models, beside what it cost, where that is known."""
    rows = sorted(attribution["rows"], key=lambda row: -_credit(row, "markov"))
    priced = any("cost_micros" in row for row in rows)
    table = Table(title=title, title_justify="left")
    table.add_column("Campaign" if attribution["spec"]["subject"] == "CAMPAIGN" else "Channel")
    table.add_column("Touchpoints", justify="right")
    for model in _SHOWN_CREDITS:
        table.add_column(f"Credit, {model}", justify="right")
    if priced:
        table.add_column("Cost", justify="right")
        table.add_column("Cost per credit, last", justify="right")
    for row in rows[:most]:
        name = (
            f"{row['subject']} ({row['name']})" if row.get("name", row["subject"]) != row["subject"] else row["subject"]
        )
        cells = [name, f"{row['touchpoints']:,}", *(f"{_credit(row, model):,.1f}" for model in _SHOWN_CREDITS)]
        if priced:
            cells += [_money(row["cost_micros"]) if "cost_micros" in row else "not known", _per_credit(row)]
        table.add_row(*cells)
    if len(rows) > most:
        table.add_row(f"{len(rows) - most} more", *[""] * (len(table.columns) - 1))
    return table


def attribution_lines(attribution: Json) -> list[str]:
    """Say what was credited and what was not."""
    done, whole = attribution["attributed_conversions"], attribution["conversions"]
    value = f"{_money(attribution['attributed_value_micros'])} of {_money(attribution['value_micros'])}"
    notes = attribution.get("completeness", {}).get("notes", [])
    return [
        f"{done:,} of {whole:,} conversions, worth {value} {attribution['currency']}, had a touchpoint before.",
        *(f"  {note['detail']}" for note in notes),
        attribution["caveat"],
    ]


def approval_line(what: str, approval: Approval) -> str:
    """Say how a second person came into it."""
    return (
        f"{what}: refused by policy '{approval.refused_by}' when '{approval.requester}' tried alone; "
        f"approved by '{approval.approver}' (change {approval.change_id})."
    )


def audit_line(report: Report) -> str:
    """Say whether an exported audit log is whole."""
    if not report.ok:
        return f"Audit log: [bold red]broken[/bold red]: {escape(report.findings[0].detail)}"
    signed = f"{report.checkpoints:,} signed {'checkpoint' if report.checkpoints == 1 else 'checkpoints'}"
    return (
        f"Audit log: exported and [green]verified[/green] (`counterfoil audit verify`): {report.entries:,} entries, "
        f"each hashed again, under {signed}, root {_short(report.root.hex())}"
    )


def replay_line(what: str, replay: Json) -> str:
    """Say what a replay found."""
    same = replay["outcome"] == "MATCH"
    colour = "green" if same else "bold red"
    meaning = "made again from the same data, the numbers are the same" if same else escape(replay["detail"])
    return f"Replay of {what}: [{colour}]{replay['outcome'].lower()}[/{colour}]: {meaning}. {replay['receipt_id']}"


def receipt_lines(receipt: Json) -> list[tuple[str, str]]:
    """Put a receipt into plain words, as heading and sentence."""
    made = datetime.fromisoformat(receipt["created_at"])
    runtime = receipt["runtime"]
    code = f"Counterfoil {runtime['release']}, Python {runtime['python']} on {runtime['platform']}"
    asked = f"principal '{receipt['principal']}' of workspace '{receipt['workspace']}'"
    lines = [
        ("What", f"{receipt['output']}, for the purpose '{receipt['purpose']}', impact {_tier(receipt)}"),
        ("Who, when", f"{asked}, {made:%d %B %Y %H:%M:%S} UTC"),
        *((f"Data ({source['role']})", _input(source)) for source in receipt["inputs"]),
        *(("Contract", _contract(contract)) for contract in receipt["contracts"]),
        *(("Model", _model(model)) for model in [receipt.get("model")] if model),
        ("Code", f"{code}, packages {_short(runtime['lock_sha256'])}"),
    ]
    policies = {policy for check in receipt["policy_checks"] for policy in check["policy_ids"]}
    lines += [("Allowed by", ", ".join(sorted(policies)))] if policies else []
    lines += [("Legal basis", _consent(consent)) for consent in [receipt.get("consent")] if consent]
    lines += [("Approved by", f"change {change}") for change in receipt.get("changes", ())]
    notes = receipt.get("completeness", {}).get("notes", [])
    lines += [("Left out", note["detail"]) for note in notes] or [("Left out", "nothing")]
    lines.append(("Fingerprint", f"of the numbers: sha256 {receipt['output_sha256']}"))
    return lines


def _input(source: Json) -> str:
    snapshot = source["snapshot"]
    offsets = ", ".join(str(offset["offset"]) for offset in snapshot["offsets"])
    return f"{source['rows']:,} records of {snapshot['dataset']}, the log below offset {offsets}"


def _contract(contract: Json) -> str:
    name = f"{contract['contract_id']} {contract['version']}"
    return f"{name} for {contract['dataset']}, rules {_short(contract['compiled_sha256'])}"


def _model(model: Json) -> str:
    return f"{model['model_id']} version {model['version']}, artifact {_short(model['artifact_sha256'])}"


def _consent(consent: Json) -> str:
    basis, revision = consent["basis"].lower().replace("_", " "), consent["ledger_revision"]
    return f"{basis} to '{consent['purpose']}', by the consent ledger at revision {revision:,}"


def _short(sha256: str) -> str:
    return f"sha256 {sha256[:12]}…"


def _tier(receipt: Json) -> str:
    return str(receipt["impact_tier"]).removeprefix("IMPACT_TIER_").lower()


def _credit(row: Json, model: str) -> float:
    return next((float(credit["conversions"]) for credit in row["credits"] if credit["model"] == model), 0.0)


def _per_credit(row: Json) -> str:
    for credit in row["credits"]:
        if credit["model"] == "last" and "cost_per_conversion_micros" in credit:
            return _money(credit["cost_per_conversion_micros"])
    return ""


def _money(micros: int) -> str:
    return f"{micros / MICROS:,.2f}"
