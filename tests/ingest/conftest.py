"""A real log, dedup table and appender in a temporary folder; contracts are put by hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from counterfoil_chassis.clock import SystemClock, SystemIds
from counterfoil_chassis.migrate import upgrade
from counterfoil_ingest.append import Appender, open_appender
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.sql.log import SqliteLog

from tests.ingest.ingest_records import batch, compiled, event, nothing_more
from tests.ingest.ingest_service import IngestService, ingest_in

__all__ = ["LogRig", "batch", "compiled", "event", "nothing_more"]


@dataclass
class LogRig:
    """A folder with its log and appender."""

    folder: Path
    contracts: Contracts
    log: SqliteLog
    appender: Appender
    ids: SystemIds


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
        opened.append(LogRig(tmp_path, contracts, log, appender, ids))
        return opened[-1]

    yield again
    while opened:
        await close(opened[0])


@pytest.fixture
async def rig(open_log: Callable[..., Any]) -> LogRig:
    """Return an open, empty log with the contract `events` in force for `acme` and `zeta`."""
    opened: LogRig = await open_log()
    return opened


@pytest.fixture
async def ingest(tmp_path: Path) -> AsyncIterator[IngestService]:
    """Return a running ingest; no contracts service answers it."""
    async with ingest_in(tmp_path) as service:
        yield service
