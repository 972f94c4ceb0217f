"""Bring a service's database to the revision its release needs, with Alembic."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from counterfoil_chassis import lease
from counterfoil_chassis.database import set_up_sqlite
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.postgresql import (
    NO_DATABASE,
    NOT_ALLOWED,
    WHO_ARE_YOU,
    connector,
    dsn_of,
    is_lost,
    is_postgresql,
    sqlstate,
)

T = TypeVar("T")
_ORDERS = ("C", "POSIX", "C.UTF-8", "C.utf8")
_POLL_SECONDS = 1.0
_logger = logging.getLogger(__name__)


class NewerDatabaseError(StartError):
    """A newer release has written the database."""


class NoDatabaseError(StartError):
    """The server has no such database."""


def make(url: str, package: str) -> None:
    """Bring a database to the newest revision, and create it first where the server has none."""
    try:
        upgrade(url, package)
    except NoDatabaseError:
        create(url)
        upgrade(url, package)


def upgrade(url: str, package: str) -> None:
    """Run `<package>/migrations` to the newest revision; raise StartError when the database is newer or unreadable."""
    _with_connection(url, lambda connection: _upgrade(connection, package))


def prepare(url: str, package: str) -> None:
    """Make the database fit before serving: SQLite is upgraded, an older PostgreSQL is refused by StartError."""
    if is_postgresql(url):
        require_newest(url, package)
    else:
        upgrade(url, package)


def wait_until_newest(url: str, package: str, *, seconds: float) -> None:
    """Return once another process has brought a PostgreSQL database to the newest revision.

    Raise StartError when nobody has within the time, and at once where waiting cannot help.
    """
    if not is_postgresql(url):
        raise StartError("there is nothing to wait for: on SQLite the service upgrades its own file when it starts")
    deadline, told = time.monotonic() + seconds, ""
    while True:
        try:
            return require_newest(url, package)
        except NewerDatabaseError:
            raise
        except StartError as error:
            if time.monotonic() >= deadline:
                raise StartError(f"after {seconds:g} s, {error}") from None
            if (problem := str(error)) != told:
                _logger.info("waiting for the database", extra={"detail": problem})
                told = problem
        time.sleep(_POLL_SECONDS)


def create(url: str) -> bool:
    """Create a PostgreSQL database that is missing, and tell; its texts are ordered by their bytes, as in SQLite.

    Raises StartError when the server cannot be reached or the role may not create databases.
    """
    place = make_url(url)
    server = place.set(database="postgres").render_as_string(hide_password=False)

    async def missing_made() -> bool:
        try:
            connection = await connector(server, name="counterfoil migrate")()
        except Exception as error:
            raise _refused(error, url) from error
        try:
            if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", place.database):
                return False
            name = '"' + str(place.database).replace('"', '""') + '"'
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        except Exception as error:
            if sqlstate(error) != NOT_ALLOWED:
                raise
            raise StartError(
                f"{place.database} cannot be created: {error}. Have it created (ENCODING UTF8, LOCALE C, owned by "
                f"{place.username}), then migrate again."
            ) from None
        finally:
            await connection.close()
        return True

    return _in_thread(missing_made)


def require_newest(url: str, package: str) -> None:
    """Raise StartError, naming the command to run, unless the database is at the newest revision."""
    current: list[str] = []
    _with_connection(url, lambda connection: current.extend(_revisions(connection)))
    config = _config(package)
    _refuse_unknown(config, current)
    newest = newest_revisions(package)
    if current != newest:
        found = ", ".join(current) or "none"
        raise StartError(
            f"the database is at revision {found}, this release needs {', '.join(newest)}: "
            f"run `counterfoil migrate`, or `python -m {package} migrate` for this service alone"
        )


def newest_revisions(package: str) -> list[str]:
    """Return the revision that `<package>/migrations` leads to."""
    return list(ScriptDirectory.from_config(_config(package)).get_heads())


def _upgrade(connection: Connection, package: str) -> None:
    config = _config(package)
    _refuse_unknown(config, _revisions(connection))
    if connection.dialect.name == "postgresql":
        _refuse_other_order(connection)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.dialect.name == "postgresql":
        lease.TABLE.create(connection, checkfirst=True)


def _refuse_other_order(connection: Connection) -> None:
    found = connection.execute(
        text("SELECT datname, datcollate, getdatabaseencoding() FROM pg_database WHERE datname = current_database()")
    ).one()
    if found.datcollate not in _ORDERS or found[2] != "UTF8":
        raise StartError(
            f"the database {found.datname} has encoding {found[2]} and LC_COLLATE {found.datcollate}: it needs UTF8 "
            "and C, so that texts are ordered by their bytes. Create it anew, or let `counterfoil migrate` create it."
        )


def _refuse_unknown(config: Config, revisions: list[str]) -> None:
    script = ScriptDirectory.from_config(config)
    for revision in revisions:
        try:
            script.get_revision(revision)
        except CommandError:
            raise NewerDatabaseError(
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
    if is_postgresql(url):
        _in_thread(lambda: _with_postgresql(url, work))
    else:
        _with_sqlite(url, work)


def _in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run asynchronous work though a loop may be running in this thread already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


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


async def _with_postgresql(url: str, work: Callable[[Connection], Any]) -> None:
    connect = connector(url, name="counterfoil migrate", statement_timeout="0")
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(work)
    except Exception as error:
        raise _refused(error, url) from error
    finally:
        await engine.dispose()


def _refused(error: Exception, url: str) -> Exception:
    """Return what to say of a failure: one line when the server or the database is to blame."""
    place = make_url(dsn_of(url))
    shown = place.render_as_string(hide_password=True)
    if sqlstate(error) == NO_DATABASE:
        return NoDatabaseError(f"there is no database {place.database} on {shown}: run `counterfoil migrate`")
    if sqlstate(error).startswith(WHO_ARE_YOU) or is_lost(error):
        return StartError(f"the database {shown} cannot be used: {error}")
    return error
