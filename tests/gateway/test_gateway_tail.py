"""Records as they come in: lines, or events that a browser can take up again; ended by the reader or by a drain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest
from counterfoil.ingest.v1 import records_pb2, records_pb2_grpc

from tests.gateway.conftest import ADMIN, Doors, gateway_and_backend

pytestmark = pytest.mark.asyncio(loop_scope="session")
URL = "/v1/records:tail"
EVENTS = {"accept": "text/event-stream"}


async def blocks(answer: httpx.Response, count: int) -> list[dict[str, str]]:
    """Return the next events, each with its fields; a comment's text is the field of no name."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        found.append(fields)
        fields = {}
        if len(found) == count:
            break
    return found


async def test_records_are_events_whose_ids_are_offsets(doors: Doors, admin: dict):
    async with doors.http.stream("GET", f"{URL}?dataset=events", headers=admin | EVENTS) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        hello, first, second, quiet = await blocks(answer, 4)
    assert hello == {"": "nothing new", "id": "7"}
    assert (first["event"], first["id"]) == ("record", "8")
    assert orjson.loads(first["data"])["record"]["data"] == {"n": 8}
    assert orjson.loads(second["data"])["next_offset"] == 9
    assert quiet == {"": "nothing new", "id": "16"}
    assert doors.backend.requests[-1].dataset == "events"
    await asyncio.wait_for(doors.backend.cancelled.wait(), 60)


async def test_a_browser_goes_on_where_it_was(doors: Doors, admin: dict):
    again = admin | EVENTS | {"last-event-id": "41"}
    async with doors.http.stream("GET", f"{URL}?from_offset=3", headers=again) as answer:
        assert [block["id"] for block in await blocks(answer, 2)] == ["41", "42"]
    assert doors.backend.requests[-1].from_offset == 41
    for wrong in ("x", "-1", "1" * 30, "\u0661".encode()):
        answer = await doors.http.get(URL, headers=admin | EVENTS | {"last-event-id": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "Last-Event-ID")


async def test_without_asking_for_events_records_are_lines(doors: Doors, admin: dict):
    lines: list[Any] = []
    async with doors.http.stream("GET", f"{URL}?from_offset=0", headers=admin) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        async for line in answer.aiter_lines():
            lines.append(orjson.loads(line))
            if len(lines) == 2:
                break
    assert lines[0] == {"next_offset": 0}
    assert lines[1]["record"]["data"] == {"n": 1}


async def test_a_session_opens_the_stream_since_a_browser_cannot_send_a_key(doors: Doors):
    async with httpx.AsyncClient(base_url=doors.url, timeout=60) as browser:
        made = await doors.http.post("/console/sign-in-links", headers={"x-api-key": ADMIN})
        await browser.get(made.json()["url"])
        async with browser.stream("GET", URL, headers=EVENTS) as answer:
            assert answer.status_code == 200
            assert len(await blocks(answer, 2)) == 2


async def test_failures_are_told_before_and_after_the_stream_began(doors: Doors, admin: dict):
    answer = await doors.http.get(f"{URL}?dataset=nothing", headers=admin | EVENTS)
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no dataset of this name")
    answer = await doors.http.get(f"{URL}?dataset=late", headers=admin | EVENTS)
    *_, last = answer.text.strip().split("\n\n")
    kind, data = last.split("\n")
    assert (kind, orjson.loads(data.removeprefix("data: "))["status"]) == ("event: error", 503)


async def test_a_drain_ends_every_tail_at_once_and_cleanly(keys_dir: Path, admin: dict):
    running = gateway_and_backend(keys_dir, drain_seconds=50)
    doors = await anext(running)
    async with httpx.AsyncClient(timeout=60) as http, grpc.aio.insecure_channel(doors.grpc_address) as channel:
        stub: Any = records_pb2_grpc.RecordServiceStub(channel)
        call = stub.TailRecords(records_pb2.TailRecordsRequest(), metadata=(("x-api-key", ADMIN),))
        answers = aiter(call)
        assert (await anext(answers)).next_offset == 7
        began = asyncio.Event()

        async def read_on() -> str:
            async with http.stream("GET", doors.url + URL, headers=admin | EVENTS) as answer:
                began.set()
                return "".join([text async for text in answer.aiter_text()])  # raises when it is broken off

        async def until_refused() -> grpc.StatusCode:
            async for _ in answers:
                pass
            return grpc.StatusCode.OK

        readers = asyncio.gather(read_on(), until_refused(), return_exceptions=True)
        await began.wait()
        async with asyncio.timeout(30):  # the time that calls may still take is not used up
            with pytest.raises(StopAsyncIteration):
                await anext(running)
        text, refusal = await readers
    assert isinstance(text, str)
    assert text.endswith("\n\n")
    assert isinstance(refusal, grpc.aio.AioRpcError)
    assert refusal.code() is grpc.StatusCode.UNAVAILABLE
    assert refusal.details() == "the gateway is about to stop; follow again"
