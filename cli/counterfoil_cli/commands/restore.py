"""`counterfoil restore`."""

import sys
from pathlib import Path

import click
from counterfoil_chassis.errors import StartError

from counterfoil_cli import settings
from counterfoil_cli.backups.databases import SERVER
from counterfoil_cli.backups.restoring import restore as restore_backup
from counterfoil_cli.commands.backup import told


@click.command()
@click.argument("backup", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="An empty folder for local data.")
@click.option(
    "--database-url",
    envvar=SERVER,
    show_envvar=True,
    default="",
    help="The PostgreSQL server for the databases, which must be empty or missing; without it SQLite files are made.",
)
@click.option(
    "--erasures-from",
    multiple=True,
    metavar="BACKUP|DATA|URL",
    help="Newer data whose erasures are carried out again: a backup, a data folder or a PostgreSQL server; repeatable. "
    "Without it, every newer backup beside this one.",
)
def restore(backup: Path, data: Path, database_url: str, erasures_from: tuple[str, ...]) -> None:
    """Restore BACKUP into an empty folder.

    The log begins a new life that continues the one backed up, so receipts replay; whoever read further is told so.
    Erasures that were asked for after the backup are carried out before anything is served.
    """
    environment = settings.inherited() | ({SERVER: database_url} if database_url else {})
    try:
        with told() as telling:
            done = restore_backup(backup, data, environment, erasures_from=erasures_from, telling=telling)
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"{data} is restored from the backup of {done.backup.taken_at}; the log's life is {done.log_epoch} now.")
    if done.newer:
        count = sum(done.erasures.values())
        click.echo(f"Erasures asked for since and carried out again: {count}, known from {', '.join(done.newer)}.")
    else:
        click.echo(
            "No newer data was at hand: an erasure that was asked for after the backup is not known here. If there is "
            "newer data, restore again with --erasures-from."
        )
    server = f"{SERVER}=... " if database_url else ""
    click.echo(f"Start it: {server}counterfoil up --data {data}")
