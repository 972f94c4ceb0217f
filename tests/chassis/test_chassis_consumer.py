from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from counterfoil_chassis.consumer import Batch, Cursor, EpochUnknownError, LogConsumer
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import FailedPreconditionError
from counterfoil_chassis.status import DETAILS_KEY, to_status
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.chassis.probe import eventually

pytestmark = pytest.mark.both_engines

LOG = [f"record {n}" for n in range(20)]


def batches(cursor: Cursor, *, size: int = 3, epoch: str = "e1") -> list[Batch[list[str]]]:
    return [
        Batch(epoch, min(start + size, len(LOG)), LOG[start : start + size])
        for start in range(cursor.next_offset, len(LOG), size)
    ]


async def apply(connection: AsyncConnection, records: list[str]) -> None:
    for record in records:
        await connection.execute(text("INSERT INTO note VALUES (:r)"), {"r": record})  # a second time breaks the key


def consumer(database: Database, read: object, work: object = apply) -> LogConsumer[list[str]]:
    return LogConsumer(
        database, name="series", workspace="acme", partition=0, read=read, apply=work, remedy="count again"
    )


async def run_until(database: Database, reader: LogConsumer[list[str]], count: int) -> None:
    task = asyncio.create_task(reader.run())

    async def enough() -> bool:
        return task.done() or await written(database) >= count

    await eventually(enough)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def written(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one()


async def test_the_cursor_moves_with_the_effect_and_reading_goes_on_from_it(database: Database) -> None:
    asked: list[Cursor] = []

    async def read(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        asked.append(cursor)
        for batch in batches(cursor)[:2]:  # the stream breaks after two batches
            yield batch

    reader = consumer(database, read)
    await run_until(database, reader, len(LOG))
    assert await written(database) == len(LOG)
    assert await reader.cursor() == Cursor("e1", 20)
    assert asked[:3] == [Cursor("", 0), Cursor("e1", 6), Cursor("e1", 12)]


async def test_an_effect_that_fails_leaves_the_cursor_and_ends_the_consumer(database: Database) -> None:
    async def read(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        for batch in batches(cursor):
            yield batch

    async def breaks(connection: AsyncConnection, records: list[str]) -> None:
        await apply(connection, records)
        if "record 7" in records:
            raise ZeroDivisionError

    reader = consumer(database, read, breaks)
    with pytest.raises(ZeroDivisionError):
        await reader.run()
    assert await reader.cursor() == Cursor("e1", 6)
    assert await written(database) == 6


async def test_what_was_done_already_is_not_done_again(database: Database) -> None:
    async def read(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        for batch in batches(Cursor("", 0)):  # a sender that does not listen to the cursor
            yield batch

    reader = consumer(database, read)
    await run_until(database, reader, len(LOG))
    assert await written(database) == len(LOG)


async def test_a_log_that_was_restored_stops_the_consumer_and_says_what_to_do(database: Database) -> None:
    async def read(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        yield batches(cursor, epoch="e1")[0]
        yield Batch("e2", 99, None)

    with pytest.raises(EpochUnknownError, match="or count again") as failure:
        await consumer(database, read).run()
    assert failure.value.metadata["log_epoch"] == "e2"
    assert await written(database) == 3


async def test_a_log_that_continues_the_cursors_life_takes_the_cursor_over(database: Database) -> None:
    epochs = iter(["e1", "e2", "e2", "e3"])

    async def read(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        epoch = next(epochs, "e3")
        yield Batch(epoch, cursor.next_offset, None)
        for batch in batches(cursor, epoch=epoch)[:2]:
            yield batch

    reader = consumer(database, read)
    await run_until(database, reader, 18)
    assert await written(database) >= 18
    assert (await reader.cursor()).log_epoch == "e2"

    async def heartbeats(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        assert cursor.log_epoch in ("e2", "e3")
        yield Batch("e3", cursor.next_offset, None)

    idle = consumer(database, heartbeats)
    task = asyncio.create_task(idle.run())

    async def went_over() -> bool:
        return task.done() or (await idle.cursor()).log_epoch == "e3"

    await eventually(went_over)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert await idle.cursor() == Cursor("e3", (await reader.cursor()).next_offset)


async def test_a_senders_epoch_refusal_stops_the_consumer_too(database: Database) -> None:
    class SenderRefusesError(FailedPreconditionError):
        reason = "LOG_EPOCH_UNKNOWN"

    status = to_status(SenderRefusesError("no such epoch"))
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))

    async def read(_cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        raise grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), trailers, "no")
        yield

    with pytest.raises(EpochUnknownError):
        await consumer(database, read).run()


CHILD = """
import asyncio, os, signal, sys
from sqlalchemy import text
from counterfoil_chassis.consumer import Batch, LogConsumer
from counterfoil_chassis.database import Database

url, kill_at = sys.argv[1], int(sys.argv[2])


async def main():
    async def read(cursor):
        for n in range(cursor.next_offset, 20):
            yield Batch("e1", n + 1, n)

    async def apply(connection, n):
        await connection.execute(text("INSERT INTO note VALUES (:n)"), {"n": f"{n:02}"})
        if n == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    place = {"name": "series", "workspace": "acme", "partition": 0}
    await LogConsumer(Database(url), **place, read=read, apply=apply, remedy="").run()


asyncio.run(main())
"""


async def test_killed_between_effect_and_cursor_nothing_is_missed_or_done_twice(
    database: Database, url: str, tmp_path: Path
) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)

    def child() -> int:
        return subprocess.run([sys.executable, str(script), url, "7"], check=False).returncode

    assert await asyncio.to_thread(child) == -signal.SIGKILL
    assert await written(database) == 7

    async def read(cursor: Cursor) -> AsyncIterator[Batch[list[str]]]:
        for n in range(cursor.next_offset, 20):
            yield Batch("e1", n + 1, [f"{n:02}"])

    reader = consumer(database, read)
    await run_until(database, reader, 20)
    assert await written(database) == 20
    assert await reader.cursor() == Cursor("e1", 20)
