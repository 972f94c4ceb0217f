"""`counterfoil import`."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from counterfoil_cli.client import Client, Json
from counterfoil_cli.commands.calling import with_client

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dataset", required=True, help="The dataset to import into.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["auto", "csv", "jsonl", "parquet"]),
    default="auto",
    show_default=True,
    help="What the file is; auto = by its ending.",
)
@click.option("--no-wait", is_flag=True, help="Return once the file is uploaded.")
@with_client
def import_file(client: Client, file: Path, dataset: str, file_format: str, no_wait: bool) -> None:
    """Import a file into a dataset.

    The same file again adds nothing. Rows that break the dataset's contract are kept in quarantine.
    """
    if file_format == "auto":
        if file.suffix.lower() not in FORMATS:
            raise click.UsageError(f"{file.name} does not end in {', '.join(FORMATS)}; say --format.")
        file_format = FORMATS[file.suffix.lower()]
    console = Console(stderr=True)
    found = upload(client, file, dataset=dataset, file_format=file_format, console=console)
    if no_wait:
        click.echo(f"{found['import_id']} is {found['state']}; GET {client.url}/v1/imports/{found['import_id']}")
        return
    found = follow(client, found, console=console)
    _report(found, client.url)


def upload(client: Client, file: Path, *, dataset: str, file_format: str, console: Console) -> Json:
    """Upload the file behind a progress bar and return the import."""
    bar = Progress(TextColumn("Uploading"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console)
    with bar:
        task = bar.add_task("upload", total=file.stat().st_size)
        return client.upload_import(
            file, dataset=dataset, file_format=file_format, on_bytes=lambda count: bar.advance(task, count)
        )


def follow(client: Client, found: Json, *, console: Console) -> Json:
    """Follow an import's rows behind a progress bar and return it once it has ended."""
    bar = Progress(TextColumn("Rows     "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    with bar:
        task = bar.add_task("rows", total=None)
        for step in client.follow_import(found["import_id"]):
            found = step
            bar.update(task, total=found.get("rows_total") or None, completed=found.get("rows_read", 0))
    return found


def _report(found: Json, url: str) -> None:
    counts = {name: int(found.get(f"rows_{name}", 0)) for name in ("read", "accepted", "duplicate", "quarantined")}
    click.echo(
        f"{found['import_id']} {found['state']}: {counts['read']:,} rows read, {counts['accepted']:,} accepted, "
        f"{counts['duplicate']:,} duplicate, {counts['quarantined']:,} quarantined."
    )
    if counts["quarantined"]:
        click.echo(f"See why at {url}/v1/quarantine?dataset={found.get('dataset', '')}")
    if found["state"] == "FAILED":
        error = found.get("error") or {}
        click.echo(f"Error: {error.get('detail', 'it failed')} ({error.get('reason', '')})", err=True)
        sys.exit(1)
