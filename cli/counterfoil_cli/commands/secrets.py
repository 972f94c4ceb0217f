"""`counterfoil secrets`."""

import secrets as randomness
import sys
from pathlib import Path

import click
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.identity import write_key_pair

from counterfoil_cli.env import BOOTSTRAP_KEY, CALL_ORDER
from counterfoil_cli.folder import api_key, kept, sha256_hex, write_secret

DATABASE_USER = "counterfoil"
WITHOUT_DATABASE = ("gateway",)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--database", default="postgres:5432", show_default=True, metavar="HOST:PORT", help="The PostgreSQL server."
)
def secrets(folder: Path, database: str) -> None:
    """Make every key and password of an installation in DIR, for containers.

    One folder per process, to be mounted in that process alone: its private key and its database's URL; beside them
    the public keys of all, the admin's API key, and the password of PostgreSQL. A secret that is there already is
    kept, so that the command can run before every start.
    """
    try:
        made = write_secrets(folder, database=database)
    except StartError as error:
        click.echo(f"counterfoil secrets: {error}", err=True)
        sys.exit(2)
    for file in made:
        click.echo(f"made {file.relative_to(folder)}")
    click.echo(f"{folder} holds every secret.")


def write_secrets(folder: Path, *, database: str) -> list[Path]:
    """Make what is missing and return its files; raise StartError when one cannot be made or is not what it should be.

    What follows from a secret (public keys, the SHA-256 of the admin's key) follows it when it was replaced.
    """
    try:
        before = _files(folder)
        for name in (*CALL_ORDER, "admin"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "postgres").mkdir(mode=0o750, exist_ok=True)
        # The database has a user of its own, who is let in by the group.
        password = kept(folder / "postgres" / "password", lambda: randomness.token_urlsafe(32), mode=0o640).strip()
        url = f"postgresql://{DATABASE_USER}:{password}@{database}"
        for name in CALL_ORDER:
            write_key_pair(folder / name / "private_key.pem", folder / "trusted", name)
            if name not in WITHOUT_DATABASE:
                kept(folder / name / "counterfoil_database_url", lambda: url)
        expected = sha256_hex(api_key(folder / "admin" / "admin.key"))
        if kept(folder / "governance" / BOOTSTRAP_KEY.lower(), lambda: expected).strip() != expected:
            write_secret(folder / "governance" / BOOTSTRAP_KEY.lower(), expected)
        return sorted(_files(folder) - before)
    except OSError as error:
        raise StartError(f"{error.filename or folder} cannot be used: {error.strerror or error}.") from error


def _files(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.is_file()}
