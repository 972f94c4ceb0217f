"""Server streams as NDJSON, or as server-sent events when asked for.

The header fields wait for the first message, so an early failure keeps its status; a late one is the last line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc

from counterfoil_gateway.asgi import Receive, Send
from counterfoil_gateway.calls import Cancellable, StreamCall
from counterfoil_gateway.problems import from_rpc
from counterfoil_gateway.transcode import Transcoder

NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"


async def stream(
    call: StreamCall, transcoder: Transcoder, headers: Mapping[bytes, bytes], *, receive: Receive, send: Send
) -> None:
    """Send every message as it comes; raise AioRpcError when the call fails before the first."""
    sse = SSE in headers.get(b"accept", b"")
    gone = asyncio.ensure_future(until_gone(receive, call))
    started = False
    try:
        async for raw in call:
            if not started:
                await _start(send, SSE if sse else NDJSON)
                started = True
            text = transcoder.text(transcoder.method.output.FromString(raw))
            await _send(send, b"data: " + text + b"\n\n" if sse else text + b"\n")
        if not started:
            await _start(send, SSE if sse else NDJSON)
        await send({"type": "http.response.body", "body": b""})
    except grpc.aio.AioRpcError as error:
        if not started:
            raise
        text = from_rpc(error).json()
        await _send(send, b"event: error\ndata: " + text + b"\n\n" if sse else b'{"error":' + text + b"}\n")
        await send({"type": "http.response.body", "body": b""})
    except asyncio.CancelledError:
        if not gone.done() or gone.cancelled():  # we are being stopped, rather than left by the caller
            raise
    finally:
        gone.cancel()
        call.cancel()


async def _start(send: Send, media_type: bytes) -> None:
    fields = [(b"content-type", media_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})


async def _send(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def until_gone(receive: Receive, call: Cancellable) -> None:
    """Cancel the call once the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call.cancel()
