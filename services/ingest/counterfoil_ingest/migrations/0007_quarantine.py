"""Quarantined records that are grouped, repaired, replayed and discarded."""

from __future__ import annotations

import json
import re

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PAGE = 1_000
_PATH = 300


def upgrade() -> None:
    """Add what a record's group, its repair and its end are."""
    for column in (
        sa.Column("reason", sa.String(64), nullable=False, server_default=""),
        sa.Column("path", sa.Text, nullable=False, server_default=""),
        sa.Column("state", sa.Integer, nullable=False, server_default="1"),
        sa.Column("record_zstd", sa.LargeBinary),
        sa.Column("repaired_zstd", sa.LargeBinary),
        sa.Column("repaired_dataset", sa.String(63), nullable=False, server_default=""),
        sa.Column("repaired_record_id", sa.Text, nullable=False, server_default=""),
        sa.Column("repaired_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("repaired_by", sa.Text, nullable=False, server_default=""),
        sa.Column("closed_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("closed_by", sa.Text, nullable=False, server_default=""),
        sa.Column("discard_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("replayed_offset", sa.BigInteger, nullable=False, server_default="-1"),
    ):
        op.add_column("quarantine", column)
    _group_what_is_there()
    op.create_index(
        "quarantine_by_group",
        "quarantine",
        ["workspace", "state", "dataset", "reason", "path", "contract_version", "quarantine_id", "received_at"],
    )
    op.create_index("import_of_quarantined", "import_quarantined", ["workspace", "quarantine_id"])


def _group_what_is_there() -> None:
    """Give every record the reason and the path of its first finding, as the log does with new ones."""
    connection = op.get_bind()
    some = sa.text(
        "SELECT workspace, quarantine_id, findings FROM quarantine WHERE (workspace, quarantine_id) > (:workspace, :id)"
        " ORDER BY workspace, quarantine_id LIMIT :page"
    )
    change = sa.text(
        "UPDATE quarantine SET reason = :reason, path = :path WHERE workspace = :workspace AND quarantine_id = :id"
    )
    place = {"workspace": "", "id": ""}
    while rows := connection.execute(some, {**place, "page": _PAGE}).all():
        changed = []
        for workspace, quarantine_id, findings in rows:
            place = {"workspace": workspace, "id": quarantine_id}
            reason, path, _ = (json.loads(findings) or [["", "", ""]])[0]
            changed.append({**place, "reason": reason, "path": re.sub(r"\[\d+\]", "[*]", path)[:_PATH]})
        connection.execute(change, changed)
