"""`counterfoil demo`."""

import runpy
import sys
import time
from functools import partial
from pathlib import Path

import click
from counterfoil_chassis.errors import StartError

from counterfoil_cli import settings
from counterfoil_cli.commands.options import data_option, port_offset_option
from counterfoil_cli.launcher import Journey, Launcher, Options
from counterfoil_cli.supervisor import CANNOT_START

SCRIPT = Path("examples", "complete_journey", "demo.py")


@click.command()
@data_option
@port_offset_option
@click.option("--exit", "exit_after", is_flag=True, help="Stop everything after the report.")
def demo(data: Path, port_offset: int, exit_after: bool) -> None:
    """Start everything and run the complete journey.

    A grocer's real year: contracts, imports, live events, forecasts, one receipt replayed. Keeps serving after the
    report until Ctrl-C.
    """
    began = time.monotonic()
    try:
        script = find_script(Path.cwd())
        launcher = Launcher(Options(data, port_offset), began=began)
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(CANNOT_START)
    variables = {
        "COUNTERFOIL_URL": launcher.addresses.rest,
        "COUNTERFOIL_API_KEY": launcher.key,
        "COUNTERFOIL_TRACES_URL": launcher.addresses.traces,
    }
    sys.exit(launcher.run(Journey(partial(run_script, script, variables), exit_after=exit_after)))


def find_script(start: Path) -> Path:
    """Return the journey's script in the repository around `start`; raise StartError outside of one."""
    for folder in (start, *start.parents):
        if (folder / SCRIPT).is_file():
            return folder / SCRIPT
    raise StartError(f"{SCRIPT} is not in this folder nor above it; run `counterfoil demo` inside the repository.")


def run_script(script: Path, variables: dict[str, str]) -> None:
    """Run the script as the main program of this process, as `python script` would."""
    settings.adopt(variables)
    sys.argv = [str(script)]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
