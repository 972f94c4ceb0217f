"""Erasures at work and carried out, the numbers of erased persons, and how many of an export's persons were erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "erasure",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("privacy_request_id", sa.Text, primary_key=True),
        sa.Column("offsets", sa.Text, nullable=False),
        sa.Column("erased", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "forgotten",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("first_offset", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "erased_person",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("person", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("privacy_request_id", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.add_column("export", sa.Column("erased", sa.Integer, nullable=False, server_default="0"))
