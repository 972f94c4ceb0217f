"""What people watch of datasets, the past that it is compared with, and totals that others report."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("monitor", sa.Column("metric", sa.Text, nullable=False, server_default=""))
    op.add_column("monitor", sa.Column("days", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "monitor_setting",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("metric", sa.String(63), nullable=False),
        sa.Column("property", sa.Text, nullable=False),
        sa.Column("threshold", sa.Double),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("data_breaker", sa.Boolean, nullable=False),
        sa.Column("auto_resume", sa.Boolean, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "dataset", "name"),
    )
    op.create_table(
        "history_place",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("log_epoch", sa.String(64), nullable=False),
        sa.Column("until_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "dataset"),
    )
    op.create_table(
        "history_hour",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("newest", sa.BigInteger),
        sa.PrimaryKeyConstraint("workspace", "dataset", "hour"),
    )
    op.create_table(
        "history_filling",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("slot", sa.BigInteger, nullable=False),
        sa.Column("properties", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "dataset", "slot"),
    )
    op.create_table(
        "reconciliation",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("reconciliation_id", sa.String(64), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("total", sa.Text, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("received", sa.Double),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("reported_at", sa.BigInteger, nullable=False),
        sa.Column("compared_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("workspace", "reconciliation_id"),
    )
    op.create_index("reconciliation_by_dataset", "reconciliation", ["workspace", "dataset", "day"])
