"""The tables of the graph database; times are microseconds UTC, `tx_*` offsets of the log, documents JSON text.

What a block brought is known from the state that ends at its last record on: that state's exclusive offset is the
rows' `tx_from`. A row holds in state s when `tx_from <= s < tx_to`.
"""

from __future__ import annotations

from counterfoil_chassis.stores import Store
from counterfoil_chassis.tables import add_to
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()
CHASSIS = add_to(METADATA)


def _table(name: str, *items: Column[object] | Index) -> Table:
    return Table(name, METADATA, Column("workspace", Text, primary_key=True), *items, sqlite_with_rowid=False)


def _key(name: str, kind: type[Text | BigInteger | Integer] = Text) -> Column[object]:
    return Column(name, kind, primary_key=True, autoincrement=False)


def _value(name: str, kind: type[Text | BigInteger | Integer | Boolean] = Text) -> Column[object]:
    return Column(name, kind, nullable=False)


GRAPH = _table(
    "graph",
    _value("mappings_sha256"),
    _value("rebuild_until", BigInteger),
)
"""One row per workspace; `rebuild_until` 0 = it is not being rebuilt."""

FORMER_MAPPINGS = _table("former_mappings", _key("mappings_sha256"), _value("until_offset", BigInteger))
"""Mappings that were in force without what came after changing anything below an offset."""

MAPPING = _table(
    "mapping",
    _key("mapping_id"),
    _key("version", Integer),
    _value("document"),
    _value("sha256"),
    _value("datasets"),
    _value("created_by"),
    _value("created_at", BigInteger),
)

BLOCK = _table(
    "block",
    _key("next_offset", BigInteger),
    _value("known_us", BigInteger),
    Index("block_known", "workspace", "known_us", "next_offset"),
)
"""The states there are, with when the newest record below them was received; it never falls."""

DATASET = _table("dataset", _key("dataset"), _value("first_offset", BigInteger))
"""The datasets that the log has shown."""

UNREAD = _table("unread", _key("dataset"), _key("reason"), _value("records", BigInteger))

IDENTIFIER = _table(
    "identifier",
    _key("place", BigInteger),
    _value("type"),
    _value("value"),
    _value("first_us", BigInteger),
    _value("last_us", BigInteger),
    _value("records", BigInteger),
    _value("partners", Integer),
    _value("shared", Boolean),
    Index("identifier_name", "workspace", "type", "value", unique=True),
)
"""`place` is offset * 256 + n of the first record; `partners` are those that count when it is asked for `shared`."""

ASSIGNMENT = _table(
    "assignment",
    _key("place", BigInteger),
    _key("tx_from", BigInteger),
    _value("tx_to", BigInteger),
    _value("person", BigInteger),
    Index("assignment_person", "workspace", "person", "tx_to", "place"),
)
"""Which person an identifier belongs to; a person is the place of its first identifier."""

LINK = _table(
    "link",
    _key("low", BigInteger),
    _key("high", BigInteger),
    _value("time_us", BigInteger),
    _value("record_id"),
    _value("dataset"),
    _value("offset", BigInteger),
    _value("records", BigInteger),
    Index("link_high", "workspace", "high", "low"),
)

DECISION = _table(
    "decision",
    _key("decision_id"),
    _value("kind"),
    _value("identifiers"),
    _value("staying"),
    _value("reverses"),
    _value("reversed_by"),
    _value("decided_by"),
    _value("decided_us", BigInteger),
    _value("reason"),
    _value("request_sha256"),
    _value("offset", BigInteger),
)

DECISION_IDENTIFIER = _table("decision_identifier", _key("place", BigInteger), _key("decision_id"))

NODE = _table(
    "node",
    _key("type"),
    _key("key"),
    _key("valid_from", BigInteger),
    _key("tx_from", BigInteger),
    _value("tx_to", BigInteger),
    Column("valid_to", BigInteger),
    _value("name"),
    _value("attributes"),
    _value("offset", BigInteger),
)

EDGE = _table(
    "edge",
    _key("from_id"),
    _key("type"),
    _key("to_id"),
    _key("valid_from", BigInteger),
    _key("tx_from", BigInteger),
    Column("valid_to", BigInteger),
    _value("records", BigInteger),
    _value("offset", BigInteger),
    Index("edge_to", "workspace", "to_id", "type", "from_id"),
)
"""One row per block that speaks of an edge: rows of one key add up; the newest says until when it is valid."""

EVENT = _table(
    "journey_event",
    _key("place_of", BigInteger),
    _key("kind", Integer),
    _key("type"),
    _key("key"),
    _key("tx_from", BigInteger),
    _value("place", BigInteger),
    Column("time_us", BigInteger),
    _value("channel"),
    _value("campaign"),
    _value("value_micros", BigInteger),
    _value("currency"),
    _value("dataset"),
    _value("records", BigInteger),
)
"""Touchpoints and conversions by identifier (`place_of`). One row per block: rows of one person and key add up."""

EXPORT = _table(
    "export",
    _key("export_id"),
    _value("receipt_id"),
    _value("change_id"),
    _value("persons"),
    _value("created_at", BigInteger),
    Column("erased", Integer, nullable=False, server_default="0"),
    Index("export_change", "workspace", "change_id"),
)
"""`persons` are those that are not erased, `erased` counts the others."""

ERASURE = _table("erasure", _key("privacy_request_id"), _value("offsets"), Column("erased", Text))
"""Erasures that are not reported yet: JSON of the offsets to erase, and of the counts once the graph has forgotten."""

FORGOTTEN = _table("forgotten", _key("number", BigInteger), _value("first_offset", BigInteger))
"""Erasures in their order, each with the offset from which on it has changed every state."""

ERASED_PERSON = _table("erased_person", _key("person", BigInteger), _value("privacy_request_id"))
"""The numbers of persons that were erased: they are nobody else's."""

RECEIPT = Table(
    "receipt",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("receipt_id", Text, primary_key=True),
    Column("export_id", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

DERIVED = (BLOCK, DATASET, UNREAD, IDENTIFIER, ASSIGNMENT, LINK, DECISION, DECISION_IDENTIFIER, NODE, EDGE, EVENT)
"""What a rebuild makes again."""

STORE = Store("graph", metadata=METADATA, migrations="counterfoil_graph")
