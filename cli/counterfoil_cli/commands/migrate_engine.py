"""`counterfoil migrate-engine`."""

import sys
import time
from pathlib import Path

import click
from counterfoil_chassis.errors import StartError
from rich.console import Console
from rich.table import Table

from counterfoil_cli.backups.databases import SERVER
from counterfoil_cli.backups.moving import move
from counterfoil_cli.commands.backup import told
from counterfoil_cli.commands.options import data_option


@click.command("migrate-engine")
@data_option
@click.option(
    "--to",
    required=True,
    metavar="URL",
    envvar=SERVER,
    show_envvar=True,
    help="The server: postgresql://user:password@host:5432",
)
def migrate_engine(data: Path, to: str) -> None:
    """Copy the databases of a stopped installation to PostgreSQL.

    The files are only read. Broken off at any point, the same command goes on. Every row is compared in the end.
    """
    if not to.startswith("postgresql://"):
        raise click.UsageError("--to is a URL like postgresql://user:password@host:5432")
    began = time.monotonic()
    try:
        with told() as telling:
            copied = move(data, {SERVER: to}, telling=telling)
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    shown = Table("service", "table", "rows", "digest, the same on both sides", box=None)
    for service, tables in copied.items():
        for table in tables:
            if table.rows:
                shown.add_row(service, table.table, f"{table.rows:,}", table.digest[:16])
    Console().print(shown)
    rows = sum(table.rows for tables in copied.values() for table in tables)
    click.echo(f"{rows:,} rows are in PostgreSQL, each compared, in {time.monotonic() - began:.1f} s.")
    click.echo(
        f"From now on start it with {SERVER} set to that URL; {data} still holds imports, the lake and the "
        "keys. The files *.db are no longer read; keep them until you have a backup of the new databases."
    )
