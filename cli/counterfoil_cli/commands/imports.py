"""`counterfoil import`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from counterfoil_cli.client import Client, Json
from counterfoil_cli.commands.calling import with_client

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--dataset", default="", help="The dataset to import into; else the mapping's, or that of each Airbyte stream."
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["auto", "csv", "jsonl", "parquet", "airbyte"]),
    default="auto",
    show_default=True,
    help="What the file is; auto = by its ending.",
)
@click.option(
    "--mapping", default="", help="Read the file by a mapping, e.g. google_ads; GET /v1/import-mappings lists them."
)
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="What the mapping asks for beyond the file."
)
@click.option("--no-wait", is_flag=True, help="Return once the file is uploaded.")
@with_client
def import_file(
    client: Client,
    file: Path,
    *,
    dataset: str,
    file_format: str,
    mapping: str,
    parameters: tuple[str, ...],
    no_wait: bool,
) -> None:
    """Import a file into a dataset.

    It may be packed by gzip. The same file again adds nothing. Rows that break the dataset's contract are kept in
    quarantine.
    """
    if file_format == "auto":
        ending = Path(file.name.lower().removesuffix(".gz")).suffix
        if ending not in FORMATS:
            raise click.UsageError(f"{file.name} does not end in {', '.join(FORMATS)}, or these and .gz; say --format.")
        file_format = FORMATS[ending]
    if not dataset and not mapping and file_format != "airbyte":
        raise click.UsageError("Say which --dataset the file goes to, or a --mapping that names one.")
    console = Console(stderr=True)
    asked = {"dataset": dataset, "format": file_format, "mapping": mapping, "parameter": parameters}
    found = upload(client, file, asked=asked, console=console)
    if no_wait:
        click.echo(f"{found['import_id']} is {found['state']}; GET {client.url}/v1/imports/{found['import_id']}")
        return
    found = follow(client, found, console=console)
    _report(found, client.url)


def upload(client: Client, file: Path, *, asked: Mapping[str, str | Sequence[str]], console: Console) -> Json:
    """Upload the file behind a progress bar and return the import; `asked` are the query's parameters."""
    bar = Progress(TextColumn("Uploading"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console)
    with bar:
        task = bar.add_task("upload", total=file.stat().st_size)
        return client.upload_import(file, asked=asked, on_bytes=lambda count: bar.advance(task, count))


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
