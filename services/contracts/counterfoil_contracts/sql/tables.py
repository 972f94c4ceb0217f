"""The tables of contracts; times are microseconds since 1970 in UTC."""

from __future__ import annotations

from counterfoil_chassis.stores import Store
from counterfoil_chassis.tables import add_to
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, Table, Text

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
)

GOVERNED = Table(
    "governed",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("contract_id", Text, nullable=False),
    Column("version", Text, nullable=False),
)

STORE = Store("contracts", metadata=METADATA, migrations="counterfoil_contracts")
