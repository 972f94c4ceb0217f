"""Imports of one connection, which follow each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("import", sa.Column("connection", sa.String(63), nullable=False, server_default=""))
    op.create_index("import_by_connection", "import", ["workspace", "connection", "import_id"])
