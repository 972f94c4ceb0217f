"""Reads that are cancelled in the middle of a statement keep nothing on disk that was deleted."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from counterfoil_chassis.database import Database
from sqlalchemy import text

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n, note"


async def test_what_was_deleted_is_forgotten_though_reads_were_cancelled(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'reads.db'}")
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE note (text TEXT)"))
        await connection.execute(text("INSERT INTO note VALUES ('secret')"))

    async def read() -> None:
        async with database.read() as connection:
            await connection.execute(text(LONG))

    for seconds in (0.001, 0.002, 0.004, 0.01) * 5:
        reading = asyncio.create_task(read())
        await asyncio.sleep(seconds)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    async with database.begin() as connection:
        await connection.execute(text("DELETE FROM note"))
    async with asyncio.timeout(60):
        while not await database.forget():
            await asyncio.sleep(0.05)
    await database.close()
