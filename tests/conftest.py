"""What every test can ask for: a real PostgreSQL, and the engine under which a test's services keep their data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Server, missing

ENGINES = ("sqlite", "postgresql")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=ENGINES,
        help="Keep the data of tests/system there (by default SQLite); tests that know both engines run on this one.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: it looks into SQLite's own file; on one engine alone")
    config.addinivalue_line(
        "markers", "both_engines(*services): run on SQLite and on PostgreSQL, with fresh databases of these services"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("both_engines")
    if marked is not None and metafunc.definition.get_closest_marker("sqlite") is None:
        chosen = metafunc.config.getoption("--engine")
        metafunc.parametrize("engine", [chosen] if chosen else ENGINES, indirect=True)


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
