"""`counterfoil demo`."""

import importlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import click
from counterfoil_chassis.errors import StartError

from counterfoil_cli import settings
from counterfoil_cli.commands.calling import read_admin_key
from counterfoil_cli.commands.options import data_option, port_offset_option
from counterfoil_cli.launcher import Journey, Launcher, Options
from counterfoil_cli.supervisor import CANNOT_START

EXAMPLES = Path("examples")
PACKS = ("complete_journey", "harbour_store")


@click.command()
@data_option
@port_offset_option
@click.option("--exit", "exit_after", is_flag=True, help="Stop everything after the report.")
@click.option("--pack", "packs", multiple=True, type=click.Choice(PACKS), help="Only this one; may be given twice.")
@click.option("--url", help="Start nothing: run against this gateway, with the admin's key of the data folder.")
def demo(data: Path, port_offset: int, exit_after: bool, packs: tuple[str, ...], url: str | None) -> None:
    """Start everything and run the examples, one after the other.

    The Complete Journey, a grocer's real year: contracts, imports, live events, an approved forecast, attribution
    beside lift, receipts replayed. Then the Harbour Store, which is synthetic: a shop whose truth is known.
    Keeps serving after the reports until Ctrl-C.
    """
    began = time.monotonic()
    chosen = packs or PACKS
    try:
        examples = find_examples(Path.cwd(), chosen)
        if url:
            run_packs(examples, chosen, {"COUNTERFOIL_URL": url, "COUNTERFOIL_API_KEY": read_admin_key(data)})
        launcher = Launcher(Options(data, port_offset), began=began)
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(CANNOT_START)
    variables = {
        "COUNTERFOIL_URL": launcher.addresses.rest,
        "COUNTERFOIL_API_KEY": launcher.key,
        "COUNTERFOIL_TRACES_URL": launcher.addresses.traces,
    }
    run = partial(run_packs, examples, chosen, variables)
    sys.exit(launcher.run(Journey(run, exit_after=exit_after)))


def find_examples(start: Path, packs: Sequence[str]) -> Path:
    """Return the folder of the examples in the repository around `start`; raise StartError outside of one."""
    for folder in (start, *start.parents):
        if all((folder / EXAMPLES / pack / "demo.py").is_file() for pack in packs):
            return folder / EXAMPLES
    raise StartError(
        f"{EXAMPLES / packs[0]} is not in this folder nor above it; run `counterfoil demo` inside the repository."
    )


def run_packs(examples: Path, packs: Sequence[str], variables: dict[str, str]) -> NoReturn:
    """Run the packs in this process and exit with the code of the first that fails, else with 0."""
    settings.adopt(variables)
    sys.path.insert(0, str(examples))
    for pack in packs:
        code: int = importlib.import_module(f"{pack}.demo").main()
        if code:
            sys.exit(code)
    sys.exit(0)
