"""A database of a release that kept no changelog: each begins with what is still known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil_chassis import migrate
from counterfoil_contracts.settings import Settings
from sqlalchemy import Connection, text

from tests.contracts.calls import contracts_in, document
from tests.postgres import Server

CONTRACT = """
INSERT INTO contracts (workspace, contract_id, display_name, latest_version, active_version, shipped, created_at)
VALUES ('default', 'shop', 'Shop', '1.1.0', '1.0.0', false, 1000000)
"""
VERSION = """
INSERT INTO versions (workspace, contract_id, version, number, display_name, state, document, document_sha256,
                      created_by, created_at, activated_at, reason)
VALUES ('default', 'shop', :version, :number, 'Shop', :state, :document, '', 'ada', :created, :activated, :reason)
"""


def of_the_release_before(connection: Connection) -> None:
    config = migrate._config("counterfoil_contracts")
    config.attributes["connection"] = connection
    command.upgrade(config, "0002")
    connection.execute(text(CONTRACT))
    rows = [
        ("1.0.0", 1, "active", 1_000_000, 4_000_000, "1.1.0 broke the till"),
        ("1.1.0", 2, "deprecated", 2_000_000, 3_000_000, ""),
        ("1.2.0", 3, "draft", 5_000_000, None, ""),
    ]
    for version, number, state, created, activated, reason in rows:
        values = {"version": version, "number": number, "state": state, "created": created, "activated": activated}
        connection.execute(text(VERSION), {**values, "reason": reason, "document": document("shop", version)})


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database in which nothing is yet."""
    if request.param == "sqlite":
        yield Settings(data_dir=tmp_path).database_url
        return
    server: Server = request.getfixturevalue("postgres")
    url = server.empty()
    monkeypatch.setenv("COUNTERFOIL_CONTRACTS_DATABASE_URL", url)
    migrate.create(url)
    yield url
    server.drop(url)


async def test_the_changelog_begins_with_what_is_still_known(tmp_path: Path, url: str) -> None:
    migrate._with_connection(url, of_the_release_before)
    migrate.upgrade(url, "counterfoil_contracts")
    async with contracts_in(tmp_path) as contracts:
        request = pb.ListChangelogEntriesRequest(contract_id="shop")
        listed = await contracts.stub.ListChangelogEntries(request, **contracts.as_principal())
        actions = pb.ChangelogEntry.Action
        assert [(each.number, each.action, each.version, each.at.seconds) for each in listed.entries] == [
            (5, actions.SUBMITTED, "1.2.0", 5),
            (4, actions.ACTIVATED, "1.0.0", 4),
            (3, actions.ACTIVATED, "1.1.0", 3),
            (2, actions.SUBMITTED, "1.1.0", 2),
            (1, actions.SUBMITTED, "1.0.0", 1),
        ]
        assert [each.principal for each in listed.entries] == ["ada", "", "", "ada", "ada"]
        assert listed.entries[1].reason == "1.1.0 broke the till"
        version = await contracts.get("shop", "1.0.0")
        assert (version.in_force, version.change_id, version.HasField("sunset_at")) == (True, "", False)
