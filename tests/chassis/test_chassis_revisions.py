"""A database at its release's revision is known without Alembic, and by the same answer."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest
from counterfoil_chassis import migrate
from counterfoil_chassis.revisions import is_newest, newest, prepare, stored

PACKAGES = ["counterfoil_governance", "counterfoil_contracts", "counterfoil_ingest", "counterfoil_graph"]
PACKAGES += ["counterfoil_models"]


def folder_of(package: str) -> Path:
    return Path(str(files(package))) / "migrations"


def url_of(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_newest_revision_is_the_one_that_alembic_finds(package: str) -> None:
    found = newest(folder_of(package))
    assert found == set(migrate.newest_revisions(package))
    assert len(found) == 1


def test_only_a_database_at_the_newest_revision_needs_no_look(tmp_path: Path) -> None:
    file = tmp_path / "governance.db"
    package = "counterfoil_governance"
    assert not is_newest(url_of(file), package)
    file.touch()
    assert not is_newest(url_of(file), package)
    prepare(url_of(file), package)
    assert is_newest(url_of(file), package)
    assert stored(file) == newest(folder_of(package))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    assert not is_newest(url_of(file), package)
    file.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    assert not is_newest(url_of(file), package)
    assert not is_newest("postgresql://user:word@127.0.0.1:1/db", package)


def test_a_start_on_a_database_at_the_newest_revision_loads_no_alembic(tmp_path: Path) -> None:
    url = url_of(tmp_path / "contracts.db")
    program = (
        "import sys\n"
        "import counterfoil_chassis.serve\n"
        "from counterfoil_chassis.revisions import prepare\n"
        f"prepare({url!r}, 'counterfoil_contracts')\n"
        "print('alembic' in sys.modules)\n"
    )
    seen = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert seen == ["True", "False"]
