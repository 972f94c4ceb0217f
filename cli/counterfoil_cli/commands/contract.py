"""`counterfoil contract`."""

import sys
from pathlib import Path

import click

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client_or_two
from counterfoil_cli.contract_checks.checking import SUFFIXES, documents
from counterfoil_cli.contract_checks.checking import check as check_document
from counterfoil_cli.contract_checks.reports import FORMATS


@click.group()
def contract() -> None:
    """Check contracts."""


@contract.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    "report",
    type=click.Choice(sorted(FORMATS)),
    default="text",
    show_default=True,
    help="How what was found is told.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="A file for it; the text is printed all the same.",
)
@click.option(
    "--records",
    type=click.IntRange(0, 100_000),
    default=0,
    help="Also try each document on so many recent records; the exit code does not depend on it.",
)
@with_client_or_two
def check(client: Client, paths: tuple[Path, ...], report: str, output: Path | None, records: int) -> None:
    """Check ODCS documents against the rules, the versions in force and the consumers, without keeping them.

    PATH is a file, or a folder in which every file *.odcs.yaml, *.odcs.yml and *.odcs.json is checked.

    Exit code 0 when each could come into force as it is; 1 when one could not: it has faults, its version number is too
    low for what it changes, or it breaks a consumer, or nothing proves that it does not; 2 when none could be checked.
    """
    files = documents(paths)
    if not files:
        raise click.UsageError(f"There is no document in {paths[0]}; they are called {', '.join(SUFFIXES)}.")
    try:
        checked = [check_document(client, file, records=records) for file in files]
        if output is not None:
            output.write_text(FORMATS[report](checked), encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{error.filename} cannot be read or written: {error.strerror}.") from error
    click.echo(FORMATS["text" if output is not None else report](checked), nl=False)
    if any(each.failed for each in checked):
        sys.exit(1)
