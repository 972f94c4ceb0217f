"""Where the write key of an event request stands, in the order SDKs are to be believed."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import orjson

from counterfoil_gateway.problems import C, Problem

MAX_INFLATED = 16 << 20
GZIP = b"\x1f\x8b"


def outside(headers: Mapping[bytes, bytes], query: bytes) -> str:
    """Return the key of the Basic user, of `X-Write-Key`, or of `?writeKey`; empty when none carries one."""
    authorization = headers.get(b"authorization", b"")
    if authorization[:6].lower() == b"basic ":
        user = _basic_user(authorization[6:])
        if user:
            return user
    given = headers.get(b"x-write-key")
    if given:
        return given.decode("latin-1").strip()
    if b"writeKey=" in query:
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            if name == b"writeKey":
                return unquote_plus(value.decode("latin-1"))
    return ""


def _basic_user(encoded: bytes) -> str:
    try:
        return base64.b64decode(encoded.strip()).decode("utf-8").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def inside(body: bytes) -> str:
    """Return the body's own `writeKey`, empty when it has none; raise Problem when the body is not JSON."""
    value = parse(body)
    key = value.get("writeKey") if isinstance(value, dict) else None
    return key if isinstance(key, str) else ""


def parse(body: bytes) -> Any:
    """Return the JSON value of a body that may be gzip, told by its bytes; raise Problem when it is neither."""
    try:
        return orjson.loads(_inflated(body) if body.startswith(GZIP) else body)
    except (orjson.JSONDecodeError, zlib.error) as error:
        raise Problem(C.INVALID_ARGUMENT, f"the body is not JSON: {error}", "BAD_JSON") from None


def _inflated(body: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    text = stream.decompress(body, MAX_INFLATED)
    if stream.unconsumed_tail:
        what = f"the body is over {MAX_INFLATED} bytes once decompressed"
        raise Problem(C.INVALID_ARGUMENT, what, "BODY_TOO_LARGE", http=413)
    return text
