"""Server streams as NDJSON, or as server-sent events when asked for.

The header fields wait for the first message, so an early failure keeps its status; a late one is the last line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc

from counterfoil_gateway.asgi import CallerLeftError, Receive, Send
from counterfoil_gateway.calls import Cancellable, StreamCall
from counterfoil_gateway.problems import from_rpc
from counterfoil_gateway.transcode import Transcoder

NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"
PATIENCE = 60.0
"""Seconds that either side of a stream may keep the gateway waiting for bytes that it said it would send or take."""
Part = tuple[bytes, Sequence[tuple[bytes, bytes]]]
"""Bytes of a file, and the header fields that it has when they are its first."""
_log = logging.getLogger(__name__)


class Following:
    """The calls that go on without end, at both doors: they would hold up a gateway that drains, so it ends them."""

    def __init__(self) -> None:
        self._calls: set[Cancellable] = set()
        self.ended = False

    def end(self) -> None:
        """End them all; later ones end as they begin."""
        self.ended = True
        for call in tuple(self._calls):
            call.cancel()

    @contextmanager
    def holding(self, call: Cancellable) -> Iterator[None]:
        """Hold a call while the block runs."""
        if self.ended:
            call.cancel()
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)


async def stream(
    call: StreamCall,
    transcoder: Transcoder,
    headers: Mapping[bytes, bytes],
    *,
    receive: Receive,
    send: Send,
    following: Following,
) -> None:
    """Send every message as it comes; raise AioRpcError when the call fails before the first.

    A reader of events who lost the connection goes on where it was: the id of an event is the offset after it.
    """
    sse = SSE in headers.get(b"accept", b"")
    media_type = SSE if sse else NDJSON
    gone = asyncio.ensure_future(until_gone(receive, call))
    started = False
    try:
        with following.holding(call):
            async for raw in call:
                if not started:
                    await start(send, media_type)
                    started = True
                message = transcoder.method.output.FromString(raw)
                await send_part(send, transcoder.event(message) if sse else transcoder.text(message) + b"\n")
        await _end(send, None if started else media_type)
    except grpc.aio.AioRpcError as error:
        if not started:
            raise
        text = from_rpc(error).json()
        await send_part(send, b"event: error\ndata: " + text + b"\n\n" if sse else b'{"error":' + text + b"}\n")
        await _end(send)
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            return  # the caller has left
        if not following.ended or is_being_cancelled():
            raise
        await _end(send, None if started else media_type)
    finally:
        gone.cancel()
        call.cancel()


async def send_file(
    call: StreamCall, part: Callable[[bytes], Part], *, media_type: bytes, receive: Receive, send: Send
) -> None:
    """Send what the messages hold as one file; raise AioRpcError when the call fails before the first.

    A file that fails on the way is broken off, so that nobody takes it for the whole.
    """
    gone = asyncio.ensure_future(until_gone(receive, call))
    started = False
    try:
        async for raw in call:
            data, fields = part(raw)
            if not started:
                await start(send, media_type, *fields)
                started = True
            await send_part(send, data)
        await _end(send, None if started else media_type)
    except grpc.aio.AioRpcError as error:
        if not started:
            raise
        problem = from_rpc(error)
        fields_of = {"media_type": media_type.decode(), "code": problem.code.name, "reason": problem.reason}
        _log.warning("a file broke off", extra=fields_of)
    except asyncio.CancelledError:
        if not gone.done() or gone.cancelled():
            raise
    finally:
        gone.cancel()
        call.cancel()


async def start(send: Send, media_type: bytes, *fields: tuple[bytes, bytes]) -> None:
    """Begin an answer of unknown length that no proxy is to hold back or keep."""
    always = [(b"content-type", media_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": [*always, *fields]})


async def send_part(send: Send, content: bytes) -> None:
    """Send a part of an answer; raise CallerLeftError when the caller takes none for a minute, and holds a place."""
    try:
        async with asyncio.timeout(PATIENCE):
            await send({"type": "http.response.body", "body": content, "more_body": True})
    except TimeoutError:
        raise CallerLeftError from None


async def _end(send: Send, begin_as: bytes | None = None) -> None:
    if begin_as is not None:
        await start(send, begin_as)
    await send({"type": "http.response.body", "body": b""})


def is_being_cancelled() -> bool:
    """Say whether somebody cancels the running task, rather than a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def until_gone(receive: Receive, call: Cancellable) -> None:
    """Cancel the call once the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call.cancel()
