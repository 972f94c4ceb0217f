"""`counterfoil console`."""

import click

from counterfoil_cli.client import Client
from counterfoil_cli.commands.calling import with_client


@click.command()
@with_client
def console(client: Client) -> None:
    """Print a link that signs a browser in to the console.

    It works once, for ten minutes, and opens what the key may do.
    """
    click.echo(client.post("/console/sign-in-links")["url"])
