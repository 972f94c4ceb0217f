"""One installation for the whole run, and workspaces in it."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.system.doors import GrpcDoor, RestDoor
from tests.system.installation import Installation
from tests.system.story import World
from tests.system.tenant import Tenant
from tests.system.trust_story import WHOLE_STORY


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everything, started by `counterfoil up`; must end with exit code 0 and leave no process behind."""
    with Installation.running(tmp_path_factory.mktemp("system") / "data") as started:
        yield started
        assert started.stop() == 0, started.output.read_text(errors="replace")
        assert started.leftovers() == []


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
def worlds(
    installation: Installation, make_tenant: Callable[[str], Tenant], rest_door: RestDoor, grpc_door: GrpcDoor
) -> tuple[World, World]:
    """Two workspaces in which every public method was called: in the first by REST, in the second by gRPC."""
    by_rest, by_grpc = (World(make_tenant(name), installation.admin_key) for name in ("rest", "grpc"))
    with ThreadPoolExecutor(2) as narrators:
        told = [
            narrators.submit(by_rest.tell, rest_door, WHOLE_STORY),
            narrators.submit(by_grpc.tell, grpc_door, WHOLE_STORY),
        ]
    for telling in told:
        telling.result()
    return by_rest, by_grpc
