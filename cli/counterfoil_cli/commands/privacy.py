"""`counterfoil privacy`."""

import time
from datetime import UTC, datetime
from typing import Any

import click

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client
from counterfoil_cli.commands.tables import show_table

LOOK_AGAIN_SECONDS = 0.5


@click.group()
def privacy() -> None:
    """Carry out what people may ask for by law."""


@privacy.command()
@click.option(
    "--identifier",
    "identifiers",
    multiple=True,
    required=True,
    metavar="TYPE=VALUE",
    help="Who it is, e.g. email=ada@example.com; several name one person. Type and value as the graph shows them.",
)
@click.option("--reference", default="", help="Where the request comes from, e.g. a ticket; no personal data.")
@click.option("--no-wait", is_flag=True, help="Return once the request is taken.")
@with_client
def erase(client: Client, identifiers: tuple[str, ...], reference: str, no_wait: bool) -> None:
    """Erase a person from everything, and wait until it is done."""
    subjects = []
    for each in identifiers:
        kind, found, value = each.partition("=")
        if not found or not kind or not value:
            raise click.UsageError(f"--identifier is TYPE=VALUE, e.g. email=ada@example.com; not {each!r}.")
        subjects.append({"type": kind, "value": value})
    body = {"kind": "ERASURE", "identifiers": subjects, "reference": reference}
    request = client.post("/v1/privacy-requests", body)
    name = request["privacy_request_id"]
    if no_wait:
        click.echo(f"{name} is due until {request['due_at'][:10]}; see `counterfoil privacy list`.")
        return
    while request["state"] != "COMPLETED":
        if request["state"] == "HELD":
            holds = ", ".join(request["legal_hold_ids"])
            click.echo(f"{name} waits for legal holds: {holds}. It is carried out when they are over.")
            return
        time.sleep(LOOK_AGAIN_SECONDS)
        request = client.get(f"/v1/privacy-requests/{name}")
    erased = _erased(request)
    click.echo(f"{name} is completed: {erased}.")
    if not any(int(count) for report in request["reports"] for count in report.get("erased", {}).values()):
        click.echo("Nobody was known by that. Are type and value as the graph shows them?", err=True)


@privacy.command("list")
@with_client
def list_requests(client: Client) -> None:
    """List the workspace's requests, newest first: until when each is due, and what was done."""
    now = datetime.now(UTC)
    rows = [
        (
            request["privacy_request_id"],
            request.get("reference", ""),
            ", ".join(request.get("identifier_types", ())),
            request["created_at"][:10],
            _due(request, now=now),
            request["state"].lower(),
            _erased(request),
        )
        for request in client.pages("/v1/privacy-requests", "privacy_requests")
    ]
    columns = ("request", "reference", "named by", "received", "due", "state", "erased")
    show_table("Privacy requests", columns, rows)


def _due(request: dict[str, Any], *, now: datetime) -> str:
    day = str(request["due_at"])[:10]
    overdue = request["state"] != "COMPLETED" and datetime.fromisoformat(request["due_at"]) < now
    return f"{day} OVERDUE" if overdue else day


def _erased(request: dict[str, Any]) -> str:
    reports = request.get("reports", ())
    counts = [f"{int(count):,} {kind.replace('_', ' ')}" for each in reports for kind, count in each["erased"].items()]
    return ", ".join(counts)
