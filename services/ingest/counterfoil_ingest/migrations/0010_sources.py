"""Sources: how many events each brought, and when the first and the newest arrived, counted from here on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "source_count",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("source_id", sa.String(63), nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("first_received_at", sa.BigInteger, nullable=False),
        sa.Column("last_received_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "source_id"),
    )
