"""Compose the graph by hand and serve it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from counterfoil_chassis.database import Database
from counterfoil_chassis.serve import Host, Service, run

from counterfoil_graph.settings import Settings


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the database and return what is served."""
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    return Service(servicers=[])


def main() -> None:
    """Serve the graph, or run `migrate`."""
    run("graph", Settings, build, migrations="counterfoil_graph")


if __name__ == "__main__":
    main()
