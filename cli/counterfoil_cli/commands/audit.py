"""`counterfoil audit`."""

import sys
from pathlib import Path

import click
from counterfoil_chassis import audit_verify
from rich.console import Console
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client


@click.group()
def audit() -> None:
    """Export and verify the audit log."""


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@with_client
def export(client: Client, file: Path) -> None:
    """Write the workspace's audit log to FILE, a ZIP archive that anybody can verify with Python alone."""
    if file.exists():
        raise click.ClickException(f"{file} exists; name a new file: an export is evidence and is not written over.")
    partial = file.with_name(f"{file.name}.part")
    bar = Progress(
        SpinnerColumn(), TextColumn("Exporting"), DownloadColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    )
    try:
        with bar:
            task = bar.add_task("export", total=None)
            size = client.download("/v1/audit:export", partial, on_bytes=lambda count: bar.advance(task, count))
        partial.rename(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"{file}: {size:,} bytes. Verify it here or anywhere: counterfoil audit verify {file}")


@audit.command()
@with_client
def checkpoint(client: Client) -> None:
    """Print a signed checkpoint of the log as it is now; kept elsewhere, it is a witness against a rewritten log."""
    found = client.get("/v1/audit/checkpoint")
    click.echo(f"{found['origin']}: {found.get('tree_size', 0):,} entries, key {found['verifier_key']}", err=True)
    click.echo(found["note"], nl=False)


@audit.command()
@click.argument("export", metavar="EXPORT", type=click.Path(exists=True, path_type=Path))
@click.option("--key", "keys", multiple=True, metavar="KEY", help="A verifier key that may have signed; repeatable.")
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="CHECKPOINT",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of a checkpoint that was kept elsewhere; repeatable.",
)
def verify(export: Path, keys: tuple[str, ...], witnesses: tuple[Path, ...]) -> None:
    """Verify EXPORT, an archive or the folder it was unpacked to; exit code 1 when anything does not fit.

    It is the code of the export's own verify.py and asks nobody: hash every entry again from its bytes, build the
    tree anew, compare both with every stored hash and every signed checkpoint.
    """
    texts = [each.read_text(encoding="utf-8", errors="replace") for each in witnesses]
    report = audit_verify.verify(export, keys=keys, witnesses=texts)
    click.echo(report.text(), nl=False)
    if not report.ok:
        sys.exit(1)
