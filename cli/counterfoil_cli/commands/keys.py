"""`counterfoil keys`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client
from counterfoil_cli.commands.tables import show_table


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.option("--principal", required=True, help="Whose key it shall be.")
@click.option("--scope", "scopes", multiple=True, help="What it may do, e.g. ingest.write; none = what you may do.")
@click.option("--expires", type=click.IntRange(min=1), metavar="DAYS", help="Refused after this many days.")
@click.option("--name", default="", help="What people call it.")
@with_client
def create(client: Client, principal: str, scopes: tuple[str, ...], expires: int | None, name: str) -> None:
    """Create a key and print it; it is shown this once."""
    body: dict[str, Any] = {"principal_id": principal, "scopes": list(scopes), "display_name": name}
    if expires is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=expires)).isoformat(timespec="seconds")
    made = client.post("/v1/keys", body)
    key = made["key"]
    until = f", expires {key['expires_at'][:10]}" if key.get("expires_at") else ""
    click.echo(f"{key['key_id']} for {principal}, may {', '.join(key.get('scopes', ())) or 'nothing'}{until}", err=True)
    click.echo(made["api_key"])


@keys.command("list")
@with_client
def list_keys(client: Client) -> None:
    """List the workspace's keys, oldest first; never the keys themselves."""
    rows = [
        (
            key["key_id"],
            key.get("principal_id", ""),
            key.get("display_name", ""),
            f"…{key.get('last_four', '')}",
            " ".join(key.get("scopes", ())),
            _state(key),
        )
        for key in client.pages("/v1/keys", "keys")
    ]
    show_table("Keys", ("key", "principal", "name", "ends in", "scopes", "state"), rows)


@keys.command()
@click.argument("key_id")
@with_client
def revoke(client: Client, key_id: str) -> None:
    """Revoke a key: it is refused from now on."""
    key = client.post(f"/v1/keys/{key_id}:revoke")
    click.echo(f"{key['key_id']} of {key.get('principal_id', '')} is revoked.")


def _state(key: dict[str, Any]) -> str:
    if key.get("revoked_at"):
        return f"revoked {key['revoked_at'][:10]}"
    return f"until {key['expires_at'][:10]}" if key.get("expires_at") else "active"
