"""Server streams by REST that end by themselves: one is made of a stream of the gRPC door, since no method has both."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import orjson
import pytest
import pytest_asyncio
import uvicorn
from counterfoil_chassis.shedding import Load
from counterfoil_gateway import api as apis
from counterfoil_gateway.admission import Admission
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.deadlines import STREAM
from counterfoil_gateway.doors import _Server
from counterfoil_gateway.serve import Rest
from counterfoil_gateway.streams import Following

from tests.gateway.conftest import ADMIN, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def http(doors: Doors, unused_tcp_port: int) -> AsyncIterator[httpx.AsyncClient]:
    method = next(m for m in apis.load(apis.image()).methods if m.rpc == "StreamQuery")
    binding = apis.Binding("POST", "/v1/sql:stream", "*", ("v1", "sql"), "stream")
    api = apis.Api((dataclasses.replace(method, bindings=(binding,)),), {})
    async with grpc.aio.insecure_channel(doors.address) as channel:
        token = doors.signer.mint(workspace="w", principal="ada", scopes=["ingest.read"])

        async def identify(_scope: object, _headers: object, _method: object) -> list[tuple[str, str]]:
            return [("authorization", f"Bearer {token}")]

        rest = Rest(api, Calls(api, {"ingest": channel}), identify, following=Following())
        options = {"port": unused_tcp_port, "lifespan": "off", "log_config": None, "http": "httptools"}
        admission = Admission(Load(most=10, delay=5.0), most_bytes=8 << 20, most_streams=1)
        server = _Server(uvicorn.Config(admission.guard(rest), **options))
        serving = asyncio.create_task(server.serve())
        await server.accepting()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}", timeout=60) as client:
            yield client
        server.should_exit = True
        await serving


async def test_messages_are_lines(http: httpx.AsyncClient):
    answer = await http.post("/v1/sql:stream", json={"sql": "3"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [orjson.loads(line)["rows"] for line in answer.text.splitlines()] == ["0", "1", "2"]


async def test_messages_are_events_when_asked_for(http: httpx.AsyncClient):
    answer = await http.post("/v1/sql:stream", json={"sql": "2"}, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    events = answer.text.strip().split("\n\n")
    assert [orjson.loads(e.removeprefix("data: "))["rows"] for e in events] == ["0", "1"]


async def test_an_early_failure_keeps_its_status(http: httpx.AsyncClient):
    answer = await http.post("/v1/sql:stream", json={"sql": "early"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "no such table")


async def test_a_late_failure_is_the_last_line_or_event(http: httpx.AsyncClient):
    answer = await http.post("/v1/sql:stream", json={"sql": "late"})
    assert answer.status_code == 200
    first, last = map(orjson.loads, answer.text.splitlines())
    assert (first["rows"], last["error"]["reason"]) == ("0", "RESOURCE_EXHAUSTED")
    answer = await http.post("/v1/sql:stream", json={"sql": "late"}, headers={"accept": "text/event-stream"})
    kind, data = answer.text.strip().split("\n\n")[-1].split("\n")
    assert (kind, orjson.loads(data.removeprefix("data: "))["status"]) == ("event: error", 429)


async def test_a_reader_who_leaves_ends_the_stream_behind(doors: Doors, http: httpx.AsyncClient):
    async with http.stream("POST", "/v1/sql:stream", json={"sql": "forever"}) as answer:
        async for _ in answer.aiter_lines():
            break
    await asyncio.wait_for(doors.backend.cancelled.wait(), 60)


async def test_an_empty_stream_is_an_empty_answer(http: httpx.AsyncClient):
    answer = await http.post("/v1/sql:stream", json={"sql": "0"})
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_stream_with_an_end_may_take_hours_or_what_its_caller_asked_for(doors: Doors, http: httpx.AsyncClient):
    await http.post("/v1/sql:stream", json={"sql": "1"})
    await http.post("/v1/sql:stream", json={"sql": "1"}, headers={"request-timeout": "3"})
    long, bounded = doors.backend.remaining
    assert STREAM - 60 < long <= STREAM
    assert bounded is not None
    assert bounded <= 3.1
    assert ADMIN not in str(doors.backend.metadata)


async def test_more_streams_than_may_go_on_are_refused_until_one_ends(http: httpx.AsyncClient):
    body = {"sql": "forever"}
    async with http.stream("POST", "/v1/sql:stream", json=body) as first:
        assert (await anext(first.aiter_lines())) is not None
        refused = await http.post("/v1/sql:stream", json={"sql": "1"})
        assert (refused.status_code, refused.json()["reason"]) == (503, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
    async with asyncio.timeout(60):
        while (await http.post("/v1/sql:stream", json={"sql": "1"})).status_code == 503:
            await asyncio.sleep(0.01)


async def test_a_connection_that_never_says_what_it_asks_for_is_closed(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
):
    """One that asks, whose answer takes longer, is not."""
    others_closed = asyncio.Event()

    async def slow(_scope: object, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            """The body is read to its end."""
        await others_closed.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    monkeypatch.setattr("counterfoil_gateway.doors.HEAD_SECONDS", 0.4)
    options = {"port": unused_tcp_port, "lifespan": "off", "log_config": None, "http": "httptools"}
    server = _Server(uvicorn.Config(slow, **options))
    serving, letting = asyncio.create_task(server.serve()), asyncio.create_task(server.let_go())
    await server.accepting()
    silent, slow_head, second, asking = [await asyncio.open_connection("127.0.0.1", unused_tcp_port) for _ in range(4)]
    slow_head[1].write(b"GET / HTTP/1.1\r\nHost: a")
    second[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    asking[1].write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")
    async with asyncio.timeout(10):
        assert await silent[0].read() == await slow_head[0].read() == b""
        others_closed.set()
        assert (await second[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        second[1].write(b"GET / HT")
        assert await second[0].read() == b""
        asking[1].write(b"2")
        assert (await asking[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    for _, writer in (silent, slow_head, second, asking):
        writer.close()
    letting.cancel()
    server.should_exit = True
    await serving
