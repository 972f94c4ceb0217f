"""`counterfoil up`."""

import sys
import time
from pathlib import Path

import click
from counterfoil_chassis.errors import StartError

from counterfoil_cli.commands.options import data_option, port_offset_option
from counterfoil_cli.launcher import Launcher, Options
from counterfoil_cli.supervisor import CANNOT_START


@click.command()
@data_option
@port_offset_option
@click.option("--no-traces", is_flag=True, help="Start no trace sink and export no traces.")
def up(data: Path, port_offset: int, no_traces: bool) -> None:
    """Start every process on this machine.

    Ctrl-C stops everything. A setting in the environment wins over the ports and folders chosen here.
    """
    began = time.monotonic()
    try:
        launcher = Launcher(Options(data, port_offset, traces=not no_traces), began=began)
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(CANNOT_START)
    sys.exit(launcher.run())
