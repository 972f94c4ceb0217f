"""The log in PostgreSQL when the way to it breaks: nothing acknowledged is lost or doubled, and it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from counterfoil_chassis.blocking import BlockingConnection
from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Outcome
from counterfoil_ingest.errors import LogUnavailableError

from tests.ingest.conftest import LogRig, batch, event
from tests.postgres import Server, missing


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that a test may end."""
    if why := missing():
        pytest.skip(why)
    server = Server()
    yield server
    server.stop()


@pytest.fixture
async def log_rig(own_server: Server, monkeypatch: pytest.MonkeyPatch, open_log: Callable[..., Any]) -> LogRig:
    monkeypatch.setenv("COUNTERFOIL_INGEST_DATABASE_URL", own_server.database("ingest"))
    rig: LogRig = await open_log()
    return rig


def kept(rig: LogRig) -> list[tuple[int, str]]:
    found = rig.log.read("acme", 0, 0, max_bytes=1 << 30)
    return [(each.offset, each.record_id) for block in found for each in blocks.decode(block)]


async def outcome(rig: LogRig, *names: str) -> list[Outcome]:
    return [each.outcome for each in await rig.appender.append(batch("acme", *map(event, names)))]


@pytest.fixture
def break_commits(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function after which the connection breaks at the next commit, before the server has it or after."""
    script = BlockingConnection.script

    def break_next(delivered: bool) -> None:
        def broken(connection: BlockingConnection, statements: str) -> str:
            if not statements.endswith("COMMIT"):
                return script(connection, statements)
            monkeypatch.setattr(BlockingConnection, "script", script)
            if delivered:
                script(connection, statements)
            connection.close()
            raise ConnectionResetError("the answer is lost")

        monkeypatch.setattr(BlockingConnection, "script", broken)

    return break_next


async def test_a_commit_whose_answer_is_lost_is_acknowledged_once_it_is_found(
    log_rig: LogRig, break_commits: Callable[[bool], None]
) -> None:
    assert await outcome(log_rig, "a") == [Outcome.ACCEPTED]
    break_commits(True)
    assert await outcome(log_rig, "b", "c") == [Outcome.ACCEPTED] * 2
    assert await outcome(log_rig, "c", "d") == [Outcome.DUPLICATE, Outcome.ACCEPTED]
    assert kept(log_rig) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


async def test_a_commit_that_never_arrived_is_refused_and_can_be_sent_again(
    log_rig: LogRig, break_commits: Callable[[bool], None]
) -> None:
    assert await outcome(log_rig, "a") == [Outcome.ACCEPTED]
    break_commits(False)
    with pytest.raises(LogUnavailableError) as failure:
        await outcome(log_rig, "b")
    assert failure.value.retry_after is not None
    assert await outcome(log_rig, "b", "a") == [Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert kept(log_rig) == [(0, "a"), (1, "b")]
    assert log_rig.log.counts("acme")[0].records == 2


async def test_what_a_transaction_that_stands_still_holds_is_waited_for(
    log_rig: LogRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcome(log_rig, "a")
    script, close = BlockingConnection.script, BlockingConnection.close
    orphans: list[BlockingConnection] = []

    def broken(connection: BlockingConnection, statements: str) -> str:
        if not orphans and statements.endswith("COMMIT"):
            orphans.append(connection)  # the server has everything but the word to commit, and does not see us go
            raise ConnectionResetError("the answer is lost")
        return script(connection, statements)

    monkeypatch.setattr(BlockingConnection, "script", broken)
    monkeypatch.setattr(BlockingConnection, "close", lambda it: None if it in orphans else close(it))
    sending = asyncio.create_task(outcome(log_rig, "b"))
    done, _ = await asyncio.wait([sending], timeout=2)
    assert not done  # it may still be committed
    await asyncio.to_thread(script, orphans[0], "COMMIT")  # but without its mark, as when it arrives late in part
    with pytest.raises(LogUnavailableError):
        await sending
    await asyncio.to_thread(close, orphans[0])


async def test_an_outage_is_told_and_ends_without_a_restart(log_rig: LogRig, own_server: Server) -> None:
    assert await outcome(log_rig, "a") == [Outcome.ACCEPTED]
    own_server.end()
    for _ in range(3):
        with pytest.raises(LogUnavailableError) as failure:
            await outcome(log_rig, "b")
        assert failure.value.retry_after is not None
    with pytest.raises(LogUnavailableError):
        await asyncio.to_thread(kept, log_rig)
    own_server.start()
    assert await outcome(log_rig, "b", "a") == [Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert kept(log_rig) == [(0, "a"), (1, "b")]


async def test_a_reader_gets_whole_blocks_up_to_its_limit(log_rig: LogRig) -> None:
    for number in range(6):
        await outcome(log_rig, *(f"{number}-{n}" for n in range(3)))
    first = len(log_rig.log.read("acme", 0, 0, max_bytes=0)[0].payload)
    assert [block.first_offset for block in log_rig.log.read("acme", 0, 7)] == [6, 9, 12, 15]
    assert [block.first_offset for block in log_rig.log.read("acme", 0, 7, max_bytes=first // 2)] == [6]
    assert [block.first_offset for block in log_rig.log.read("acme", 0, 0, max_bytes=5 * first // 2)] == [0, 3]
