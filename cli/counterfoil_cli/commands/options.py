"""Options that commands share."""

from pathlib import Path

import click

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(".counterfoil"),
    show_default=True,
    envvar="COUNTERFOIL_DATA_DIR",
    show_envvar=True,
    help="Folder of everything stored locally.",
)
port_offset_option = click.option(
    "--port-offset",
    type=click.IntRange(-1000, 45000),
    default=0,
    show_default=True,
    help="Added to every port.",
)
