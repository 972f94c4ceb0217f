"""The tables of schema subjects; times are microseconds since 1970 in UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

SCHEMAS = Table(
    "schemas",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("schema_id", Integer, primary_key=True),
    Column("guid", Text, nullable=False),  # follows from the content
    Column("text", Text, nullable=False),
    Column("refs", LargeBinary, nullable=False),  # JSON: [name, subject, version], ...
    Column("metadata", LargeBinary, nullable=False),  # JSON, b"" = none
    Column("rule_set", LargeBinary, nullable=False),  # JSON, b"" = none
    Column("created_at", BigInteger, nullable=False),
    Index("schemas_by_content", "workspace", "guid", unique=True),
)

SCHEMA_VERSIONS = Table(
    "schema_versions",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("schema_id", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("schema_versions_by_schema", "workspace", "schema_id"),
)

SCHEMA_REFERENCES = Table(
    "schema_references",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("schema_id", Integer, primary_key=True),  # of the schema that refers to the version
)

SCHEMA_IDS = Table(
    "schema_ids",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("next_id", Integer, nullable=False),  # a number is never given again
)

SUBJECT_SETTINGS = Table(
    "subject_settings",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("subject", Text, primary_key=True),  # "" = every subject
    Column("level", Text, nullable=False),  # "" = nothing is said, as below
    Column("policy", Text, nullable=False),
    Column("normalize", Boolean),
    Column("compatibility_group", Text, nullable=False),
    Column("mode", Text, nullable=False),
)
