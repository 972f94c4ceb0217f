"""The table of imports. Times are microseconds UTC; 0 is no time, -1 no offset."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, PrimaryKeyConstraint, String, Table, Text

from counterfoil_ingest.sql.tables import metadata

IMPORT = Table(
    "import",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("import_id", String(36), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("format", Integer, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("file_bytes", BigInteger, nullable=False),
    Column("file_sha256", String(64), nullable=False),
    Column("state", Integer, nullable=False),
    Column("rows_total", BigInteger, nullable=False),
    Column("rows_read", BigInteger, nullable=False),
    Column("rows_accepted", BigInteger, nullable=False),
    Column("rows_duplicate", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("error_reason", String(64), nullable=False),
    Column("error_detail", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("traceparent", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("snapshot_offset", BigInteger, nullable=False),
    Column("log_epoch", String(64), nullable=False),
    Column("erasure_revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "import_id"),
    Index("import_by_state", "state", "import_id"),
)
