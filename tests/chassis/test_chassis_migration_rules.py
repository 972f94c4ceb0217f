"""Migrations only expand; what contracts stands in `contracting.toml`, with the release and the reason.

Two releases run side by side while one replaces the other. So a migration leaves a database that the release before it
can still use: what that one reads or writes is dropped, renamed or narrowed one release later at the earliest.
"""

from __future__ import annotations

import ast
import re
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest
from counterfoil_chassis.migrate import upgrade
from counterfoil_chassis.stores import stores

from tests.system import golden_folder

ALLOWED = Path(str(files("counterfoil_chassis"))) / "migrations" / "contracting.toml"
CONTRACTING = {
    "drop_table",
    "drop_column",
    "rename_table",
    "alter_column",
    "create_check_constraint",
    "create_foreign_key",
    "create_primary_key",
    "create_unique_constraint",
}
"""Alembic's operations after which the release before this one may fail on a table that it knows."""

SQL = re.compile(r"\b(DROP\s+(TABLE|COLUMN)|RENAME|ALTER\s+COLUMN|SET\s+NOT\s+NULL)\b", re.IGNORECASE)


def contractions(source: str) -> list[str]:
    """Return what a migration does that contracts, as written; the first of a service has nothing to contract."""
    tree = ast.parse(source)
    assigned = {
        target.id: node.value for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
        if isinstance(target, ast.Name)
    }  # fmt: skip
    if isinstance(assigned["down_revision"], ast.Constant) and assigned["down_revision"].value is None:
        return []
    upgrading = [node for node in ast.walk(tree) if not _within(tree, node, "downgrade")]
    return [ast.unparse(node) for node in upgrading if isinstance(node, ast.Call) and _contracts(node)]


def _within(tree: ast.Module, node: ast.AST, function: str) -> bool:
    return any(
        isinstance(each, ast.FunctionDef) and each.name == function and node in ast.walk(each) for each in tree.body
    )


def _contracts(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in CONTRACTING:
        return True
    if name == "add_column":
        return any(isinstance(each, ast.Call) and _is_column_without_default(each) for each in ast.walk(call))
    return name in ("execute", "exec_driver_sql") and any(SQL.search(text) for text in _texts(call))


def _is_column_without_default(call: ast.Call) -> bool:
    given = {each.arg: each.value for each in call.keywords}
    nullable = given.get("nullable")
    refuses = isinstance(nullable, ast.Constant) and nullable.value is False
    return refuses and "server_default" not in given


def _texts(call: ast.Call) -> Iterator[str]:
    for node in ast.walk(call):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def migrations() -> dict[str, Path]:
    """Return the migrations of all services by `<service>/<file>`."""
    return {
        f"{service}/{path.stem}": path
        for service, store in stores().items()
        for path in sorted(Path(str(files(store.migrations))).joinpath("migrations").glob("[0-9]*.py"))
    }


def allowed() -> dict[str, dict[str, str]]:
    """Return the exceptions by migration."""
    return tomllib.loads(ALLOWED.read_text())


@pytest.mark.parametrize("name", migrations())
def test_a_migration_expands_or_says_which_release_no_longer_needs_what_it_drops(name: str):
    found = contractions(migrations()[name].read_text())
    if name in allowed():
        assert found, f"{name} contracts nothing (any more): take it out of {ALLOWED.name}"
        assert allowed()[name]["release"]
        assert allowed()[name]["reason"]
    else:
        assert found == []


def test_every_exception_is_of_a_migration_that_there_is():
    assert allowed().keys() <= migrations().keys()


@pytest.mark.parametrize(
    "statement",
    [
        "op.drop_table('a')",
        "op.drop_column('a', 'b')",
        "op.rename_table('a', 'b')",
        "op.alter_column('a', 'b', new_column_name='c')",
        "op.create_unique_constraint('c', 'a', ['b'])",
        "op.add_column('a', Column('b', Text, nullable=False))",
        "op.execute('ALTER TABLE a DROP COLUMN b')",
        "op.execute(f'ALTER TABLE {a} ALTER COLUMN b TYPE text')",
        "with op.batch_alter_table('a') as batch:\n        batch.drop_column('b')",
    ],
)
def test_what_contracts_is_found(statement: str):
    assert contractions(f"down_revision = '0001'\ndef upgrade():\n    {statement}\n")
    assert not contractions(f"down_revision = None\ndef upgrade():\n    {statement}\n")
    assert not contractions(f"down_revision = '0001'\ndef downgrade():\n    {statement}\n")


@pytest.mark.parametrize(
    "statement",
    [
        "op.create_table('a', Column('b', Text, nullable=False))",
        "op.add_column('a', Column('b', Text))",
        "op.add_column('a', Column('b', Text, nullable=False, server_default=''))",
        "op.create_index('c', 'a', ['b'])",
        "op.execute('DROP VIEW c')",
    ],
)
def test_what_expands_is_free(statement: str):
    assert contractions(f"down_revision = '0001'\ndef upgrade():\n    {statement}\n") == []


def test_the_previous_release_finds_its_tables_and_can_write_them(tmp_path: Path):
    golden_folder.unpack(tmp_path)
    for service, store in stores().items():
        file = tmp_path / f"{service}.db"
        before = _columns(file)
        upgrade(f"sqlite+aiosqlite:///{file}", store.migrations)
        after = _columns(file)
        for table, columns in before.items():
            kept = {name: after[table][name][0] for name in columns}
            assert kept == {name: kind for name, (kind, _) in columns.items()}, f"{service}.{table}"
            new = after[table].keys() - columns.keys()
            assert all(after[table][name][1] for name in new), f"{service}.{table}: a new column that it cannot fill"


def _columns(file: Path) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return by table and column its type, and whether a row can be written without it."""
    with closing(sqlite3.connect(file)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: {
                name: (kind, not required or default is not None)
                for _, name, kind, required, default, _ in connection.execute(f'PRAGMA table_info("{table}")')
            }
            for table in tables
        }
