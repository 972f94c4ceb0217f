"""What the databases themselves refuse, on either engine, whoever asks."""

from __future__ import annotations

from pathlib import Path
from sqlite3 import IntegrityError

import pytest
from asyncpg import PostgresError
from counterfoil_chassis import migrate
from counterfoil_governance.settings import Settings

from tests.postgres import direct

pytestmark = pytest.mark.both_engines("governance")

WRITE = {
    "receipts": "('acme', 'r1', 'u1', 'models', 'x', 1)",
    "consents": "('acme', 1, 'c1', 'x', 'ads', 'granted', 'consent', 1, NULL, '', 'x', 1, 'ada')",
    "audit_entries": "('acme', 0, 'e1', 'ada', 'models/m', 'x', 'x')",
    "audit_nodes": "('acme', 1, 0, 'x')",
    "audit_checkpoints": "('acme', 0, 1, 'note', 'key')",
}


@pytest.mark.parametrize("table", WRITE)
def test_what_is_written_once_can_be_neither_changed_nor_deleted(tmp_path: Path, table: str) -> None:
    url = Settings(data_dir=tmp_path).database_url
    migrate.upgrade(url, "counterfoil_governance")
    with direct(url.replace("+aiosqlite", "")) as database:
        database.execute(f"INSERT INTO {table} VALUES {WRITE[table]}")
        for statement in (f"UPDATE {table} SET workspace = 'zeta'", f"DELETE FROM {table}"):
            with pytest.raises((IntegrityError, PostgresError), match="append-only"):
                database.execute(statement)
        assert database.execute(f"SELECT count(*) FROM {table}") == [(1,)]
