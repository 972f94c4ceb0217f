"""Artifacts in the database, where every process that serves finds them."""

from alembic import op
from sqlalchemy import Column, LargeBinary, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "artifact",
        Column("sha256", Text, primary_key=True),
        Column("bytes", LargeBinary, nullable=False),
    )
