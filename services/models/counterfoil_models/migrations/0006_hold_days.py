"""What a hold is about: the metric that its monitor measures, and the days that are wrong."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("hold", Column("metric", Text, nullable=False, server_default=""))
    op.add_column("hold", Column("days", Text, nullable=False, server_default="[]"))
