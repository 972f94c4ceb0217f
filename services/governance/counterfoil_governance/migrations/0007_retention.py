"""Retention policies, legal holds, and which of these a privacy request waits for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("privacy_requests", sa.Column("held_by", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "legal_holds",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("legal_hold_id", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("identifier_types", sa.Text, nullable=False),
        sa.Column("identifier_hashes", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("released_by", sa.Text, nullable=False),
        sa.Column("released_at", sa.BigInteger),
        sa.Column("release_reason", sa.Text, nullable=False),
    )
    op.create_table(
        "retention_policies",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("set_at", sa.BigInteger, nullable=False),
        sa.Column("received_before", sa.BigInteger),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("quarantined", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("waiting_for", sa.Text, nullable=False),
    )
