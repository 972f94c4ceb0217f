"""Bring a service's database to the revision its release needs, with Alembic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from counterfoil_chassis.database import set_up_sqlite
from counterfoil_chassis.errors import StartError


def upgrade(url: str, package: str) -> None:
    """Run `<package>/migrations` to the newest revision; raise StartError when the database is newer or unreadable."""
    _with_connection(url, lambda connection: _upgrade(connection, package))


def prepare(url: str, package: str) -> None:
    """Make the database fit before serving: SQLite is upgraded, an older PostgreSQL is refused by StartError."""
    if make_url(url).get_backend_name() == "sqlite":
        upgrade(url, package)
    else:
        require_newest(url, package)


def require_newest(url: str, package: str) -> None:
    """Raise StartError, naming the command to run, unless the database is at the newest revision."""
    current: list[str] = []
    _with_connection(url, lambda connection: current.extend(_revisions(connection)))
    config = _config(package)
    _refuse_unknown(config, current)
    newest = list(ScriptDirectory.from_config(config).get_heads())
    if current != newest:
        found = ", ".join(current) or "none"
        raise StartError(
            f"the database is at revision {found}, this release needs {', '.join(newest)}: "
            f"run `python -m {package} migrate`"
        )


def _upgrade(connection: Connection, package: str) -> None:
    config = _config(package)
    _refuse_unknown(config, _revisions(connection))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_unknown(config: Config, revisions: list[str]) -> None:
    script = ScriptDirectory.from_config(config)
    for revision in revisions:
        try:
            script.get_revision(revision)
        except CommandError:
            raise StartError(
                f"the database is at revision {revision}, which this release does not know: "
                "it was written by a newer release; start that one, or restore a backup"
            ) from None


def _revisions(connection: Connection) -> list[str]:
    return list(MigrationContext.configure(connection).get_current_heads())


def _config(package: str) -> Config:
    config = Config()
    folders = {
        "script_location": files("counterfoil_chassis") / "migrations",
        "version_locations": files(package) / "migrations",
    }
    config.set_main_option("path_separator", "newline")
    for name, folder in folders.items():
        config.set_main_option(name, str(folder).replace("%", "%%"))
    return config


def _with_connection(url: str, work: Callable[[Connection], None]) -> None:
    if make_url(url).get_backend_name() == "sqlite":
        _with_sqlite(url, work)
        return

    # The driver is asyncio's and a loop may be running in this thread already.
    failures: list[BaseException] = []

    def in_thread() -> None:
        try:
            asyncio.run(_with_async_driver(url, work))
        except BaseException as error:  # noqa: BLE001 - carried over to the waiting thread, whatever it is
            failures.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _with_sqlite(url: str, work: Callable[[Connection], None]) -> None:
    place = make_url(url).set(drivername="sqlite")
    if place.database:
        _make_folder(Path(place.database).parent)
    engine = create_engine(place, poolclass=NullPool, connect_args={"isolation_level": None})
    set_up_sqlite(engine)
    try:
        with _opened(engine) as connection:
            work(connection)
    finally:
        engine.dispose()


@contextmanager
def _opened(engine: Engine) -> Iterator[Connection]:
    """Open a write transaction; only what fails before the work is told as a database that cannot be opened."""
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(engine.connect())
            stack.enter_context(connection.begin())
        except DatabaseError as error:
            raise StartError(f"the database {engine.url.database} cannot be opened: {error.orig}") from None
        yield connection


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"the data folder {folder} cannot be created: {error.strerror}") from None


async def _with_async_driver(url: str, work: Callable[[Connection], Any]) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(work)
    finally:
        await engine.dispose()
