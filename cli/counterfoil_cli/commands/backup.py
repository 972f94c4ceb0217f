"""`counterfoil backup`."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from counterfoil_chassis.errors import StartError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from counterfoil_cli import settings
from counterfoil_cli.backups import manifest
from counterfoil_cli.backups.taking import Telling, take
from counterfoil_cli.commands.options import data_option


@contextmanager
def told() -> Iterator[Telling]:
    """Show a long copy on a terminal: what is copied now, how far, since when."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield Telling(
            lambda name, total: bar.reset(task, description=name, total=total),
            lambda count: bar.advance(task, count),
        )


@click.command()
@data_option
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), help="The new folder of the backup.")
@click.option("--without-keys", is_flag=True, help="Leave out the private keys and the admin's API key.")
@click.option(
    "--verify",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="BACKUP",
    help="Take none: read every file of this backup again and compare it with its hash.",
)
def backup(data: Path, to: Path | None, without_keys: bool, verify: Path | None) -> None:
    """Take a backup of everything, while it runs or when it is stopped.

    All stores are copied as of one moment. Writers are held for that moment only. Databases on PostgreSQL are found by
    the same settings as the services'.
    """
    if (to is None) == (verify is None):
        raise click.UsageError("Name --to FOLDER, or --verify BACKUP.")
    began = time.monotonic()
    try:
        with told() as telling:
            if verify is not None:
                made = manifest.read(verify)
                telling.step("verify", made.size)
                manifest.verify(verify, made, on_bytes=telling.advance)
            elif to is not None:
                made = take(data, to, settings.inherited(), keys=not without_keys, telling=telling)
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    seconds = time.monotonic() - began
    if verify is not None:
        click.echo(f"{verify} is whole: {len(made.files)} files, {made.size:,} bytes, taken {made.taken_at}.")
        return
    records = sum(head for heads in made.log["heads"].values() for head in heads.values())
    click.echo(
        f"{to}: {records:,} records of {len(made.workspaces)} workspaces, {made.size:,} bytes, in {seconds:.1f} s; "
        f"writers were held for {made.held_seconds * 1000:.1f} ms."
    )
    if made.keys:
        click.echo("It holds the private keys and the admin's API key: keep it as you keep those.")
    else:
        click.echo("It holds no keys: keep a copy of keys/ and admin.key elsewhere; a restore needs them.")
