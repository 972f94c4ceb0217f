"""The tables that the chassis keeps in every service's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.schema import Identity

# SQLite counts rows up by itself only for a column declared INTEGER.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")


@dataclass(frozen=True)
class ChassisTables:
    """Answers kept for retries, messages to deliver, changes to watch with their revisions, and consumers' places."""

    idempotency: Table
    outbox: Table
    change: Table
    revision: Table
    cursor: Table


def add_to(metadata: MetaData) -> ChassisTables:
    """Declare the chassis tables in a service's metadata and return them."""
    return ChassisTables(
        idempotency=Table(
            "idempotency",
            metadata,
            Column("workspace", Text, primary_key=True),
            Column("method", Text, primary_key=True),
            Column("request_id", Text, primary_key=True),
            Column("request_mac", LargeBinary, nullable=False),
            Column("sealed_answer", LargeBinary, nullable=False),
            Column("created_us", BigInteger, nullable=False),
            Index("idempotency_created", "created_us"),
        ),
        outbox=Table(
            "outbox",
            metadata,
            Column("sequence", _Sequence, Identity(), primary_key=True),
            Column("topic", Text, nullable=False),
            Column("payload", LargeBinary, nullable=False),
            Column("traceparent", Text, nullable=False),
            Column("created_us", BigInteger, nullable=False),
            Index("outbox_topic", "topic", "sequence"),
        ),
        change=Table(
            "change",
            metadata,
            Column("topic", Text, primary_key=True),
            Column("key", Text, primary_key=True),
            Column("revision", BigInteger, nullable=False),
            Column("deleted", Boolean, nullable=False),
            Column("type_url", Text, nullable=False),
            Column("resource", LargeBinary, nullable=False),
            Index("change_revision", "topic", "revision", unique=True),
        ),
        revision=Table(
            "revision",
            metadata,
            Column("topic", Text, primary_key=True),
            Column("head", BigInteger, nullable=False),
        ),
        cursor=Table(
            "cursor",
            metadata,
            Column("workspace", Text, primary_key=True),
            Column("consumer", Text, primary_key=True),
            Column("partition", Integer, primary_key=True),
            Column("log_epoch", Text, nullable=False),
            Column("next_offset", BigInteger, nullable=False),
        ),
    )


TABLES = add_to(MetaData())


class Operations(Protocol):
    """The part of Alembic's `op` that is used here."""

    def get_bind(self) -> Any:
        """Return the connection the migration runs on."""


def create_v1(op: Operations) -> None:
    """Create the chassis tables as of their first version; a service's migration 0001 calls it with Alembic's `op`."""
    for table in add_to(MetaData()).__dict__.values():
        table.create(op.get_bind())
