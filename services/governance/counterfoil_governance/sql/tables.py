"""Governance's tables; times are microseconds since 1970 in UTC."""

from __future__ import annotations

from counterfoil_chassis.tables import add_to
from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, Table, Text

METADATA = MetaData()
CHASSIS = add_to(METADATA)

WORKSPACES = Table(
    "workspaces",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
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
