"""One installation for the whole run, and workspaces in it."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.system.doors import GrpcDoor, RestDoor
from tests.system.installation import Installation, until
from tests.system.previous_client import PreviousDoor
from tests.system.story import World
from tests.system.tenant import Tenant
from tests.system.trust_story import WHOLE_STORY

ON_BOTH_ENGINES = ("test_event_clients", "test_trust", "test_receipts_and_traces")
"""What runs on PostgreSQL in every run; `--engine=postgresql` runs everything there."""

ON_SQLITE_ALONE = ("test_disks", "test_previous_release")
"""What is about SQLite's own files."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--engine") == "postgresql":
        for item in items:
            if item.path.stem in ON_SQLITE_ALONE:
                item.add_marker(pytest.mark.skip("it is about the files of SQLite"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "installation" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH_ENGINES
        chosen = metafunc.config.getoption("--engine")
        engines = [chosen] if chosen else ["sqlite", "postgresql"] if both else ["sqlite"]
        metafunc.parametrize("installation", engines, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have every installation of the run keep its data where `--engine` says."""
    if request.config.getoption("--engine") == "postgresql":
        Installation.server = request.getfixturevalue("postgres")
    yield
    Installation.server = None


@pytest.fixture(scope="session")
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server: None
) -> Iterator[Installation]:
    """Everything, started by `counterfoil up`; must end with exit code 0 and leave no process behind."""
    settings = {}
    if request.param == "postgresql":
        settings["COUNTERFOIL_DATABASE_URL"] = request.getfixturevalue("postgres").installation()
    with Installation.running(tmp_path_factory.mktemp("system") / "data", settings=settings) as started:
        yield started
        assert started.stop() == 0, started.output.read_text(errors="replace")
        until(lambda: not started.leftovers() or None, seconds=30, what="processes are left behind")


@pytest.fixture(scope="session")
def admin(installation: Installation) -> Iterator[httpx.Client]:
    """The REST door with the installation's admin key."""
    with installation.http(installation.admin_key) as client:
        yield client


@pytest.fixture(scope="session")
def make_tenant(installation: Installation, admin: httpx.Client) -> Iterator[Callable[[str], Tenant]]:
    """Make workspaces, each with the key of its first principal."""
    numbers = itertools.count(1)
    made: list[Tenant] = []

    def make(name: str) -> Tenant:
        made.append(Tenant.create(installation, admin, workspace=f"{name}-{next(numbers)}"))
        return made[-1]

    yield make
    for tenant in made:
        tenant.http.close()


@pytest.fixture(scope="module")
def tenant(make_tenant: Callable[[str], Tenant]) -> Tenant:
    """A workspace of this file's own."""
    return make_tenant("tenant")


@pytest.fixture(scope="session")
def rest_door(installation: Installation) -> Iterator[RestDoor]:
    """The REST door; each call brings its own key."""
    with installation.http() as client:
        yield RestDoor(client)


@pytest.fixture(scope="session")
def grpc_door(installation: Installation) -> Iterator[GrpcDoor]:
    """The gRPC door; each call brings its own key."""
    with installation.channel() as channel:
        yield GrpcDoor(channel)


@pytest.fixture(scope="session")
def previous_door(installation: Installation) -> Iterator[PreviousDoor]:
    """The gRPC door as the previous release's client uses it."""
    with installation.channel() as channel:
        yield PreviousDoor(channel)


@pytest.fixture(scope="session")
def worlds(
    installation: Installation, make_tenant: Callable[[str], Tenant], rest_door: RestDoor, previous_door: PreviousDoor
) -> tuple[World, World]:
    """Two workspaces in which every public method was called: in the first by REST, in the second by gRPC.

    The second is that of a client which knows only the previous release's protos.
    """
    by_rest, by_grpc = (World(make_tenant(name), installation.admin_key) for name in ("rest", "grpc"))
    with ThreadPoolExecutor(2) as narrators:
        told = [
            narrators.submit(by_rest.tell, rest_door, WHOLE_STORY),
            narrators.submit(by_grpc.tell, previous_door, WHOLE_STORY),
        ]
    for telling in told:
        telling.result()
    return by_rest, by_grpc
