"""Governance's tables; times are microseconds since 1970 in UTC.

Of the audit log, entries, nodes and checkpoints are only ever added to.
"""

from __future__ import annotations

from counterfoil_chassis.stores import Store
from counterfoil_chassis.tables import add_to
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()
CHASSIS = add_to(METADATA)

WORKSPACES = Table(
    "workspaces",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    *(
        Column(name, BigInteger, nullable=False, server_default="0")
        for name in ("requests_per_second", "event_requests_per_second", "records_per_day", "stored_bytes")
    ),
)

PRINCIPALS = Table(
    "principals",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("principal_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Column("roles", Text, nullable=False, server_default=""),  # separated by spaces
)

KEYS = Table(
    "keys",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("principal_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # separated by spaces
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("last_four", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("bootstrap", Boolean, nullable=False),
    Index("keys_by_secret", "secret_sha256"),
)

RECEIPTS = Table(
    "receipts",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("receipt_id", Text, primary_key=True),
    Column("unique_id", Text, nullable=False),  # the UUIDv7 of the id: its order is the order of time
    Column("producer", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Index("receipts_by_id", "receipt_id"),
    Index("receipts_by_time", "workspace", "unique_id"),
    Index("receipts_by_producer", "workspace", "producer", "unique_id"),
)

POLICY_BUNDLES = Table(
    "policy_bundles",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),  # at most one row of a workspace is active
    Column("sha256", Text, nullable=False),
    Column("policies", Text, nullable=False),
    Column("schema", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("change_id", Text, nullable=False),
    Column("activated_at", BigInteger),
)

CHANGES = Table(
    "changes",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("change_id", Text, primary_key=True),
    Column("service", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # RFC 8785 canonical JSON
    Column("requester", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy_id", Text, nullable=False),
    Column("quorum", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("pending_until", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),  # "" until it was applied or failed; all else follows from votes and clock
    Column("settled_at", BigInteger),
    Column("detail", Text, nullable=False),
    Column("watched_until", BigInteger),  # in the feed until then; NULL = taken out of it
)

VOTES = Table(
    "votes",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("change_id", Text, primary_key=True),
    Column("voter", Text, primary_key=True),
    Column("requester", Text, nullable=False),  # the change's, by foreign key; never the voter, by constraint
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload_sha256", Text, nullable=False),
    Column("voted_at", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)

CONSENT_LEDGERS = Table(
    "consent_ledgers",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

CONSENTS = Table(
    "consents",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("consent_id", Text, nullable=False),
    Column("subject", LargeBinary, nullable=False),  # keyed hash of the identifier's type and value
    Column("purpose", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("happened_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("evidence", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),  # what makes two records the very same
    Column("recorded_at", BigInteger, nullable=False),
    Column("recorded_by", Text, nullable=False),
)

AUDIT_HEADS = Table(
    "audit_heads",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("checkpoints", BigInteger, nullable=False),
)

AUDIT_ENTRIES = Table(
    "audit_entries",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("index", BigInteger, primary_key=True),
    Column("entry_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # what is hashed: RFC 8785 JSON
    Column("leaf", LargeBinary, nullable=False),
    Index("audit_entries_by_id", "workspace", "entry_id", unique=True),
    Index("audit_entries_by_principal", "workspace", "principal", "index"),
    Index("audit_entries_by_resource", "workspace", "resource", "index"),
)

AUDIT_NODES = Table(
    "audit_nodes",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("level", Integer, primary_key=True),  # above 0: the leaves are with their entries
    Column("index", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
)

AUDIT_CHECKPOINTS = Table(
    "audit_checkpoints",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),  # from 0 on
    Column("tree_size", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("verifier_key", Text, nullable=False),
)

PRIVACY_REQUESTS = Table(
    "privacy_requests",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("privacy_request_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("identifier_types", Text, nullable=False),  # separated by spaces
    Column("identifier_hashes", LargeBinary, nullable=False),  # 32 bytes each, one behind the other
    Column("reference", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("held_by", Text, nullable=False, server_default=""),  # ids of legal holds, separated by spaces
)

PRIVACY_REPORTS = Table(
    "privacy_reports",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("privacy_request_id", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("erased", Text, nullable=False),  # a JSON object of counts
    Column("completed_at", BigInteger, nullable=False),
)

LEGAL_HOLDS = Table(
    "legal_holds",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("legal_hold_id", Text, primary_key=True),
    Column("dataset", Text, nullable=False),  # empty when it is a person
    Column("identifier_types", Text, nullable=False),  # separated by spaces
    Column("identifier_hashes", LargeBinary, nullable=False),  # 32 bytes each, one behind the other
    Column("reason", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("released_by", Text, nullable=False),
    Column("released_at", BigInteger),
    Column("release_reason", Text, nullable=False),
)

RETENTION_POLICIES = Table(
    "retention_policies",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("days", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", BigInteger, nullable=False),
    Column("received_before", BigInteger),  # this and what follows: the report; NULL = there is none
    Column("records", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("completed_at", BigInteger),
    Column("waiting_for", Text, nullable=False),
)

INCIDENTS = Table(
    "incidents",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("incident_id", Text, primary_key=True),
    Column("producer", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("contract_id", Text, nullable=False),
    Column("contract_version", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("holds_data", Boolean, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("recovered_at", BigInteger),
    Column("acknowledged_at", BigInteger),
    Column("acknowledged_by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("resolved_at", BigInteger),
    Column("resolved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("breach_accepted", Boolean, nullable=False),
)

STORE = Store(
    "governance",
    metadata=METADATA,
    migrations="counterfoil_governance",
    restoring="counterfoil_governance.sql.restoring",
)
