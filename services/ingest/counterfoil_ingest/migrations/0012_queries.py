"""Receipts of queries, each with the question that makes its result again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "query_receipt",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("receipt_id", sa.String(80), nullable=False),
        sa.Column("receipt", sa.LargeBinary, nullable=False),
        sa.Column("question", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "receipt_id"),
    )
