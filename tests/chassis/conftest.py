"""A data folder with the keys of a few services, and a database with the chassis tables."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from counterfoil_chassis.database import Database
from counterfoil_chassis.identity import write_key_pair
from counterfoil_chassis.migrate import create, upgrade

from tests.chassis.probe import ProbeSettings

MIGRATION = """
from alembic import op
from counterfoil_chassis.tables import create_v1

revision = "0001"
down_revision = None


def upgrade():
    create_v1(op)
    op.execute("CREATE TABLE note (text TEXT PRIMARY KEY)")
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    trusted = tmp_path / "keys" / "trusted"
    for name in ("gateway", "models", "ingest", "probe"):
        write_key_pair(tmp_path / "keys" / f"{name}.pem", trusted, name)
    return tmp_path


@pytest.fixture
def settings(data_dir: Path) -> ProbeSettings:
    return ProbeSettings(data_dir=data_dir)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package on disk with one migration: the chassis tables and a table `note`."""
    name = f"probe_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / "code" / name / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "0001_initial.py").write_text(MIGRATION)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield name
    for module in [each for each in sys.modules if each.split(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, package: str, engine: str) -> str:
    """A migrated database of the test's engine."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'data' / 'probe.db'}"
    if engine == "postgresql":
        url = request.getfixturevalue("postgres").empty()
        create(url)
    upgrade(url, package)
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
