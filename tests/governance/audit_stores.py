"""An audit log in a database of its own, for those who tamper with it."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from counterfoil_chassis import audit_verify, migrate
from counterfoil_chassis.clock import SystemIds
from counterfoil_chassis.database import Database
from counterfoil_chassis.watch import Feed
from counterfoil_governance import audit, audit_checkpoints, audit_export
from counterfoil_governance.audit_checkpoints import CheckpointSigner
from counterfoil_governance.sql.transactions import Feeds, SqlTransactions

WORKSPACE = "acme"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SIGNER = CheckpointSigner(b"s" * 32)
TABLES = ("audit_heads", "audit_entries", "audit_nodes", "audit_checkpoints")


class StillClock:
    def now(self) -> datetime:
        return NOW


IDS = SystemIds(StillClock())


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[SqlTransactions]:
    """Open the database of a file."""
    database = Database(f"sqlite+aiosqlite:///{file}")
    feeds = Feeds(**{each.name: Feed(database, each.name) for each in fields(Feeds)})
    try:
        yield SqlTransactions(database, feeds)
    finally:
        await database.close()


async def write_log(file: Path, *, deeds: list[str], checkpoints: tuple[int, ...] = (), signer: Any = SIGNER) -> None:
    """Make a log: one entry for each deed, and a checkpoint at each of these sizes."""
    await asyncio.to_thread(migrate.upgrade, f"sqlite+aiosqlite:///{file}", "counterfoil_governance")
    async with opened(file) as transactions:
        for number, deed in enumerate(deeds, 1):
            async with transactions.begin() as stores:
                await audit.record(
                    stores,
                    ids=IDS,
                    clock=StillClock(),
                    workspace=WORKSPACE,
                    principal="ada",
                    action="key.create",
                    resource=deed,
                )
            if number in checkpoints:
                await audit_checkpoints.current(transactions, WORKSPACE, signer=signer, now=NOW)


async def exported(file: Path, *, signer: CheckpointSigner = SIGNER) -> io.BytesIO:
    """Return the export of a log as it stands."""
    made = io.BytesIO()
    async with opened(file) as transactions:
        await audit_export.export(transactions, WORKSPACE, made, signer=signer, now=NOW)
    return made


async def report_on(
    file: Path, *, signer: CheckpointSigner = SIGNER, keys: tuple[str, ...] = (), witnesses: tuple[str, ...] = ()
) -> audit_verify.Report:
    """Export a log as it stands, and return what verifying the export finds."""
    return audit_verify.verify(await exported(file, signer=signer), keys=keys, witnesses=witnesses)


async def checkpoint(file: Path, *, signer: CheckpointSigner = SIGNER) -> str:
    """Return the note of a checkpoint over all of a log."""
    async with opened(file) as transactions:
        return (await audit_checkpoints.current(transactions, WORKSPACE, signer=signer, now=NOW)).note


@asynccontextmanager
async def tampering(file: Path) -> AsyncIterator[sqlite3.Connection]:
    """Write to the database past its triggers, as somebody with the file can."""
    with closing(sqlite3.connect(file)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        with database:
            yield database
