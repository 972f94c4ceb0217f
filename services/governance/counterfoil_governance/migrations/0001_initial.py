"""Workspaces, principals, keys and the append-only ledger of receipts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from counterfoil_chassis.tables import create_v1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_v1(op)
    _create_workspaces()
    _create_keys()
    _create_receipts()


def _create_workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("timezone", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "principals",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("principal_id", sa.Text, primary_key=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("disabled_at", sa.BigInteger),
    )


def _create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("principal_id", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
        sa.Column("last_four", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
    )
    op.create_index("keys_by_secret", "keys", ["secret_sha256"])


def _create_receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("receipt_id", sa.Text, primary_key=True),
        sa.Column("unique_id", sa.Text, nullable=False),
        sa.Column("producer", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
    )
    op.create_index("receipts_by_id", "receipts", ["receipt_id"])
    op.create_index("receipts_by_time", "receipts", ["workspace", "unique_id"])
    op.create_index("receipts_by_producer", "receipts", ["workspace", "producer", "unique_id"])
    if op.get_bind().dialect.name == "postgresql":
        _refuse_changes_on_postgresql()
    else:
        _refuse_changes_on_sqlite()


def _refuse_changes_on_sqlite() -> None:
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER receipts_refuse_{event.lower()} BEFORE {event} ON receipts "
            "BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END"
        )
    # INSERT OR REPLACE deletes without firing the trigger above, so a known id is refused before that.
    op.execute(
        "CREATE TRIGGER receipts_refuse_replace BEFORE INSERT ON receipts "
        "WHEN EXISTS (SELECT 1 FROM receipts WHERE workspace = NEW.workspace AND receipt_id = NEW.receipt_id) "
        "BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END"
    )


def _refuse_changes_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_receipt_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'receipts are append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER receipts_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON receipts "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_receipt_change()"
    )
