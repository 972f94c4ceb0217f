"""Monitors and their last results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "monitor",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("monitor_id", sa.String(200), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("contract_id", sa.Text, nullable=False),
        sa.Column("contract_version", sa.String(64), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("promised", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("measured", sa.Double),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("evaluated_at", sa.BigInteger),
        sa.Column("failing_since", sa.BigInteger),
        sa.Column("errors", sa.Integer, nullable=False),
        sa.Column("incident_id", sa.String(36), nullable=False),
        sa.Column("opened_at", sa.BigInteger),
        sa.Column("recovered_at", sa.BigInteger),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("uptime", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "monitor_id"),
    )
    op.create_table(
        "monitor_result",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("monitor_id", sa.String(200), nullable=False),
        sa.Column("evaluated_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("measured", sa.Double),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "monitor_id", "evaluated_at"),
    )
