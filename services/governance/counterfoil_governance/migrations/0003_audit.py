"""The audit log: heads, entries, nodes, checkpoints; triggers refuse any change of what was added."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADDED_TO = {
    "audit_entries": '("index" = NEW."index" OR entry_id = NEW.entry_id)',
    "audit_nodes": 'level = NEW.level AND "index" = NEW."index"',
    "audit_checkpoints": "number = NEW.number",
}
"""Each table that is only added to, and when a row of a workspace is known."""


def upgrade() -> None:
    op.create_table(
        "audit_heads",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("checkpoints", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit_entries",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("index", sa.BigInteger, primary_key=True),
        sa.Column("entry_id", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_entries_by_id", "audit_entries", ["workspace", "entry_id"], unique=True)
    op.create_index("audit_entries_by_principal", "audit_entries", ["workspace", "principal", "index"])
    op.create_index("audit_entries_by_resource", "audit_entries", ["workspace", "resource", "index"])
    op.create_table(
        "audit_nodes",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("level", sa.Integer, primary_key=True),
        sa.Column("index", sa.BigInteger, primary_key=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("tree_size", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("verifier_key", sa.Text, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        _refuse_changes_on_postgresql()
    else:
        _refuse_changes_on_sqlite()


def _refuse_changes_on_sqlite() -> None:
    for table, known in ADDED_TO.items():
        refusal = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for event in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER {table}_refuse_{event.lower()} BEFORE {event} ON {table} {refusal}")
        # INSERT OR REPLACE deletes without firing the trigger above, so a known key is refused before that.
        op.execute(
            f"CREATE TRIGGER {table}_refuse_replace BEFORE INSERT ON {table} "  # noqa: S608
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE workspace = NEW.workspace AND {known}) {refusal}"
        )
    refusal = "BEGIN SELECT RAISE(ABORT, 'audit_heads only grow'); END"
    op.execute(f"CREATE TRIGGER audit_heads_refuse_delete BEFORE DELETE ON audit_heads {refusal}")
    op.execute(
        "CREATE TRIGGER audit_heads_refuse_update BEFORE UPDATE ON audit_heads WHEN NEW.workspace <> OLD.workspace "
        f"OR NEW.size < OLD.size OR NEW.checkpoints < OLD.checkpoints {refusal}"
    )
    op.execute(
        "CREATE TRIGGER audit_heads_refuse_replace BEFORE INSERT ON audit_heads "  # noqa: S608
        f"WHEN EXISTS (SELECT 1 FROM audit_heads WHERE workspace = NEW.workspace) {refusal}"
    )


def _refuse_changes_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    for table in ADDED_TO:
        op.execute(
            f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
        )
    op.execute(
        "CREATE TRIGGER audit_heads_refuse_delete BEFORE DELETE OR TRUNCATE ON audit_heads "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
    )
    op.execute(
        "CREATE TRIGGER audit_heads_refuse_update BEFORE UPDATE ON audit_heads FOR EACH ROW "
        "WHEN (NEW.workspace <> OLD.workspace OR NEW.size < OLD.size OR NEW.checkpoints < OLD.checkpoints) "
        "EXECUTE FUNCTION refuse_audit_change()"
    )
