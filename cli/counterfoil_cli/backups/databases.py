"""Which database each service has, read from the settings that the services read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.postgresql import PgConnection, connector, is_lost, is_postgresql, sqlstate
from counterfoil_chassis.settings import url_of
from counterfoil_chassis.stores import Store, stores
from sqlalchemy.engine import make_url

SERVER = "COUNTERFOIL_DATABASE_URL"
REBUILT = frozenset({"lake"})
"""Folders that ingest makes again from the log."""


@dataclass(frozen=True)
class Place:
    """A service's store and where its database is."""

    store: Store
    url: str

    @property
    def service(self) -> str:
        """The service's name."""
        return self.store.service

    @property
    def file(self) -> Path | None:
        """The SQLite file; None on PostgreSQL."""
        return None if is_postgresql(self.url) else Path(make_url(self.url).database or "")

    @property
    def shown(self) -> str:
        """The place for people, without the password."""
        return make_url(self.url).render_as_string(hide_password=True) if self.file is None else str(self.file)


def places(folder: Path, environment: Mapping[str, str]) -> dict[str, Place]:
    """Return every service's place; raise StartError when a service is not installed here."""
    found = stores()
    missing = sorted({"governance", "contracts", "ingest", "graph", "models"} - found.keys())
    if missing:
        raise StartError(f"Not installed: {', '.join(missing)}; run this where every service is installed.")
    server = environment.get(SERVER, "")
    made: dict[str, Place] = {}
    for service, store in found.items():
        own = environment.get(f"COUNTERFOIL_{service.upper()}_DATABASE_URL", "")
        file = f"sqlite+aiosqlite:///{folder / f'{service}.db'}"
        made[service] = Place(store, own or (url_of(service, server) if server else file))
    return made


def tables(store: Store) -> list[Any]:
    """Return a store's tables, each after those that it refers to."""
    return list(store.metadata.sorted_tables)


async def connected(place: Place) -> PgConnection:
    """Open a connection to a service's PostgreSQL database; raise StartError when that is not possible."""
    try:
        return await connector(place.url, name="counterfoil", statement_timeout="0")()
    except Exception as error:
        if not (is_lost(error) or sqlstate(error)):
            raise
        raise StartError(f"{place.shown} cannot be used: {error}") from None
