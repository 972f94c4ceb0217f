"""`counterfoil contract`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client
from counterfoil_cli.commands.tables import show_table

_COMPATIBLE = "PROVEN_COMPATIBLE"


@click.group()
def contract() -> None:
    """Check contracts."""


@contract.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_client
def check(client: Client, file: Path) -> None:
    """Check an ODCS document against the rules and against the versions in force, without keeping it.

    Exit code 1 when something is found, or when whoever sends records today might be refused.
    """
    answer = client.check_contract(file.read_bytes())
    findings, comparisons = answer.get("findings", []), answer.get("comparisons", [])
    if findings:
        rows = [(found.get("path", ""), found.get("reason", ""), found.get("detail", "")) for found in findings]
        show_table(f"{file}: {len(rows)} found", ("path", "reason", "what to do"), rows)
        sys.exit(1)
    datasets = ", ".join(compiled["dataset"] for compiled in answer.get("compiled", [])) or "no dataset"
    click.echo(f"{file} can be submitted; it governs {datasets}.")
    broken = [row for each in comparisons for row in _broken(each)]
    if broken:
        title = f"Compared with what is in force: {len(broken)} found"
        show_table(title, ("dataset", "for whom", "what", "for example"), broken)
    elif comparisons:
        click.echo("Compared with what is in force: proven compatible, for those who send and for those who read.")
    if any(each["backward"]["verdict"] != _COMPATIBLE for each in comparisons):
        sys.exit(1)


def _broken(comparison: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for whatever is not proven compatible with a dataset's version in force."""
    dataset, version = comparison["dataset"], comparison["version"]
    for key, whom in (("backward", f"who sends {version}"), ("forward", f"who reads {version}")):
        found = comparison[key]
        for each in found.get("breaks", []):
            yield dataset, whom, f"{each['path']}: {each['detail']}", json.dumps(each["witness"], ensure_ascii=False)
        if found["verdict"] == "UNPROVEN":
            yield dataset, whom, "neither a proof nor a counterexample was found; taken for breaking", ""
