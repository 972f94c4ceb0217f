"""Attributions and lifts with their receipts; how many records each dataset has received."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, UniqueConstraint

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "output",
        Column("workspace", Text, primary_key=True),
        Column("kind", Text, primary_key=True),
        Column("output_id", Text, primary_key=True),
        Column("receipt_id", Text, nullable=False),
        Column("question_sha256", Text, nullable=False),
        Column("output", Text, nullable=False),
        Column("meta", Text, nullable=False),
        Column("receipt", LargeBinary, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("workspace", "kind", "question_sha256"),
        UniqueConstraint("workspace", "receipt_id"),
    )
    op.create_table(
        "records_seen",
        Column("workspace", Text, primary_key=True),
        Column("dataset", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("records", BigInteger, nullable=False),
    )
    op.add_column("model_version", Column("input_rows", Text, nullable=False, server_default="[]"))
