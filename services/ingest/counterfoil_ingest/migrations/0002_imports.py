"""Imports: whole files into a dataset, with progress."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "import",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("import_id", sa.String(36), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("file_bytes", sa.BigInteger, nullable=False),
        sa.Column("file_sha256", sa.String(64), nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("rows_total", sa.BigInteger, nullable=False),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("rows_accepted", sa.BigInteger, nullable=False),
        sa.Column("rows_duplicate", sa.BigInteger, nullable=False),
        sa.Column("rows_quarantined", sa.BigInteger, nullable=False),
        sa.Column("error_reason", sa.String(64), nullable=False),
        sa.Column("error_detail", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        sa.Column("snapshot_offset", sa.BigInteger, nullable=False),
        sa.Column("log_epoch", sa.String(64), nullable=False),
        sa.Column("erasure_revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "import_id"),
    )
    op.create_index("import_by_state", "import", ["state", "import_id"])
