"""What each workspace may use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("requests_per_second", "event_requests_per_second", "records_per_day", "stored_bytes"):
        op.add_column("workspaces", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
