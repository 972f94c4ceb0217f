"""What commands that call the gateway share: how they find it and the key, and how failures are told."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from pathlib import Path
from typing import Concatenate, ParamSpec

import click
from counterfoil_chassis.errors import StartError

from counterfoil_cli.client import ApiError, ApiProblem, Client
from counterfoil_cli.commands.options import data_option

DEFAULT_URL = "http://127.0.0.1:8080"
P = ParamSpec("P")


def with_client(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """Give a command the options that find the gateway and the key, and its first argument: the client.

    A call that fails is one line on stderr and exit code 1.
    """
    return _called(command, failure=1)


def with_client_or_two(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """Give a command the same; a call that fails is exit code 2, because 1 is an answer."""
    return _called(command, failure=2)


def _called(command: Callable[Concatenate[Client, P], None], *, failure: int) -> Callable[..., None]:

    @click.option(
        "--url",
        default=DEFAULT_URL,
        show_default=True,
        envvar="COUNTERFOIL_URL",
        show_envvar=True,
        help="The gateway.",
    )
    @click.option(
        "--key",
        envvar="COUNTERFOIL_API_KEY",
        show_envvar=True,
        help="The API key; without one, that of admin.key in the data folder.",
    )
    @click.option(
        "--ca-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        envvar="COUNTERFOIL_CA_FILE",
        show_envvar=True,
        help="Certificate of the authority that signed the gateway's; without one, those that the machine trusts.",
    )
    @data_option
    def called(url: str, key: str | None, ca_file: Path | None, data: Path, *args: P.args, **kwargs: P.kwargs) -> None:
        with tell_failures(failure), Client(url, key or read_admin_key(data), ca_file=ca_file) as client:
            command(client, *args, **kwargs)

    return update_wrapper(called, command)


def read_admin_key(data: Path) -> str:
    """Return the key in the data folder's admin.key; raise ClickException when there is none."""
    file = data / "admin.key"
    try:
        key = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise click.ClickException(
            f"No API key: {file} cannot be read ({error.strerror}); say --key, set COUNTERFOIL_API_KEY, "
            "or name the folder of `counterfoil up` with --data."
        ) from error
    if not key:
        raise click.ClickException(f"{file} is empty; say --key or set COUNTERFOIL_API_KEY.")
    return key


@contextmanager
def tell_failures(exit_code: int = 1) -> Iterator[None]:
    """Turn a failed call into one line on stderr (and one per field at fault) and an exit code."""
    try:
        yield
    except StartError as error:
        click.ClickException(str(error)).show()
        sys.exit(exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(max(exit_code, error.exit_code))
    except ApiError as error:
        click.echo(f"Error: {error}", err=True)
        if isinstance(error, ApiProblem):
            for fault in error.errors[:20]:
                click.echo(f"  {fault.get('field', '')}: {fault.get('detail', '')}", err=True)
        sys.exit(exit_code)
