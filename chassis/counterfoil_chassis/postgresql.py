"""Connections to PostgreSQL: one way to open them, and what their failures mean."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

if TYPE_CHECKING:
    import asyncpg  # the driver is loaded where it is used: it takes 40 ms, and SQLite needs none

# The class takes a parameter in the stubs only.
PgConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 70.0  # a little longer than the server works on a statement: then it, or the way to it, is gone
_SETTINGS = {"synchronous_commit": "on", "statement_timeout": "60s", "jit": "off"}  # our statements are short
# What was sent and not acknowledged for so long ends a connection; one that rests is asked for a sign of life.
_SILENCE = {"TCP_USER_TIMEOUT": 10_000, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}
NO_TABLE = "42P01"
NO_DATABASE = "3D000"
NOT_ALLOWED = "42501"
WHO_ARE_YOU = "28"  # what such codes begin with
# Appendix A of PostgreSQL's manual: connection exception, insufficient resources, operator intervention, system error;
# a transaction that stood still too long; a server that may not write, as a replica or by its administrator.
_LOST_STATES = ("08", "53", "57", "58", "25P03", "25006")


def is_postgresql(url: str) -> bool:
    """Tell whether a database's URL is one of PostgreSQL."""
    return make_url(url).get_backend_name() == "postgresql"


def dsn_of(url: str) -> str:
    """Return a URL as the driver and libpq read it, without SQLAlchemy's name of the driver."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def connector(url: str, *, name: str, **settings: str) -> Callable[..., Awaitable[PgConnection]]:
    """Return a function that opens a connection with these settings; `pg_stat_activity` shows the name.

    What the function raises when the server cannot be reached `is_lost` knows.
    """
    dsn, of_session = dsn_of(url), _SETTINGS | settings | {"application_name": name}
    patience = _PATIENCE_SECONDS if of_session["statement_timeout"] != "0" else None

    async def connect() -> PgConnection:
        import asyncpg  # noqa: PLC0415  (see above)

        connection = await asyncpg.connect(
            dsn, timeout=CONNECT_SECONDS, command_timeout=patience, server_settings=of_session
        )
        _notice_silence(connection)
        return connection

    return connect


def _notice_silence(connection: PgConnection) -> None:
    """Have the system end a connection whose other end has vanished without a word, as that of a replaced pod does.

    libpq has the parameter tcp_user_timeout for it, the driver none; by default Linux sends again for a quarter of an
    hour. A server that works on a long statement is alive, and its kernel says so.
    """
    transport: asyncio.BaseTransport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    wire = transport.get_extra_info("socket")
    if wire is None or wire.family not in (socket.AF_INET, socket.AF_INET6):
        return
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _SILENCE.items():
        if (number := getattr(socket, option, None)) is not None:  # Linux has them all
            wire.setsockopt(socket.IPPROTO_TCP, number, value)


def is_lost(error: BaseException) -> bool:
    """Tell whether a failure is of the database or the way to it, not of the statement: later the same may succeed."""
    if isinstance(error, DBAPIError):
        cause = error.orig.__cause__ if error.orig is not None else None
        return error.connection_invalidated or (cause is not None and is_lost(cause))
    if state := sqlstate(error):
        return state.startswith(_LOST_STATES)
    if type(error).__module__.startswith("asyncpg"):
        return "closed" in str(error)  # under the call; else it is a bug of ours
    return isinstance(error, OSError | PoolTimeoutError)


def sqlstate(error: BaseException) -> str:
    """Return the code of a failure that the server told; empty for any other."""
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(getattr(cause, "sqlstate", None) or "")
