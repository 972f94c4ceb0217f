"""A real log, dedup table and appender in a temporary folder; contracts are put by hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from counterfoil_chassis import migrate
from counterfoil_chassis.clock import SystemClock, SystemIds
from counterfoil_chassis.lease import Lease, lease_of
from counterfoil_ingest.append import Appender, open_appender
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.settings import Settings
from counterfoil_ingest.sql import log as sql_log
from counterfoil_ingest.sql.log import SqlLog

from tests.ingest.ingest_records import batch, compiled, event, nothing_more
from tests.ingest.ingest_service import IngestService, ingest_in

__all__ = ["LogRig", "batch", "compiled", "event", "nothing_more"]


@dataclass
class LogRig:
    """A folder with its log and appender."""

    folder: Path
    url: str
    lease: Lease
    contracts: Contracts
    log: SqlLog
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
        await rig.lease.give_back()

    async def again() -> LogRig:
        while opened:
            await close(opened[0])
        url = Settings(data_dir=tmp_path).database_url
        migrate.upgrade(url, "counterfoil_ingest")
        lease = lease_of("ingest", url, seconds=10)
        assert await lease.taken()
        contracts = Contracts(nothing_more, monotonic=time.monotonic)
        for workspace in ("acme", "zeta"):
            contracts.put(compiled(workspace))
        log = sql_log.open_log(url, lease=lease, new_epoch=ids.new)
        appender = await open_appender(log, tmp_path / "dedup.table", contracts=contracts, ids=ids)
        opened.append(LogRig(tmp_path, url, lease, contracts, log, appender, ids))
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
