"""What is over a bound is refused at once at both doors, and a gateway that stops lets go of its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio
from counterfoil.governance.v1 import workspaces_pb2
from counterfoil.governance.v1.workspaces_pb2_grpc import WorkspaceServiceStub
from counterfoil_chassis.errors import Code
from counterfoil_chassis.shedding import Load
from counterfoil_chassis.status import failure_of
from counterfoil_gateway import admission as admission_of_the_gateway
from counterfoil_gateway.admission import Admission
from counterfoil_gateway.asgi import Event, Receive, Reply, Scope, Send

from tests.gateway.conftest import ADMIN, WRITE, Doors, gateway_and_backend

pytestmark = pytest.mark.asyncio(loop_scope="session")
BODY = {"batch": [{"type": "track", "event": "E", "userId": "u", "messageId": "m"}]}
KEY = {"x-api-key": ADMIN}


@pytest_asyncio.fixture(loop_scope="session")
async def small(keys_dir: Path) -> AsyncIterator[Doors]:
    """A gateway that works on two requests at once."""
    async with aclosing(gateway_and_backend(keys_dir, max_running=2)) as made:
        async for doors in made:
            yield doors


async def filled(doors: Doors) -> list[asyncio.Task[object]]:
    """Have both places taken by requests that take long: one by REST, one by gRPC."""
    stub = WorkspaceServiceStub(doors.rpc)
    request = workspaces_pb2.GetWorkspaceRequest(workspace_id="slow")

    async def by_grpc() -> object:
        return await stub.GetWorkspace(request, metadata=(("x-api-key", ADMIN),), timeout=60)

    slow = [asyncio.ensure_future(by_grpc()), asyncio.ensure_future(doors.http.get("/v1/workspaces/slow", headers=KEY))]
    async with asyncio.timeout(60):
        while len(doors.backend.requests) < 2:
            await asyncio.sleep(0.01)
    return slow


async def test_both_doors_refuse_what_is_one_too_many_and_answer_probes(small: Doors):
    slow = await filled(small)
    seen = len(small.backend.requests)
    refused = await small.http.get("/v1/workspaces/w", headers=KEY)
    assert (refused.status_code, refused.json()["reason"], refused.headers["retry-after"]) == (503, "OVERLOADED", "1")
    page = {"origin": "https://shop.example"}
    refused = await small.http.post("/v1/batch", json=BODY, auth=(WRITE, ""), headers=page)
    assert (refused.status_code, refused.json()["reason"], refused.headers["retry-after"]) == (503, "OVERLOADED", "1")
    assert refused.headers["access-control-allow-origin"] == page["origin"], "else its SDK cannot see why"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await WorkspaceServiceStub(small.rpc).GetWorkspace(workspaces_pb2.GetWorkspaceRequest(workspace_id="w"))
    failure = failure_of(error.value)
    assert (failure.code, failure.reason) == (Code.UNAVAILABLE, "OVERLOADED")
    assert failure.retry_after is not None
    assert (await small.http.get("/healthz")).status_code == 200
    assert len(small.backend.requests) == seen, "nothing was asked of the services"
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    async with asyncio.timeout(60):
        while (await small.http.get("/v1/workspaces/w", headers=KEY)).status_code != 200:
            await asyncio.sleep(0.01)


async def call(app: object, *fields: tuple[bytes, bytes], release: asyncio.Event | None = None) -> tuple[int, dict]:
    """Send one request to an application; return its status and header fields."""
    sent: list[Event] = []

    async def receive() -> Event:
        if release is not None:
            await release.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Event) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/v1/batch", "headers": list(fields)}
    await app(scope, receive, send)  # type: ignore[operator]
    return sent[0]["status"], dict(sent[0]["headers"])


async def reads(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer once the body is there."""
    await receive()
    await Reply(200).to(send)


async def test_bodies_that_would_not_fit_into_memory_are_refused_unread():
    admission = Admission(Load(most=100, delay=5.0), most_bytes=8 << 20, most_streams=1)
    app = admission.guard(reads)
    go = asyncio.Event()
    small, unknown = (b"content-length", b"4194304"), (b"transfer-encoding", b"chunked")
    running = [asyncio.ensure_future(call(app, each, release=go)) for each in (small, unknown)]
    await asyncio.sleep(0)
    assert admission.bytes == 8 << 20, "a body of unknown length counts as the longest there may be"
    status, fields = await call(app, (b"content-length", b"1"))
    assert (status, fields[b"retry-after"]) == (503, b"1")
    go.set()
    assert [status for status, _ in await asyncio.gather(*running)] == [200, 200]
    assert (admission.bytes, admission.load.running) == (0, 0)
    assert (await call(app, (b"content-length", b"1")))[0] == 200


async def test_a_request_that_does_not_get_on_loses_its_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admission_of_the_gateway, "LONGEST_REQUEST", 0.2)
    admission = Admission(Load(most=1, delay=5.0), most_bytes=8 << 20, most_streams=1)
    app = admission.guard(reads)
    watching = asyncio.create_task(admission.watch())
    never = asyncio.Event()
    async with asyncio.timeout(60):
        assert (await call(app, release=never))[0] == 408
    assert (admission.load.running, admission.bytes) == (0, 0)
    left = asyncio.create_task(call(app, release=never))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left  # by whom it was, nobody here can say: it goes on
    watching.cancel()


async def test_answers_of_a_gateway_that_stops_end_their_connections():
    admission = Admission(Load(most=100, delay=5.0), most_bytes=8 << 20, most_streams=1)
    app = admission.guard(reads)
    assert b"connection" not in (await call(app))[1]
    admission.draining = True
    assert (await call(app))[1][b"connection"] == b"close"


async def test_a_gateway_that_stops_under_load_cuts_off_no_request_that_it_took(keys_dir: Path):
    answered: set[str] = set()
    broken: list[Exception] = []
    made = gateway_and_backend(keys_dir)
    doors = await anext(made)

    async def sender(name: str) -> None:
        async with httpx.AsyncClient(base_url=doors.url, timeout=60) as http:
            for number in range(10**6):
                mark = f"{name}.{number}"
                batch = [{"type": "track", "event": "E", "userId": "u", "messageId": mark}]
                try:
                    answer = await http.post("/v1/batch", json={"batch": batch}, auth=(WRITE, ""))
                except httpx.TransportError as error:
                    broken.append(error)
                    return
                assert answer.status_code == 200, answer.text
                answered.add(mark)

    senders = [asyncio.create_task(sender(str(number))) for number in range(10)]
    async with asyncio.timeout(60):
        while len(answered) < 200:
            await asyncio.sleep(0.01)
    backend = doors.backend
    await doors.http.aclose()
    await made.aclose()
    await asyncio.gather(*senders)
    kept = {
        event["messageId"] for item in backend.items for event in httpx.Response(200, content=item.body).json()["batch"]
    }
    assert kept == answered, "what was kept was acknowledged"
    assert len(broken) == len(senders)
