"""The previous release's data on PostgreSQL, at the revisions which that release had: what a migration Job finds.

The rows are those of its golden folder, which its own processes wrote; the tables are made by its migrations.
"""

import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from alembic import command
from counterfoil_chassis import lease, migrate
from counterfoil_chassis.stores import stores
from sqlalchemy import Boolean, Connection, MetaData, select, text

from tests.postgres import direct

AT_WORK = {"alembic_version", "idempotency", "outbox", "change", "revision", "cursor", "log_state", "records_seen"}
"""Tables in which a release notes what is its own."""
GROWING = {"audit_entries", "policy_bundles"}
"""Tables to which a release adds as it begins: its policies, where a workspace has none of its own."""


def fill(server: str, folder: Path) -> None:
    """Make every service's database on a server from the SQLite files of a data folder."""
    for service, store in stores().items():
        url = f"{server}/counterfoil_{service}"
        migrate.create(url)
        migrate._with_connection(url, partial(_fill, file=folder / f"{service}.db", package=store.migrations))


def _fill(connection: Connection, *, file: Path, package: str) -> None:
    with closing(sqlite3.connect(file)) as source:
        _copy(source, connection, package)


def _copy(source: sqlite3.Connection, connection: Connection, package: str) -> None:
    [(revision,)] = source.execute("SELECT version_num FROM alembic_version")
    config = migrate._config(package)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    lease.TABLE.create(connection)  # as every `migrate` has
    tables = MetaData()
    tables.reflect(connection)
    tables.remove(tables.tables[lease.TABLE.name])
    for table in tables.sorted_tables:
        if table.name == "alembic_version":
            continue
        names = [column.name for column in table.columns]
        listed = ", ".join(f'"{name}"' for name in names)
        truths = {column.name for column in table.columns if isinstance(column.type, Boolean)}
        rows = [
            {
                name: bool(value) if name in truths and value is not None else value
                for name, value in zip(names, row, strict=True)
            }
            for row in source.execute(f'SELECT {listed} FROM "{table.name}"')
        ]
        if connection.execute(select(table)).first() is not None:
            connection.execute(table.delete())  # what the migrations put there is among the rows
        if rows:
            connection.execute(table.insert(), rows)
        for column in table.columns:
            if column.identity is not None or "nextval" in str(column.server_default):
                connection.execute(
                    text(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'),"
                        f' (SELECT coalesce(max("{column.name}"), 0) + 1 FROM "{table.name}"), false)'
                    )
                )


def revisions(server: str) -> dict[str, str]:
    """Return the revision of every service's database."""
    found: dict[str, str] = {}
    for service in stores():
        with direct(f"{server}/counterfoil_{service}") as database:
            [(found[service],)] = database.execute("SELECT version_num FROM alembic_version")
    return found


def newest() -> dict[str, str]:
    """Return the revision that this release needs of every service's database."""
    return {service: ", ".join(migrate.newest_revisions(store.migrations)) for service, store in stores().items()}


def rows(server: str, service: str, tables: list[str]) -> dict[str, int]:
    """Return how many rows tables of a service have."""
    with direct(f"{server}/counterfoil_{service}") as database:
        return {name: database.execute(f'SELECT count(*) FROM "{name}"')[0][0] for name in tables}


def secrets_of(folder: Path, to: Path) -> None:
    """Put the keys of a data folder where `counterfoil secrets` keeps what it finds."""
    for key in (folder / "keys").glob("*.pem"):
        (to / key.stem).mkdir(parents=True)
        shutil.copy(key, to / key.stem / "private_key.pem")
    (to / "admin").mkdir()
    shutil.copy(folder / "admin.key", to / "admin" / "admin.key")
