"""`counterfoil sync`."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import click
from rich.console import Console

from counterfoil_cli import settings
from counterfoil_cli.client import ApiProblem, Client, Json
from counterfoil_cli.commands.calling import with_client
from counterfoil_cli.commands.imports import follow, upload

CONNECTORS = "counterfoil.connectors"
"""The group of entry points."""
PART_BYTES = 64 << 20
"""What is read of a source before it is uploaded: the most that a run that is killed has read in vain."""
_COUNTS = ("read", "accepted", "duplicate", "quarantined")


class Parameter(Protocol):
    """What a connector is told."""

    name: str
    secret: bool


class Connector(Protocol):
    """What reads a source; `counterfoil_connectors.connector` says more."""

    parameters: Sequence[Parameter]

    def settled(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return every parameter's value; raise ValueError for one that is unknown or missing."""
        ...

    def messages(self, given: Mapping[str, str], *, state: str, emitted_at: int) -> Iterator[bytes]:
        """Yield what the source has since a state, as lines of the Airbyte protocol."""
        ...


@click.command("sync")
@click.argument("connector")
@click.option(
    "--connection",
    default="",
    help="The name under which runs follow each other; else the connector's. Each account needs one of its own.",
)
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="What the connector is told; no secret."
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=FILE",
    help="A secret, by the file that holds it; else COUNTERFOIL_<CONNECTOR>_<NAME> of the environment.",
)
@click.option("--from-start", is_flag=True, help="Read everything again; what is known already is not kept twice.")
@with_client
def sync(
    client: Client,
    connector: str,
    *,
    connection: str,
    parameters: tuple[str, ...],
    secrets: tuple[str, ...],
    from_start: bool,
) -> None:
    """Bring what a source has new: HubSpot, PostgreSQL.

    Runs of one connection follow each other. Where a run ends is kept with what it brought, so that a run that is
    killed at any time loses nothing and doubles nothing.
    """
    source = _connector(connector)
    given = _given(connector, source, parameters=parameters, secrets=secrets)
    name = connection or connector
    at = _standing(client, name)
    state = "" if from_start else at.get("source_state", "")
    lines = source.messages(given, state=state, emitted_at=time.time_ns() // 1_000_000)
    asked = {"format": "airbyte", "connection": name, "continues": at.get("import_id", "")}
    console, imports, rows = Console(stderr=True), 0, Counter[str]()
    found: Json = {}
    with tempfile.TemporaryDirectory(prefix="counterfoil-sync-") as folder:
        for part in _parts(lines, Path(folder) / f"{name}.jsonl"):
            found = follow(client, upload(client, part, asked=asked, console=console), console=console)
            imports += 1
            rows.update({each: int(found.get(f"rows_{each}", 0)) for each in _COUNTS})
            if found["state"] == "FAILED":
                break
            asked["continues"] = found["import_id"] if found.get("source_state") else ""
    click.echo(f"{name}: {imports} imports; rows: " + ", ".join(f"{rows[each]:,} {each}" for each in _COUNTS) + ".")
    if rows["quarantined"]:
        click.echo(f"See why at {client.url}/v1/quarantine?source_id=import")
    if found.get("state") == "FAILED":
        error = found.get("error") or {}
        click.echo(f"Error: {error.get('detail', 'it failed')} ({error.get('reason', '')})", err=True)
        sys.exit(1)


def _connector(name: str) -> Connector:
    known = {each.name: each for each in entry_points(group=CONNECTORS)}
    if name not in known:
        there = f"There are: {', '.join(sorted(known))}." if known else "Install the package counterfoil-connectors."
        raise click.UsageError(f"There is no connector `{name}` here. {there}")
    found: Connector = known[name].load()
    return found


def _given(
    connector: str, source: Connector, *, parameters: Sequence[str], secrets: Sequence[str]
) -> Mapping[str, str]:
    """Return what a connector is told; raise UsageError for what cannot be."""
    hidden = {each.name for each in source.parameters if each.secret}
    given = {each: settings.secret(f"{connector}_{each}") for each in hidden}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError("--parameter is NAME=VALUE.")
        if name in hidden:
            raise click.UsageError(f"`{name}` is a secret, which every process here could read: say --secret.")
        given[name] = value
    for text in secrets:
        name, equals, file = text.partition("=")
        if not equals:
            raise click.UsageError("--secret is NAME=FILE.")
        try:
            given[name] = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise click.UsageError(f"The file of the secret `{name}` cannot be read: {error}.") from error
    try:
        return source.settled(given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _standing(client: Client, connection: str) -> Json:
    """Return where a connection stands; {} = no run of it has been."""
    try:
        return client.get(f"/v1/connections/{connection}")
    except ApiProblem as problem:
        if problem.reason != "CONNECTION_NOT_FOUND":
            raise
        return {}


def _parts(lines: Iterator[bytes], file: Path) -> Iterator[Path]:
    """Yield a run in files, one after the other in the same place."""
    for first in lines:
        with file.open("wb") as part:
            part.write(first)
            while part.tell() < PART_BYTES and (line := next(lines, b"")):
                part.write(line)
        yield file
