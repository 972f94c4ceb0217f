"""Contracts, their versions, what they compile to, and what governs each dataset."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from counterfoil_chassis.tables import create_v1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_v1(op)
    _create_contracts()
    _create_compiled()


def _create_contracts() -> None:
    op.create_table(
        "contracts",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("contract_id", sa.Text, primary_key=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("latest_version", sa.Text, nullable=False),
        sa.Column("active_version", sa.Text, nullable=False),
        sa.Column("shipped", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("contract_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("document_sha256", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("activated_at", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("versions_by_number", "versions", ["workspace", "contract_id", "number"], unique=True)
    # The database itself refuses two versions of a contract in force at once.
    active = sa.text("state = 'active'")
    op.create_index(
        "versions_one_active",
        "versions",
        ["workspace", "contract_id"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )


def _create_compiled() -> None:
    op.create_table(
        "compiled",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("contract_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("json_schema", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("columns", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "governed",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("contract_id", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
    )
