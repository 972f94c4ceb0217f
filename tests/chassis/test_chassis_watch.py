from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1.credentials_pb2 import WatchCredentialsRequest
from counterfoil.governance.v1.credentials_pb2_grpc import (
    CredentialServiceServicer,
    CredentialServiceStub,
    add_CredentialServiceServicer_to_server,
)
from counterfoil_chassis.call import connect, following
from counterfoil_chassis.database import Database
from counterfoil_chassis.serve import Service, started
from counterfoil_chassis.watch import Feed, RevisionUnknownError, Watcher, record_delete, record_put
from google.protobuf import any_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.chassis.probe import ProbeSettings, eventually, signer
from tests.ports import free_port

pytestmark = pytest.mark.both_engines

LONG = timedelta(minutes=5)


async def put(database: Database, feed: Feed | None, **resources: str) -> None:
    async with database.begin() as connection:
        for key, value in resources.items():
            await record_put(connection, topic="t", key=key, resource=Credential(principal=value))
        if feed is not None:
            feed.changed(connection)


async def delete(database: Database, feed: Feed | None, *keys: str) -> None:
    async with database.begin() as connection:
        for key in keys:
            await record_delete(connection, topic="t", key=key)
        if feed is not None:
            feed.changed(connection)


def plain(response: WatchResponse) -> tuple[str, str, str]:
    kind = response.WhichOneof("change")
    if kind == "put":
        credential = Credential()
        assert response.put.resource.Unpack(credential)
        return ("put", response.put.key, credential.principal)
    return (kind, response.delete.key if kind == "delete" else "", "")


@asynccontextmanager
async def reading(feed: Feed, after: int = 0) -> AsyncIterator[Any]:
    stream = feed.stream(after)

    async def next_one() -> WatchResponse:
        async with asyncio.timeout(30):
            return await anext(stream)

    try:
        yield next_one
    finally:
        await stream.aclose()


async def until_heartbeat(next_one: Any) -> tuple[list[tuple[str, str, str]], int]:
    found = []
    while True:
        response = await next_one()
        if response.WhichOneof("change") == "heartbeat":
            return found, response.revision
        found.append(plain(response))


async def test_a_stream_begins_with_the_present_state_and_a_heartbeat_at_once(database: Database) -> None:
    feed = Feed(database, "t", LONG)
    async with reading(feed) as next_one:
        assert await until_heartbeat(next_one) == ([], 0)
    await put(database, None, a="1", b="2", c="3")
    await put(database, None, a="4")
    await delete(database, None, "b")
    async with reading(feed) as next_one:
        found, revision = await until_heartbeat(next_one)
    assert found == [("put", "c", "3"), ("put", "a", "4")]
    assert revision == 5


async def test_a_change_arrives_when_it_commits_not_before(database: Database) -> None:
    feed = Feed(database, "t", LONG)
    async with reading(feed) as next_one:
        await until_heartbeat(next_one)
        waiting = asyncio.create_task(next_one())
        async with database.begin() as connection:
            await record_put(connection, topic="t", key="a", resource=Credential(principal="1"))
            feed.changed(connection)
            assert not waiting.done()
        assert plain(await waiting) == ("put", "a", "1")


async def test_a_quiet_stream_sends_heartbeats(database: Database) -> None:
    feed = Feed(database, "t", timedelta(milliseconds=20))
    async with reading(feed) as next_one:
        for _ in range(3):
            assert await until_heartbeat(next_one) == ([], 0)


async def test_another_processs_change_is_found_by_the_next_heartbeat(database: Database) -> None:
    feed = Feed(database, "t", timedelta(milliseconds=20))
    async with reading(feed) as next_one:
        await until_heartbeat(next_one)
        await put(database, None, a="1")
        while (response := await next_one()).WhichOneof("change") == "heartbeat":
            pass
        assert plain(response) == ("put", "a", "1")


async def test_topics_do_not_mix(database: Database) -> None:
    await put(database, None, a="1")
    async with reading(Feed(database, "other", LONG)) as next_one:
        assert await until_heartbeat(next_one) == ([], 0)


async def test_more_than_one_page_of_state_arrives_whole(database: Database) -> None:
    await put(database, None, **{f"k{n}": str(n) for n in range(510)})
    async with reading(Feed(database, "t", LONG)) as next_one:
        found, revision = await until_heartbeat(next_one)
    assert [key for _, key, _ in found] == [f"k{n}" for n in range(510)]
    assert revision == 510


async def test_a_revision_that_was_never_reached_is_refused(database: Database) -> None:
    await put(database, None, a="1")
    with pytest.raises(RevisionUnknownError):
        await anext(Feed(database, "t").stream(2))


