"""Which change a version's promotion waits for or was approved by."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("model_version", Column("change_id", Text, nullable=False, server_default=""))
