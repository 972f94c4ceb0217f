"""Schema subjects, their versions, configuration and modes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_schemas()
    op.create_table(
        "schema_ids",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("next_id", sa.Integer, nullable=False),
    )
    op.create_table(
        "subject_settings",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("normalize", sa.Boolean),
        sa.Column("compatibility_group", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
    )


def _create_schemas() -> None:
    op.create_table(
        "schemas",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("schema_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("guid", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("refs", sa.LargeBinary, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("rule_set", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("schemas_by_content", "schemas", ["workspace", "guid"], unique=True)
    op.create_table(
        "schema_versions",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("schema_id", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("schema_versions_by_schema", "schema_versions", ["workspace", "schema_id"])
    op.create_table(
        "schema_references",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("schema_id", sa.Integer, primary_key=True, autoincrement=False),
    )
