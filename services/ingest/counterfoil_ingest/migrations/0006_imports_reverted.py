"""Imports that are read by mappings, by the dialect found out, from sources that continue; and what reverts them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for name in ("mapping", "csv_encoding", "csv_delimiter", "csv_quote", "source_state"):
        op.add_column("import", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.add_column("import", sa.Column("parameters", sa.Text, nullable=False, server_default="[]"))
    op.add_column("import", sa.Column("csv_header_line", sa.Integer, nullable=False, server_default="0"))
    for name in ("revert_reason", "reverted_by"):
        op.add_column("import", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name in ("reverted_at", "reverted_records", "reverted_quarantined"):
        op.add_column("import", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "import_records",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("import_id", sa.String(36), nullable=False),
        sa.Column("first_offset", sa.BigInteger, nullable=False),
        sa.Column("records", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "import_id", "first_offset"),
    )
    op.create_table(
        "import_quarantined",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("import_id", sa.String(36), nullable=False),
        sa.Column("quarantine_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "import_id", "quarantine_id"),
    )
