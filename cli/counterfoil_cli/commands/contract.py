"""`counterfoil contract`."""

import sys
from pathlib import Path

import click

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client
from counterfoil_cli.commands.tables import show_table


@click.group()
def contract() -> None:
    """Check contracts."""


@contract.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_client
def check(client: Client, file: Path) -> None:
    """Check an ODCS document without keeping it; exit code 1 when something is found."""
    answer = client.check_contract(file.read_bytes())
    findings = answer.get("findings", [])
    if not findings:
        datasets = ", ".join(compiled["dataset"] for compiled in answer.get("compiled", [])) or "no dataset"
        click.echo(f"{file} can be submitted; it governs {datasets}.")
        return
    rows = [(found.get("path", ""), found.get("reason", ""), found.get("detail", "")) for found in findings]
    show_table(f"{file}: {len(rows)} found", ("path", "reason", "what to do"), rows)
    sys.exit(1)
