"""The command `counterfoil`: a table of commands, each imported when it is used."""

import importlib
import sys

import click
from counterfoil_chassis.errors import StartError

from counterfoil_cli import settings

# name -> (module, attribute, what --help says of it in one line)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("counterfoil_cli.commands.up", "up", "Start every process on this machine."),
    "demo": ("counterfoil_cli.commands.demo", "demo", "Start everything and run the examples, one after the other."),
    "console": ("counterfoil_cli.commands.console", "console", "Print a link that signs a browser in to the console."),
    "status": ("counterfoil_cli.commands.status", "status", "Show what is there: datasets, sources, imports, models."),
    "keys": ("counterfoil_cli.commands.keys", "keys", "Create, list and revoke API keys."),
    "import": ("counterfoil_cli.commands.imports", "import_file", "Import a file into a dataset."),
    "sync": ("counterfoil_cli.commands.sync", "sync", "Bring what a source has new: HubSpot, PostgreSQL."),
    "contract": ("counterfoil_cli.commands.contract", "contract", "Check contracts."),
    "backup": (
        "counterfoil_cli.commands.backup",
        "backup",
        "Take a backup of everything, while it runs or when it is stopped.",
    ),
    "restore": ("counterfoil_cli.commands.restore", "restore", "Restore BACKUP into an empty folder."),
    "migrate": (
        "counterfoil_cli.commands.migrate",
        "migrate",
        "Create what is missing of the services' PostgreSQL databases, and bring each to this release.",
    ),
    "migrate-engine": (
        "counterfoil_cli.commands.migrate_engine",
        "migrate_engine",
        "Copy the databases of a stopped installation to PostgreSQL.",
    ),
    "secrets": (
        "counterfoil_cli.commands.secrets",
        "secrets",
        "Make every key and password of an installation in DIR, for containers.",
    ),
    "doctor": (
        "counterfoil_cli.commands.doctor",
        "doctor",
        "Look at everything an installation needs, and say what to do.",
    ),
    "privacy": ("counterfoil_cli.commands.privacy", "privacy", "Carry out what people may ask for by law."),
    "audit": ("counterfoil_cli.commands.audit", "audit", "Export and verify the audit log."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or return None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="counterfoil-cli", prog_name="counterfoil")
def main() -> None:
    """Marketing data in, every number out with a receipt."""
    try:
        settings.adopt_secrets()
    except StartError as error:
        click.echo(f"counterfoil: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
