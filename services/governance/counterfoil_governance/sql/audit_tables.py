"""The tables of the audit log; entries, nodes and checkpoints are only ever added to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from counterfoil_governance.sql.tables import METADATA

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
