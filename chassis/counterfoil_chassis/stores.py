"""Where each service keeps its data, for tools that work on the stores themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    `migrations`. `restoring` names a module with `describe(connection)`, what a backup says of a SQLite database of
    this service, and maybe `restore(connection, Restored)`, what a restore changes in it.
    """

    service: str
    metadata: MetaData
    migrations: str
    files: tuple[str, ...] = ()
    restoring: str = ""


@dataclass(frozen=True)
class Restored:
    """A restore under way: the log's new life, and what the audit log is told of it.

    `erasures` counts, by workspace, those that newer data knows and that are carried out again.
    """

    log_epoch: str
    now_us: int
    new_id: Callable[[], str]
    backup_taken_at: str
    workspaces: Sequence[str]
    erasures: Mapping[str, int]


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
