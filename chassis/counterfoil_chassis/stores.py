"""Where each service keeps its data, for tools that work on the stores themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from sqlalchemy import MetaData

GROUP = "counterfoil.stores"
_SERVICES = ("governance", "contracts", "ingest", "graph", "models")


@dataclass(frozen=True)
class Store:
    """One service's store: the tables of its database and the folders below the data folder that belong to it.

    `metadata` has the chassis' tables, too; views are not in it. `migrations` is the package that holds the folder
    `migrations`.
    """

    service: str
    metadata: MetaData
    migrations: str
    files: tuple[str, ...] = ()

    @property
    def database(self) -> str:
        """The name of its database on a server."""
        return f"counterfoil_{self.service}"


@cache
def stores() -> dict[str, Store]:
    """Return the store of every service that is installed here, by service."""
    return {entry.name: entry.load() for entry in entry_points(group=GROUP)} or _by_name()


def _by_name() -> dict[str, Store]:
    """Look where the services have their tables: an installation may be older than the entry points."""
    found: dict[str, Store] = {}
    for service in _SERVICES:
        package = f"counterfoil_{service}"
        if find_spec(package) is not None:
            found[service] = import_module(f"{package}.sql.tables").STORE
    return found
