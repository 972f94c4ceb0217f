"""The tables of contracts; times are microseconds since 1970 in UTC."""

from __future__ import annotations

from counterfoil_chassis.stores import Store
from counterfoil_chassis.tables import add_to
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, Table, Text

from counterfoil_contracts.sql import lineage_tables, registry_tables

METADATA = MetaData()
CHASSIS = add_to(METADATA)

CONTRACTS = Table(
    "contracts",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("contract_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("latest_version", Text, nullable=False),
    Column("active_version", Text, nullable=False),  # "" = none
    Column("shipped", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("contract_id", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("number", Integer, nullable=False),  # 1, 2, ... in the order of submission
    Column("display_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("document_sha256", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("activated_at", BigInteger),
    Column("reason", Text, nullable=False),
    Column("sunset_at", BigInteger),
    Column("change_id", Text, nullable=False, server_default=""),
)

CHANGELOG = Table(
    "changelog",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("contract_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, ...
    Column("version", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("details", LargeBinary, nullable=False),  # JSON
)

CONSUMERS = Table(
    "consumers",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("consumer_id", Text, primary_key=True),
    Column("service", Text, nullable=False),  # "" = registered by somebody
    Column("name", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("fields", LargeBinary, nullable=False),  # JSON: a list of paths
    Column("version_range", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("contact", Text, nullable=False),
    Column("registered_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

COMPILED = Table(
    "compiled",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("contract_id", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("position", Integer, nullable=False),  # in the document
    Column("json_schema", LargeBinary, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("columns", LargeBinary, nullable=False),  # JSON: a list of objects, in the document's order
    Column("record_rules", LargeBinary),  # JSON: a list of objects, in the document's order; null = none
    Column("classifications", LargeBinary),  # JSON: a list of [path, classification]; null = none
    Column("golden_records", LargeBinary),  # JSON: a list of objects; null = none
    Column("monitors", LargeBinary),  # JSON: an object; null = none
)

GOVERNED = Table(
    "governed",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("contract_id", Text, nullable=False),
    Column("version", Text, nullable=False),
)

for _table in (*lineage_tables.METADATA.sorted_tables, *registry_tables.METADATA.sorted_tables):
    _table.to_metadata(METADATA)

CHECKS = Table(
    "checks",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("check_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("records", Integer, nullable=False),
    Column("subject", LargeBinary, nullable=False),  # JSON
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("result", LargeBinary),  # a serialised contracts.v1.ReportCheckRequest; null = none yet
)

STORE = Store("contracts", metadata=METADATA, migrations="counterfoil_contracts")
