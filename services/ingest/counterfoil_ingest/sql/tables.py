"""Every table of the write path. Times are microseconds UTC; every key of business data starts with the workspace."""

from __future__ import annotations

from counterfoil_chassis import tables as chassis_tables
from counterfoil_chassis.stores import Store
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

CHASSIS = chassis_tables.add_to(metadata)

LOG_STATE = Table(
    "log_state",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

LOG_BLOCK = Table(
    "log_block",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("layout", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("datasets", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("workspace", "partition", "first_offset"),
    UniqueConstraint("sequence"),
)

LOG_ERASURE = Table(
    "log_erasure",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "dataset", "partition", "revision"),
)
"""Which datasets each erasure has changed, and the first offset at which it did."""

DATASET_COUNT = Table(
    "dataset_count",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("last_received_at", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "dataset"),
)

QUARANTINE = Table(
    "quarantine",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("quarantine_id", String(36), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("source_id", String(63), nullable=False),
    Column("record_id", Text, nullable=False),
    Column("raw_sha256", LargeBinary(32), nullable=False),
    Column("findings", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("contract_id", Text, nullable=False),
    Column("contract_version", String(64), nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("traceparent", String(64), nullable=False),
    Column("raw_zstd", LargeBinary, nullable=False),
    Column("reason", String(64), nullable=False, server_default=""),
    Column("path", Text, nullable=False, server_default=""),
    Column("state", Integer, nullable=False, server_default="1"),
    Column("record_zstd", LargeBinary),
    Column("repaired_zstd", LargeBinary),
    Column("repaired_dataset", String(63), nullable=False, server_default=""),
    Column("repaired_record_id", Text, nullable=False, server_default=""),
    Column("repaired_at", BigInteger, nullable=False, server_default="0"),
    Column("repaired_by", Text, nullable=False, server_default=""),
    Column("closed_at", BigInteger, nullable=False, server_default="0"),
    Column("closed_by", Text, nullable=False, server_default=""),
    Column("discard_reason", Text, nullable=False, server_default=""),
    Column("replayed_offset", BigInteger, nullable=False, server_default="-1"),
    PrimaryKeyConstraint("workspace", "quarantine_id"),
    UniqueConstraint("workspace", "source_id", "dataset", "record_id", "raw_sha256"),
    Index("quarantine_by_dataset", "workspace", "dataset", "quarantine_id"),
    Index(
        "quarantine_by_group",
        *("workspace", "state", "dataset", "reason", "path", "contract_version", "quarantine_id", "received_at"),
    ),
)
"""What broke its contract; `reason` and `path` are its first finding's, which put it into a group.

`record_zstd` is the JSON that was judged, where that is not `raw_zstd`, `repaired_zstd` what a repair made of it.
"""

COMPILED_CONTRACT = Table(
    "compiled_contract",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("version", String(64), nullable=False),
    Column("in_force", Boolean, nullable=False),
    Column("message", LargeBinary, nullable=False),
    PrimaryKeyConstraint("workspace", "dataset", "version"),
)

SOURCE = Table(
    "source",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("source_id", String(36), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("protocol", String(64), nullable=False),
    Column("mappings", Text, nullable=False),
    Column("write_key_last_four", String(4), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "source_id"),
)

SOURCE_KEY = Table(
    "source_key",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("source_id", String(36), nullable=False),
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("valid_until", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "source_id", "secret_sha256"),
    UniqueConstraint("secret_sha256"),
)

SOURCE_COUNT = Table(
    "source_count",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("source_id", String(63), nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("first_received_at", BigInteger, nullable=False),
    Column("last_received_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "source_id"),
)
"""How many records of each sender are in the log, and when its first and its newest arrived, quarantined or not."""

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
    Column("mapping", Text, nullable=False, server_default=""),
    Column("parameters", Text, nullable=False, server_default="[]"),
    Column("csv_encoding", Text, nullable=False, server_default=""),
    Column("csv_delimiter", Text, nullable=False, server_default=""),
    Column("csv_quote", Text, nullable=False, server_default=""),
    Column("csv_header_line", Integer, nullable=False, server_default="0"),
    Column("source_state", Text, nullable=False, server_default=""),
    Column("revert_reason", Text, nullable=False, server_default=""),
    Column("reverted_by", Text, nullable=False, server_default=""),
    Column("reverted_at", BigInteger, nullable=False, server_default="0"),
    Column("reverted_records", BigInteger, nullable=False, server_default="0"),
    Column("reverted_quarantined", BigInteger, nullable=False, server_default="0"),
    Column("connection", String(63), nullable=False, server_default=""),
    PrimaryKeyConstraint("workspace", "import_id"),
    Index("import_by_state", "state", "import_id"),
    Index("import_by_connection", "workspace", "connection", "import_id"),
)
"""Imports; 0 is no time, -1 no offset."""

IMPORT_RECORDS = Table(
    "import_records",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("import_id", String(36), nullable=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("records", Integer, nullable=False),
    PrimaryKeyConstraint("workspace", "import_id", "first_offset"),
)
"""Where the records of an import lie: so many from an offset on."""

IMPORT_QUARANTINED = Table(
    "import_quarantined",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("import_id", String(36), nullable=False),
    Column("quarantine_id", String(36), nullable=False),
    PrimaryKeyConstraint("workspace", "import_id", "quarantine_id"),
    Index("import_of_quarantined", "workspace", "quarantine_id"),
)
"""What an import put into quarantine, and no import before it."""

MONITOR = Table(
    "monitor",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("monitor_id", String(200), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("name", String(200), nullable=False),
    Column("contract_id", Text, nullable=False),
    Column("contract_version", String(64), nullable=False),
    Column("owner", Text, nullable=False),
    Column("promised", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("state", Integer, nullable=False),
    Column("measured", Double),
    Column("detail", Text, nullable=False),
    Column("evaluated_at", BigInteger),
    Column("failing_since", BigInteger),
    Column("errors", Integer, nullable=False),
    Column("incident_id", String(36), nullable=False),
    Column("opened_at", BigInteger),
    Column("recovered_at", BigInteger),
    Column("held", Boolean, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("uptime", Text, nullable=False),
    Column("metric", Text, nullable=False, server_default=""),
    Column("days", Text, nullable=False, server_default="[]"),
    PrimaryKeyConstraint("workspace", "monitor_id"),
)
"""Monitors as they are; an empty incident is none, `uptime` JSON of days and seconds, `days` a JSON list of days."""

MONITOR_RESULT = Table(
    "monitor_result",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("monitor_id", String(200), nullable=False),
    Column("evaluated_at", BigInteger, nullable=False),
    Column("state", Integer, nullable=False),
    Column("measured", Double),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "monitor_id", "evaluated_at"),
)
"""The last results of each monitor."""

MONITOR_SETTING = Table(
    "monitor_setting",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("metric", String(63), nullable=False),
    Column("property", Text, nullable=False),
    Column("threshold", Double),
    Column("owner", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("data_breaker", Boolean, nullable=False),
    Column("auto_resume", Boolean, nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    PrimaryKeyConstraint("workspace", "dataset", "name"),
)
"""What people have set to be watched."""

HISTORY_PLACE = Table(
    "history_place",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("log_epoch", String(64), nullable=False),
    Column("until_offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "dataset"),
)
"""Up to where the records of a dataset are counted."""

HISTORY_HOUR = Table(
    "history_hour",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("hour", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("newest", BigInteger),
    PrimaryKeyConstraint("workspace", "dataset", "hour"),
)
"""Records per hour since 1970, and the newest event time among them."""

HISTORY_FILLING = Table(
    "history_filling",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("properties", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "dataset", "slot"),
)
"""How properties were filled per six hours since 1970: a JSON object of how often, and of counts by bucket."""

RECONCILIATION = Table(
    "reconciliation",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("reconciliation_id", String(64), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("day", String(10), nullable=False),
    Column("total", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("received", Double),
    Column("detail", Text, nullable=False),
    Column("reported_at", BigInteger, nullable=False),
    Column("compared_at", BigInteger),
    PrimaryKeyConstraint("workspace", "reconciliation_id"),
    Index("reconciliation_by_dataset", "workspace", "dataset", "day"),
)
"""Totals that others report and what is here; `total` is a JSON object."""

QUERY_RECEIPT = Table(
    "query_receipt",
    metadata,
    Column("workspace", String(63), nullable=False),
    Column("receipt_id", String(80), nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    Column("question", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "receipt_id"),
)
"""Receipts of queries; `question` is JSON, and empty once an erasure has taken it."""

STORE = Store(
    "ingest",
    metadata=metadata,
    migrations="counterfoil_ingest",
    files=("lake", "imports"),
    restoring="counterfoil_ingest.sql.restoring",
)
