"""Request bodies: read within the limit, told apart by media type, JSON parsed within a depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from counterfoil_gateway.asgi import CallerLeftError, Receive
from counterfoil_gateway.problems import C, Problem

MAX_BODY = 4 << 20
MAX_DEPTH = 64
_DISCARDED = 64 << 20
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
_OPEN = (dict, list)


def media_type(headers: Mapping[bytes, bytes]) -> str:
    """Return the declared media type without its parameters; JSON when none is declared."""
    declared = headers.get(b"content-type", b"").decode("latin-1").split(";")[0].strip().lower()
    return declared or JSON


def refuse_encoding(headers: Mapping[bytes, bytes]) -> None:
    """Raise Problem for a compressed body: only the event routes take one."""
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        raise Problem(C.INVALID_ARGUMENT, "send the body uncompressed", "UNSUPPORTED_ENCODING", http=415)


async def read_body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the whole body; raise Problem above 4 MiB and CallerLeftError."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > MAX_BODY:
        if b"expect" not in headers:  # who asks first has sent nothing yet
            await _discard(receive)
        raise too_large()
    body, whole = await read_beginning(receive)
    if not whole:
        raise too_large()
    return body


async def read_beginning(receive: Receive) -> tuple[bytes, bool]:
    """Return the body and True, or its first 4 MiB and False, the rest of it read; raise CallerLeftError."""
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerLeftError
        chunk: bytes = event.get("body", b"")
        size += len(chunk)
        chunks.append(chunk)
        if size > MAX_BODY:
            if event.get("more_body"):
                await _discard(receive)
            return b"".join(chunks)[:MAX_BODY], False
        if not event.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks), True


async def _discard(receive: Receive) -> None:
    """Read what is left of a body, up to 64 MiB, and keep nothing.

    An answer before its end would be lost with the connection: senders read none until all is sent, and try again.
    """
    size = 0
    while size < _DISCARDED:
        event = await receive()
        size += len(event.get("body", b""))
        if not event.get("more_body"):
            return


def too_large(most: str = f"{MAX_BODY} bytes") -> Problem:
    """Return the problem of a body over the limit."""
    text = f"the body is over {most}; send less at once, or a file to /v1/imports"
    return Problem(C.INVALID_ARGUMENT, text, "BODY_TOO_LARGE", http=413)


def parse(body: bytes) -> Any:
    """Return the JSON value; raise Problem for anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth" in str(error) or "recursion" in str(error).lower():
            raise _too_deep() from None
        raise Problem(C.INVALID_ARGUMENT, f"the body is not JSON: {error}", "BAD_JSON") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth_over(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _too_deep() -> Problem:
    return Problem(C.INVALID_ARGUMENT, f"the body is nested deeper than {MAX_DEPTH} levels", "BODY_TOO_DEEP")


def _depth_over(value: Any, limit: int) -> bool:
    """Say whether a JSON value is nested deeper; level by level, since recursion is what it guards."""
    level = [value] if isinstance(value, _OPEN) else []
    for _ in range(limit):
        children = (c for v in level for c in (v.values() if isinstance(v, dict) else v))
        level = [c for c in children if isinstance(c, _OPEN)]
        if not level:
            return False
    return True
