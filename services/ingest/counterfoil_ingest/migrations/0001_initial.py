"""The log, quarantine, dataset counters, the contracts seen, sources and their write keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from counterfoil_chassis.tables import create_v1

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_v1(op)
    op.create_table(
        "log_state",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "log_block",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("first_offset", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("layout", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("datasets", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "partition", "first_offset"),
        sa.UniqueConstraint("sequence"),
    )
    op.create_table(
        "dataset_count",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("quarantined", sa.BigInteger, nullable=False),
        sa.Column("last_received_at", sa.BigInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "dataset"),
    )
    op.create_table(
        "quarantine",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("quarantine_id", sa.String(36), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("source_id", sa.String(63), nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("raw_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("contract_id", sa.Text, nullable=False),
        sa.Column("contract_version", sa.String(64), nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("raw_zstd", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "quarantine_id"),
        sa.UniqueConstraint("workspace", "source_id", "dataset", "record_id", "raw_sha256"),
    )
    op.create_index("quarantine_by_dataset", "quarantine", ["workspace", "dataset", "quarantine_id"])
    op.create_table(
        "compiled_contract",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("in_force", sa.Boolean, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "dataset", "version"),
    )
    op.create_table(
        "source",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("source_id", sa.String(36), nullable=False),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("protocol", sa.String(64), nullable=False),
        sa.Column("mappings", sa.Text, nullable=False),
        sa.Column("write_key_last_four", sa.String(4), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "source_id"),
    )
    op.create_table(
        "source_key",
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("source_id", sa.String(36), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("valid_until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "source_id", "secret_sha256"),
        sa.UniqueConstraint("secret_sha256"),
    )
