"""`counterfoil migrate`: what it makes, and what services say when it did not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.migrate import create, require_newest
from counterfoil_chassis.settings import url_of
from counterfoil_chassis.stores import stores

from tests.postgres import Server, direct

COMMAND = Path(sys.executable).parent / "counterfoil"


def migrate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "migrate", *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_makes_every_database_once_and_tables_are_those_that_the_services_know(postgres: Server) -> None:
    server = f"{postgres.url}/installed"
    first, second = (migrate("--database-url", server) for _ in range(2))
    assert (first.returncode, first.stdout.count("created")) == (0, len(stores())), first.stderr
    assert (second.returncode, second.stdout.count("there already")) == (0, len(stores())), second.stderr
    for name, store in stores().items():
        url = url_of(name, server)
        require_newest(url, store.migrations)
        with direct(url) as database:
            found = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert {row[0] for row in found} == {*store.metadata.tables, "alembic_version", "lease"}
        postgres.drop(url)


def test_a_database_that_is_missing_or_empty_is_refused_with_the_command_to_run(postgres: Server) -> None:
    url = postgres.empty()
    with pytest.raises(StartError, match="run `counterfoil migrate`"):
        require_newest(url, "counterfoil_contracts")
    create(url)
    with pytest.raises(StartError, match="run `counterfoil migrate`"):
        require_newest(url, "counterfoil_contracts")
    postgres.drop(url)


def test_a_database_whose_texts_are_ordered_otherwise_is_refused(postgres: Server) -> None:
    name = postgres.empty().rpartition("/")[2]
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    refused = migrate(COUNTERFOIL_CONTRACTS_DATABASE_URL=f"{postgres.url}/{name}")
    assert refused.returncode == 2
    assert "it needs UTF8 and C" in refused.stderr
    postgres.drop(f"{postgres.url}/{name}")


def test_without_a_server_it_says_which_setting_names_one() -> None:
    refused = migrate()
    assert refused.returncode == 2
    assert "COUNTERFOIL_DATABASE_URL" in refused.stderr


def test_a_wrong_password_is_one_line_without_it(postgres: Server) -> None:
    refused = migrate("--database-url", postgres.url.replace("counterfoil:", "counterfoil:wrong"))
    assert refused.returncode == 2
    assert "password authentication failed" in refused.stderr
    assert "wrong" not in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_database_can_be_named_by_a_file_and_a_folder_that_is_missing_is_one_line(
    postgres: Server, tmp_path: Path
) -> None:
    url = postgres.empty()
    (tmp_path / "counterfoil_contracts_database_url").write_text(f"{url}\n")
    made = migrate(COUNTERFOIL_SECRETS_DIR=str(tmp_path))
    assert (made.returncode, made.stdout) == (0, "contracts: created, at this release\n"), made.stderr
    postgres.drop(url)
    refused = migrate(COUNTERFOIL_SECRETS_DIR=str(tmp_path / "none"))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "none of COUNTERFOIL_SECRETS_DIR cannot be read" in refused.stderr
