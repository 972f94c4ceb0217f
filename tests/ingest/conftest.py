"""A real log, dedup table and appender in a temporary folder; contracts are put by hand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from counterfoil_chassis.clock import SystemClock, SystemIds
from counterfoil_chassis.migrate import upgrade
from counterfoil_ingest.append import Appender, open_appender
from counterfoil_ingest.entities import Batch, Candidate
from counterfoil_ingest.registry import Column, ColumnType, Compiled, Contracts, validator_of
from counterfoil_ingest.sql.log import SqliteLog

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
    return Compiled(workspace, dataset, dataset, version, hashlib.sha256(text).hexdigest(), validator_of(text), columns)


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


@dataclass
class LogRig:
    """A folder with its log and appender."""

    folder: Path
    contracts: Contracts
    log: SqliteLog
    appender: Appender


@pytest.fixture
async def open_log(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that opens (again) the log of this test's folder."""
    opened: list[LogRig] = []
    ids = SystemIds(SystemClock())

    async def close(rig: LogRig) -> None:
        opened.remove(rig)
        await rig.appender.close()
        rig.log.close()

    async def again() -> LogRig:
        while opened:
            await close(opened[0])
        path = tmp_path / "ingest.db"
        upgrade(f"sqlite+aiosqlite:///{path}", "counterfoil_ingest")
        contracts = Contracts(nothing_more, monotonic=time.monotonic)
        for workspace in ("acme", "zeta"):
            contracts.put(compiled(workspace))
        log = SqliteLog(path, new_epoch=ids.new)
        appender = await open_appender(log, tmp_path / "dedup.table", contracts=contracts, ids=ids)
        opened.append(LogRig(tmp_path, contracts, log, appender))
        return opened[-1]

    yield again
    while opened:
        await close(opened[0])


@pytest.fixture
async def rig(open_log: Callable[..., Any]) -> LogRig:
    """Return an open, empty log with the contract `events` in force for `acme` and `zeta`."""
    opened: LogRig = await open_log()
    return opened
