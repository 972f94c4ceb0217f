"""Runs, datasets and the edges between their columns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_events_and_nodes()
    _create_runs()
    _create_edges()


def _create_events_and_nodes() -> None:
    op.create_table(
        "lineage_events",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("lineage_events_by_time", "lineage_events", ["workspace", "at", "event_id"])
    op.create_table(
        "lineage_nodes",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("facets", sa.LargeBinary, nullable=False),
        sa.Column("fields", sa.LargeBinary, nullable=False),
        sa.Column("tags", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("latest_run", sa.Text, nullable=False),
        sa.Column("dropped", sa.Boolean, nullable=False),
    )
    op.create_index("lineage_nodes_by_name", "lineage_nodes", ["workspace", "namespace", "name", "kind"], unique=True)
    op.create_index("lineage_nodes_by_id", "lineage_nodes", ["workspace", "node_id"])
    op.create_table(
        "lineage_versions",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("stated", sa.Text, nullable=False),
        sa.Column("fields", sa.LargeBinary, nullable=False),
        sa.Column("facets", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("lifecycle", sa.Text, nullable=False),
    )
    op.create_index("lineage_versions_by_time", "lineage_versions", ["workspace", "dataset", "created_at"])


def _create_runs() -> None:
    op.create_table(
        "lineage_runs",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("nominal_start", sa.BigInteger),
        sa.Column("nominal_end", sa.BigInteger),
        sa.Column("receipt_id", sa.Text, nullable=False),
        sa.Column("parent_run_id", sa.Text, nullable=False),
        sa.Column("run_facets", sa.LargeBinary, nullable=False),
        sa.Column("job_facets", sa.LargeBinary, nullable=False),
    )
    op.create_index("lineage_runs_by_time", "lineage_runs", ["workspace", "job", "updated_at"])
    op.create_index("lineage_runs_by_completion", "lineage_runs", ["workspace", "job", "completed_at"])
    op.create_index("lineage_runs_by_receipt", "lineage_runs", ["workspace", "job", "receipt_id"])
    op.create_table(
        "lineage_uses",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("facets", sa.LargeBinary, nullable=False),
        sa.Column("columns", sa.LargeBinary),
        sa.Column("first_at", sa.BigInteger, nullable=False),
    )
    op.create_index("lineage_uses_by_time", "lineage_uses", ["workspace", "job", "first_at"])


def _create_edges() -> None:
    op.create_table(
        "lineage_edges",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("edge", sa.Text, primary_key=True),
        sa.Column("valid_from", sa.BigInteger, primary_key=True),
        sa.Column("known_from", sa.BigInteger, primary_key=True),
        sa.Column("valid_to", sa.BigInteger),
        sa.Column("known_to", sa.BigInteger),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("source_field", sa.Text, nullable=False),
        sa.Column("target_field", sa.Text, nullable=False),
        sa.Column("subtype", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("masking", sa.Boolean, nullable=False),
    )
    op.create_index("lineage_edges_by_source", "lineage_edges", ["workspace", "source", "kind"])
    op.create_index("lineage_edges_by_target", "lineage_edges", ["workspace", "target", "kind"])
    op.create_index("lineage_edges_by_job", "lineage_edges", ["workspace", "job", "kind"])
