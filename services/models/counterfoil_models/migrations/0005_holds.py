"""Which datasets are held."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "hold",
        Column("workspace", Text, primary_key=True),
        Column("monitor_id", Text, primary_key=True),
        Column("dataset", Text, nullable=False),
        Column("incident_id", Text, nullable=False),
        Column("detail", Text, nullable=False),
        Column("since", BigInteger, nullable=False),
        Column("recovered_at", BigInteger),
        Column("held", Boolean, nullable=False),
    )
