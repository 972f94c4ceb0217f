"""Mappings, identifiers with their evidence and persons, nodes and edges, journeys, exports with their receipts."""

from __future__ import annotations

from typing import Any

from alembic import op
from counterfoil_chassis.tables import create_v1
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _keys(**kinds: Any) -> list[Column[Any]]:
    return [Column(name, kind, primary_key=True, autoincrement=False) for name, kind in kinds.items()]


def _values(**kinds: Any) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name, kind in kinds.items()]


def _create(name: str, *columns: Column[Any]) -> None:
    op.create_table(name, Column("workspace", Text, primary_key=True), *columns, sqlite_with_rowid=False)


def upgrade() -> None:
    create_v1(op)
    _create("graph", *_values(mappings_sha256=Text, rebuild_until=BigInteger))
    _create("former_mappings", *_keys(mappings_sha256=Text), *_values(until_offset=BigInteger))
    _create(
        "mapping",
        *_keys(mapping_id=Text, version=Integer),
        *_values(document=Text, sha256=Text, datasets=Text, created_by=Text, created_at=BigInteger),
    )
    _create("block", *_keys(next_offset=BigInteger), *_values(known_us=BigInteger))
    op.create_index("block_known", "block", ["workspace", "known_us", "next_offset"])
    _create("dataset", *_keys(dataset=Text), *_values(first_offset=BigInteger))
    _create("unread", *_keys(dataset=Text, reason=Text), *_values(records=BigInteger))
    _create_identity()
    _create_knowledge()
    _create(
        "export",
        *_keys(export_id=Text),
        *_values(receipt_id=Text, change_id=Text, persons=Text, created_at=BigInteger),
    )
    op.create_index("export_change", "export", ["workspace", "change_id"])
    op.create_table(
        "receipt",
        Column("workspace", Text, primary_key=True),
        *_keys(receipt_id=Text),
        *_values(export_id=Text, payload=LargeBinary),
    )


def _create_identity() -> None:
    _create(
        "identifier",
        *_keys(place=BigInteger),
        *_values(type=Text, value=Text, first_us=BigInteger, last_us=BigInteger, records=BigInteger),
        *_values(partners=Integer, shared=Boolean),
    )
    op.create_index("identifier_name", "identifier", ["workspace", "type", "value"], unique=True)
    _create(
        "assignment",
        *_keys(place=BigInteger, tx_from=BigInteger),
        *_values(tx_to=BigInteger, person=BigInteger),
    )
    op.create_index("assignment_person", "assignment", ["workspace", "person", "tx_to", "place"])
    _create(
        "link",
        *_keys(low=BigInteger, high=BigInteger),
        *_values(time_us=BigInteger, record_id=Text, dataset=Text, offset=BigInteger, records=BigInteger),
    )
    op.create_index("link_high", "link", ["workspace", "high", "low"])
    _create(
        "decision",
        *_keys(decision_id=Text),
        *_values(kind=Text, identifiers=Text, staying=Text, reverses=Text, reversed_by=Text, decided_by=Text),
        *_values(decided_us=BigInteger, reason=Text, request_sha256=Text, offset=BigInteger),
    )
    _create("decision_identifier", *_keys(place=BigInteger, decision_id=Text))


def _create_knowledge() -> None:
    _create(
        "node",
        *_keys(type=Text, key=Text, valid_from=BigInteger, tx_from=BigInteger),
        *_values(tx_to=BigInteger),
        Column("valid_to", BigInteger),
        *_values(name=Text, attributes=Text, offset=BigInteger),
    )
    _create(
        "edge",
        *_keys(from_id=Text, type=Text, to_id=Text, valid_from=BigInteger, tx_from=BigInteger),
        Column("valid_to", BigInteger),
        *_values(records=BigInteger, offset=BigInteger),
    )
    op.create_index("edge_to", "edge", ["workspace", "to_id", "type", "from_id"])
    _create(
        "journey_event",
        *_keys(place_of=BigInteger, kind=Integer, type=Text, key=Text, tx_from=BigInteger),
        *_values(place=BigInteger),
        Column("time_us", BigInteger),
        *_values(channel=Text, campaign=Text, value_micros=BigInteger, currency=Text, dataset=Text),
        *_values(records=BigInteger),
    )
