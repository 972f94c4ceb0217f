"""Records of `events` and the contract they keep, for the tests of ingest."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from counterfoil_ingest.entities import Batch, Candidate
from counterfoil_ingest.registry import Column, ColumnType, Compiled, validator_of

EVENTS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["message_id", "type"],
    "properties": {
        "message_id": {"type": "string"},
        "type": {"type": "string", "enum": ["identify", "track", "page", "screen", "group", "alias"]},
        "event": {"type": ["string", "null"]},
        "user_id": {"type": ["string", "null"]},
        "anonymous_id": {"type": ["string", "null"]},
        "group_id": {"type": ["string", "null"]},
        "timestamp": {"type": ["string", "null"], "format": "date-time"},
        "properties": {"type": ["object", "null"], "properties": {"total": {"type": ["number", "null"], "minimum": 0}}},
        "context": {"type": ["object", "null"]},
        "traits": {"type": ["object", "null"]},
    },
}
EVENTS_COLUMNS = (
    Column("message_id", ColumnType.VARCHAR, True, "", ""),
    Column("type", ColumnType.VARCHAR, True, "", ""),
    Column("event", ColumnType.VARCHAR, False, "", ""),
    Column("user_id", ColumnType.VARCHAR, False, "", ""),
    Column("anonymous_id", ColumnType.VARCHAR, False, "", ""),
    Column("group_id", ColumnType.VARCHAR, False, "", ""),
    Column("timestamp", ColumnType.TIMESTAMPTZ, False, "UTC", ""),
    Column("properties", ColumnType.JSON, False, "", ""),
    Column("context", ColumnType.JSON, False, "", ""),
    Column("traits", ColumnType.JSON, False, "", ""),
)


def compiled(
    workspace: str,
    dataset: str = "events",
    *,
    version: str = "1.0.0",
    schema: dict[str, Any] | None = None,
    columns: tuple[Column, ...] = EVENTS_COLUMNS,
) -> Compiled:
    """Return a compiled contract as the contracts service would send it."""
    text = orjson.dumps(schema or EVENTS_SCHEMA)
    digest = hashlib.sha256(text).hexdigest()
    return Compiled(workspace, dataset, dataset, version, digest, validator_of(text), columns, text)


def event(message_id: str, **fields: Any) -> Candidate:
    """Return a candidate for `events`."""
    value = {"message_id": message_id, "type": "track", "event": "Seen", "timestamp": "2026-01-02T03:04:05Z", **fields}
    return Candidate(message_id, "events", orjson.dumps(value), value)


def batch(workspace: str, *candidates: Candidate, source_id: str = "s1", received_at: int = 1_000_000) -> Batch:
    """Return a batch."""
    return Batch(workspace, source_id, received_at, "", candidates)


async def nothing_more(_workspace: str, _dataset: str) -> Compiled | None:
    """Answer as a contracts service that has no other contract."""
    return None
