"""`counterfoil migrate`."""

import sys

import click
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.migrate import create, upgrade
from counterfoil_chassis.postgresql import is_postgresql
from counterfoil_chassis.settings import url_of
from counterfoil_chassis.stores import stores

from counterfoil_cli import settings


@click.command()
@click.option(
    "--database-url",
    envvar="COUNTERFOIL_DATABASE_URL",
    show_envvar=True,
    default="",
    help="The PostgreSQL server, postgresql://user:password@host:5432.",
)
def migrate(database_url: str) -> None:
    """Create what is missing of the services' PostgreSQL databases, and bring each to this release.

    A service's own COUNTERFOIL_<SERVICE>_DATABASE_URL is followed, too. Stop the services before an upgrade of the
    release; SQLite files need none of this: they are upgraded at start.
    """
    environment = settings.inherited()
    places = {
        name: environment.get(f"COUNTERFOIL_{name.upper()}_DATABASE_URL")
        or (url_of(name, database_url) if database_url else "")
        for name in stores()
    }
    places = {name: url for name, url in places.items() if url and is_postgresql(url)}
    if not places:
        raise click.UsageError("Name the PostgreSQL server by --database-url or COUNTERFOIL_DATABASE_URL.")
    try:
        for name, url in places.items():
            made = create(url)
            upgrade(url, stores()[name].migrations)
            click.echo(f"{name}: {'created' if made else 'there already'}, at this release")
    except StartError as error:
        click.echo(f"counterfoil migrate: {error}", err=True)
        sys.exit(2)
