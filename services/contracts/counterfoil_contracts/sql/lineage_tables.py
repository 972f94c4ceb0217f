"""The tables of lineage; times are microseconds since 1970 in UTC, JSON is kept as bytes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

EVENTS = Table(
    "lineage_events",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),  # SHA-256 of the event, hex
    Column("event_type", Text, nullable=False),  # "" = of no run
    Column("at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("lineage_events_by_time", "workspace", "at", "event_id"),
)

NODES = Table(
    "lineage_nodes",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("node", Text, primary_key=True),  # made from kind, namespace and name
    Column("kind", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("facets", LargeBinary, nullable=False),
    Column("fields", LargeBinary, nullable=False),
    Column("tags", LargeBinary, nullable=False),
    Column("version", Text, nullable=False),
    Column("latest_run", Text, nullable=False),
    Column("dropped", Boolean, nullable=False),
    Index("lineage_nodes_by_name", "workspace", "namespace", "name", "kind", unique=True),
    Index("lineage_nodes_by_id", "workspace", "node_id"),
)

VERSIONS = Table(
    "lineage_versions",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("stated", Text, nullable=False),
    Column("fields", LargeBinary, nullable=False),
    Column("facets", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("lifecycle", Text, nullable=False),
    Index("lineage_versions_by_time", "workspace", "dataset", "created_at"),
)

RUNS = Table(
    "lineage_runs",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("job", Text, nullable=False),  # "" = a dataset said it of itself
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("completed_at", BigInteger),  # where it told all that the job reads and writes
    Column("nominal_start", BigInteger),
    Column("nominal_end", BigInteger),
    Column("receipt_id", Text, nullable=False),
    Column("parent_run_id", Text, nullable=False),
    Column("run_facets", LargeBinary, nullable=False),
    Column("job_facets", LargeBinary, nullable=False),
    Index("lineage_runs_by_time", "workspace", "job", "updated_at"),
    Index("lineage_runs_by_completion", "workspace", "job", "completed_at"),
    Index("lineage_runs_by_receipt", "workspace", "job", "receipt_id"),
)

USES = Table(
    "lineage_uses",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("job", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("facets", LargeBinary, nullable=False),
    Column("columns", LargeBinary),  # what its fields are made of; NULL = not told
    Column("first_at", BigInteger, nullable=False),
    Index("lineage_uses_by_time", "workspace", "job", "first_at"),
)

EDGES = Table(
    "lineage_edges",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("edge", Text, primary_key=True),  # made from what is connected how
    Column("valid_from", BigInteger, primary_key=True),
    Column("known_from", BigInteger, primary_key=True),
    Column("valid_to", BigInteger),  # NULL = it still is
    Column("known_to", BigInteger),  # NULL = it is still believed
    Column("job", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("source_field", Text, nullable=False),
    Column("target_field", Text, nullable=False),
    Column("subtype", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("masking", Boolean, nullable=False),
    Index("lineage_edges_by_source", "workspace", "source", "kind"),
    Index("lineage_edges_by_target", "workspace", "target", "kind"),
    Index("lineage_edges_by_job", "workspace", "job", "kind"),
)