operations = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from("xyz")), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations, st.integers(0, 12))
async def test_resuming_after_any_revision_gives_the_same_state_deletes_included(
    database: Database, steps: list[tuple[str, str | None]], resume_after: int
) -> None:
    async with database.begin() as connection:
        for table in ("change", "revision"):
            await connection.execute(text(f"DELETE FROM {table}"))
    expected: dict[str, str] = {}
    state: dict[str, str] = {}
    feed = Feed(database, "t", LONG)
    revision = 0

    async def catch_up(after: int) -> int:
        async with reading(feed, after) as next_one:
            found, revision = await until_heartbeat(next_one)
        for kind, key, value in found:
            if kind == "put":
                state[key] = value
            else:
                state.pop(key, None)
        return revision

    for number, (key, value) in enumerate(steps):
        if number == resume_after:
            revision = await catch_up(0)
        if value is None:
            await delete(database, None, key)
            expected.pop(key, None)
        else:
            await put(database, None, **{key: value})
            expected[key] = value
    await catch_up(revision)
    assert state == expected


@asynccontextmanager
async def watched(database: Database, data_dir: Any, feed: Feed) -> AsyncIterator[tuple[Watcher, dict[str, str], Any]]:
    """A watcher over a real server that can be stopped and started again on the same port."""
    state: dict[str, str] = {}

    class Credentials(CredentialServiceServicer):
        async def WatchCredentials(self, request: WatchCredentialsRequest, context: Any) -> AsyncIterator[Any]:
            async for each in feed.stream(request.after_revision):
                yield each

    async def build(_settings: Any, _host: Any, _stack: Any) -> Service:
        return Service(servicers=[(add_CredentialServiceServicer_to_server, Credentials())])

    def on_put(key: str, resource: any_pb2.Any) -> None:
        credential = Credential()
        resource.Unpack(credential)
        state[key] = credential.principal

    address = f"127.0.0.1:{free_port()}"

    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        async with started("probe", ProbeSettings(data_dir=data_dir, listen=address), build):
            yield

    async with connect(address) as channel:
        stub = CredentialServiceStub(channel)
        gateway = signer(data_dir, "gateway")

        def open_stream(after: int) -> Any:
            return stub.WatchCredentials(WatchCredentialsRequest(after_revision=after), **following(signer=gateway))

        watcher = Watcher(open_stream, on_put, state.__delitem__, name="things")
        task = asyncio.create_task(watcher.run())
        yield watcher, state, serving
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(state: dict[str, str], expected: dict[str, str]) -> None:
    async def same() -> bool:
        return state == expected

    await eventually(same)


async def test_a_watcher_keeps_the_last_good_state_and_catches_up_after_a_restart(
    database: Database, data_dir: Any
) -> None:
    feed = Feed(database, "t", LONG)
    await put(database, feed, a="1", b="2")
    async with watched(database, data_dir, feed) as (watcher, state, serving):
        async with serving():
            async with asyncio.timeout(30):
                await watcher.current()
            assert state == {"a": "1", "b": "2"}
            await put(database, feed, c="3")
            await settled(state, {"a": "1", "b": "2", "c": "3"})
        assert state == {"a": "1", "b": "2", "c": "3"}
        await delete(database, feed, "a")
        await put(database, feed, b="4")
        assert state == {"a": "1", "b": "2", "c": "3"}
        async with serving():
            await settled(state, {"b": "4", "c": "3"})


async def test_a_watcher_of_a_feed_that_began_anew_forgets_what_is_no_more(database: Database, data_dir: Any) -> None:
    feed = Feed(database, "t", LONG)
    await put(database, feed, a="1", b="2", c="3")
    async with watched(database, data_dir, feed) as (watcher, state, serving):
        async with serving():
            await settled(state, {"a": "1", "b": "2", "c": "3"})
            await watcher.current()
        async with database.begin() as connection:
            for table in ("change", "revision"):
                await connection.execute(text(f"DELETE FROM {table}"))
        await put(database, feed, b="9")
        async with serving():
            await settled(state, {"b": "9"})


async def test_a_silent_stream_is_opened_again_after_the_last_revision() -> None:
    heartbeat = WatchResponse(revision=7, heartbeat={})
    opened: list[int] = []
    again = asyncio.Event()

    async def open_stream(after: int) -> AsyncIterator[WatchResponse]:
        opened.append(after)
        if len(opened) == 2:
            again.set()
        yield heartbeat
        await asyncio.Event().wait()

    watcher = Watcher(
        open_stream, lambda _key, _resource: None, lambda _key: None, name="things", silence=timedelta(seconds=0.05)
    )
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(30):
        await again.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert opened == [0, 7]
