"""What every test can ask for: a real PostgreSQL, and the engine under which a test's services keep their data.

And how a run is shared between workers (`pytest -n 3`): by files, but for those that use one installation; where its
files are; and what runs only with `--soak`.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx._transports.default as httpx_transports
import psutil
import pytest
from counterfoil_chassis import migrate
from counterfoil_chassis.postgresql import is_postgresql
from hypothesis import settings
from sqlalchemy.engine import make_url
from xdist.scheduler import LoadScopeScheduling

from tests.ports import free_port
from tests.postgres import Server, missing

ENGINES = ("sqlite", "postgresql")
LONG = ("tests/console", "tests/gateway", "tests/system")
"""Folders whose files use one installation, or one gateway: workers begin with them, as they are long."""

settings.register_profile("counterfoil", deadline=None, print_blob=True)
settings.register_profile("soak", settings.get_profile("counterfoil"), max_examples=1000)
settings.load_profile("counterfoil")  # a busy machine is no counterexample, and a real one can be tried again elsewhere

MEMORY = Path("/dev/shm")
ROOM = 6 << 30
"""Bytes that must be free before a run keeps its files in memory: several times what one was seen to have at once."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=ENGINES,
        help="Keep the data of tests/system there (by default SQLite); tests that know both engines run on this one.",
    )
    parser.addoption("--soak", action="store_true", help="Run the long form of tests too, as `make soak` does.")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _keep_files_in_memory()
    if config.getoption("--soak"):
        settings.load_profile("soak")
    config.addinivalue_line(
        "markers", "soak(*engines): the long form of what others prove, for `--soak`; with engines, on these alone"
    )
    config.addinivalue_line("markers", "sqlite: it looks into SQLite's own file; on one engine alone")
    config.addinivalue_line(
        "markers", "both_engines(*services): run on SQLite and on PostgreSQL, with fresh databases of these services"
    )
    config.addinivalue_line(
        "markers", "figures: what it prints is shown at the end of the run, whichever worker ran it"
    )
    config.addinivalue_line("markers", "alone: it measures time or memory; no other worker runs a test meanwhile")


def _keep_files_in_memory() -> None:
    """Have temporary folders in memory where there is room: most of a run's waiting is for a disk's fsync.

    Processes are killed here, never the machine, so no test can tell a synchronised file from one that is not; what
    looks for a full disk mounts one of its own. Who names a place, by TMPDIR or --basetemp, has it.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK | os.X_OK):
        return
    found = os.statvfs(MEMORY)
    if found.f_flag & os.ST_NOEXEC or min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available) < ROOM:
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)  # of workers, and of what tests start, too


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Have the collector of cycles pass over what is collected, while it is and after: it lasts as long as the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("both_engines")
    if marked is not None and metafunc.definition.get_closest_marker("sqlite") is None:
        chosen = metafunc.config.getoption("--engine")
        metafunc.parametrize("engine", [chosen] if chosen else ENGINES, indirect=True)


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Name binary values by their argument: workers must find the same names, and gzip writes down the time."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


class Shares(LoadScopeScheduling):
    """What a worker takes at once: a file, or all tests that use one installation."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        if folder != "tests/system":
            return folder if folder in LONG else file
        engine = re.search(r"[\[-](sqlite|postgresql)[]-]", nodeid)  # who has none starts its own
        return f"{folder} on {engine[1]}" if engine else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False
    return Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        for item in items:
            if _is_long(item):
                item.add_marker(pytest.mark.skip("runs in `make soak`"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def _is_long(item: pytest.Item) -> bool:
    engines = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    return any(not marked.args or not set(marked.args).isdisjoint(engines) for marked in item.iter_markers("soak"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let tests that are marked `alone` wait for those of other workers, and these for them."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    folder = Path(item.config.option.basetemp).parent  # of all workers
    mode = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with (folder / "room").open("w") as room, (folder / "door").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits for the room lets nobody pass
        fcntl.flock(room, mode)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # closing is not enough while a forked child has it open


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that workers measured."""
    for report in terminalreporter.stats.get("passed", ()):
        if "figures" in report.keywords and report.capstdout:
            terminalreporter.write_line(f"{report.nodeid}:\n{report.capstdout.strip()}")


@pytest.fixture(scope="session", autouse=True)
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have a service's new SQLite database made by its migrations once, and after that by copying the file."""
    made: dict[str, Path] = {}
    migrations = migrate.upgrade

    def upgrade(url: str, package: str) -> None:
        file = Path(make_url(url).database or "")
        known = package.startswith("counterfoil_") and not is_postgresql(url)
        if not known or file.exists() or not file.parent.is_dir():
            migrations(url, package)
            return
        if package not in made:
            new = tmp_path_factory.mktemp("migrated") / "new.db"
            migrations(f"sqlite+aiosqlite:///{new}", package)
            made[package] = new
        shutil.copyfile(made[package], file)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "upgrade", upgrade)
        yield


@pytest.fixture(scope="session", autouse=True)
def trusting() -> Iterator[None]:
    """Have httpx read the public authorities once, not for every client: that takes 25 ms, and a run makes thousands.

    Clients that trust other authorities, or name a certificate, get a context of their own.
    """
    make = httpx_transports.create_ssl_context
    public = make()

    def create(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
        other = trust_env and not os.environ.keys().isdisjoint(("SSL_CERT_FILE", "SSL_CERT_DIR"))
        return public if verify is True and cert is None and not other else make(verify, cert, trust_env)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(httpx_transports, "create_ssl_context", create)
        yield


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """In place of pytest-asyncio's: ports that nobody gets by chance before they are bound."""
    return free_port


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running PostgreSQL; skipped where there is none."""
    if why := missing():
        pytest.skip(why)
    server = Server()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the services of this test keep their data: settings made in it name fresh databases by themselves."""
    engine: str = getattr(request, "param", "sqlite")
    if engine == "sqlite":
        yield engine
        return
    server: Server = request.getfixturevalue("postgres")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    marked = request.node.get_closest_marker("both_engines")
    made = {service: server.database(service) for service in marked.args}
    for service, url in made.items():
        monkeypatch.setenv(f"COUNTERFOIL_{service.upper()}_DATABASE_URL", url)
    yield engine
    for url in made.values():
        server.drop(url)
