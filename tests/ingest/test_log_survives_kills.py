"""Nothing that was acknowledged is lost or doubled, however the process ends."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from counterfoil_chassis import migrate
from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Outcome
from counterfoil_ingest.settings import Settings

from tests.ingest.conftest import LogRig, batch, event

pytestmark = pytest.mark.both_engines("contracts", "ingest")

ROUNDS = 10


async def acknowledged_until_killed(folder: Path, run: str, *, lines: int) -> list[str]:
    """Run the appending process, kill it after so many acknowledgements, and return all it told."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.ingest.ingest_appending", str(folder), run), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    told = [await process.stdout.readline() for _ in range(lines)]
    process.kill()
    told += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    return [line.decode().strip() for line in told if line.endswith(b"\n")]


async def test_every_acknowledged_record_is_there_once_after_kills(
    tmp_path: Path, open_log: Callable[[], Awaitable[LogRig]]
) -> None:
    migrate.upgrade(Settings(data_dir=tmp_path).database_url, "counterfoil_ingest")
    chance = random.Random(7)
    told: list[str] = []
    for run in range(ROUNDS):
        told += await acknowledged_until_killed(tmp_path, str(run), lines=chance.randrange(1, 1500))
    rig = await open_log()
    found = Counter()
    expected_offset = 0
    for block in rig.log.read("acme", 0, 0, max_bytes=1 << 30):
        assert block.first_offset == expected_offset
        expected_offset = block.next_offset
        found.update(f"{source_id}/{record_id}" for source_id, _, record_id in blocks.names(block))
    assert len(told) == len(set(told))
    assert set(told) <= set(found)
    assert set(found.values()) == {1}
    assert rig.log.counts("acme")[0].records == sum(found.values()) == rig.log.head("acme")
    for name in chance.sample(sorted(found), 200):
        source_id, record_id = name.split("/")
        (verdict,) = await rig.appender.append(batch("acme", event(record_id), source_id=source_id))
        assert verdict.outcome is Outcome.DUPLICATE


async def test_the_log_keeps_its_epoch(open_log: Callable[[], Awaitable[LogRig]]) -> None:
    first = (await open_log()).log.epoch
    assert (await open_log()).log.epoch == first


@pytest.mark.sqlite
async def test_a_commit_that_fails_tells_every_waiting_request_and_keeps_nothing(rig: LogRig) -> None:
    from counterfoil_ingest.errors import LogUnavailableError

    writer = rig.log._connections.writer
    writer.execute("PRAGMA query_only=ON")
    answers = await asyncio.gather(
        *(rig.appender.append(batch("acme", event(f"m{n}"))) for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(each, LogUnavailableError) for each in answers)
    writer.execute("PRAGMA query_only=OFF")
    (verdict,) = await rig.appender.append(batch("acme", event("m0")))
    assert (verdict.outcome, verdict.offset) == (Outcome.ACCEPTED, 0)
