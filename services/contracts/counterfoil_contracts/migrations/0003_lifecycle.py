"""The life of contract versions, what approves them, and who reads which fields."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("sunset_at", sa.BigInteger))
    op.add_column("versions", sa.Column("change_id", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "changelog",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("contract_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("details", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "consumers",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("consumer_id", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("fields", sa.LargeBinary, nullable=False),
        sa.Column("version_range", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("contact", sa.Text, nullable=False),
        sa.Column("registered_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_index("consumers_by_name", "consumers", ["workspace", "service", "name", "dataset"], unique=True)
    op.create_index("consumers_by_dataset", "consumers", ["workspace", "dataset"])
    _tell_of_the_past()


def _tell_of_the_past() -> None:
    """Begin each changelog with what is still known: when a version was submitted, and when it last came into force."""
    op.execute(
        """
        INSERT INTO changelog (workspace, contract_id, number, version, action, principal, reason, at, details)
        SELECT workspace, contract_id,
               ROW_NUMBER() OVER (PARTITION BY workspace, contract_id ORDER BY at, number, action DESC),
               version, action, principal, reason, at, details
        FROM (
          SELECT workspace, contract_id, number, version, 'submitted' AS action, created_by AS principal,
                 '' AS reason, created_at AS at, CAST('{}' AS BYTES) AS details
          FROM versions
          UNION ALL
          SELECT workspace, contract_id, number, version, 'activated', '', reason, activated_at, CAST('{}' AS BYTES)
          FROM versions WHERE activated_at IS NOT NULL
        ) AS told
        """.replace("BYTES", "BYTEA" if op.get_bind().dialect.name == "postgresql" else "BLOB")
    )
