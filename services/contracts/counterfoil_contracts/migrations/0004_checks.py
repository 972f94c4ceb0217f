"""Record rules, and what ingest is asked to try on recent records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("compiled", sa.Column("record_rules", sa.LargeBinary))
    op.add_column("compiled", sa.Column("classifications", sa.LargeBinary))
    op.add_column("compiled", sa.Column("golden_records", sa.LargeBinary))
    op.create_table(
        "checks",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("check_id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("records", sa.Integer, nullable=False),
        sa.Column("subject", sa.LargeBinary, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("result", sa.LargeBinary),
    )
