"""The tables of the graph."""

from __future__ import annotations

from alembic import op
from counterfoil_chassis.tables import create_v1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_v1(op)
