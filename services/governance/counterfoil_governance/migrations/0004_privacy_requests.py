"""Privacy requests and what each service did for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "privacy_requests",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("privacy_request_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("identifier_types", sa.Text, nullable=False),
        sa.Column("identifier_hashes", sa.LargeBinary, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "privacy_reports",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("privacy_request_id", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("erased", sa.Text, nullable=False),
        sa.Column("completed_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace", "privacy_request_id"], ["privacy_requests.workspace", "privacy_requests.privacy_request_id"]
        ),
    )
