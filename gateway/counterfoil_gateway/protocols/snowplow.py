"""Snowplow's trackers: routes, keys and answers; ingest reads the events.

A tracker knows no key, so its write key is the app id (`aid`), or stands in the path: with `https://host/w/<write key>`
as the collector, the app id stays the sender's own. Trackers send what is refused for its size again for ever, so there
is no 413 here: the beginning of such a body goes to quarantine. Source: Snowplow Tracker Protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from counterfoil_gateway import write_keys
from counterfoil_gateway.asgi import Reply
from counterfoil_gateway.bodies import read_beginning
from counterfoil_gateway.events import EventDoor, EventRequest, EventRoute
from counterfoil_gateway.problems import Problem
from counterfoil_gateway.protocols.pixels import PIXEL

PROTOCOL = "snowplow"
_KEPT = 64 << 10
"""Bytes of a body that is too large."""
_TOO_LARGE = 413
_DONE = Reply(200, b"ok", [(b"content-type", b"text/plain")])
_APP_ID_MEMBER = re.compile(rb'"aid"\s*:\s*"([A-Za-z0-9_-]{1,200})"')
_APP_ID: Mapping[str, str] = {"aid": "The source's write key, unless the path or a header has it."}


async def _post(door: EventDoor, request: EventRequest) -> Reply:
    received_at = door.appender.now()
    body, whole = await read_beginning(request.receive)
    key = request.path_key or write_keys.outside(request.headers, request.query)
    signed_in = await door.sign_in(request, key or (_app_id(body) if whole else _first_app_id(body)))
    declared = request.headers.get(b"content-type", b"").decode("latin-1")
    send = partial(door.appender.append, signed_in, protocol=PROTOCOL, content_type=declared, received_at=received_at)
    try:
        if whole:
            await send(body, route="tp2")
    except Problem as problem:
        if problem.status != _TOO_LARGE:
            raise
        whole = False  # once it is decompressed
    if not whole:
        await send(body[:_KEPT], route="cut")
    return _DONE


async def _get(door: EventDoor, request: EventRequest) -> Reply:
    received_at = door.appender.now()
    key = request.path_key or write_keys.outside(request.headers, request.query)
    if not key:
        [key] = parse_qs(request.query.decode("latin-1")).get("aid", [""])[:1]
    signed_in = await door.sign_in(request, key)
    await door.appender.append(
        signed_in, request.query, protocol=PROTOCOL, route="i", content_type="", received_at=received_at
    )
    return PIXEL


def _app_id(body: bytes) -> str:
    """Return the app id of a payload's first event that has one; raise Problem when the body is not JSON."""
    try:
        value: Any = write_keys.parse(body)
    except Problem as problem:
        if problem.status != _TOO_LARGE:
            raise
        return ""
    data = value.get("data") if isinstance(value, dict) else None
    for event in data if isinstance(data, list) else [value]:
        app_id = event.get("aid") if isinstance(event, dict) else None
        if isinstance(app_id, str) and app_id:
            return app_id
    return ""


def _first_app_id(beginning: bytes) -> str:
    """Return the first app id in the beginning of a body, which is no JSON any more; "" when none is there."""
    found = _APP_ID_MEMBER.search(beginning)
    return found[1].decode() if found else ""


def _routes(before: str, suffix: str, parameters: Mapping[str, str]) -> list[EventRoute]:
    media_types = ("application/json",)
    return [
        EventRoute(
            "POST",
            f"{before}/com.snowplowanalytics.snowplow/tp2",
            _post,
            f"SnowplowPayload{suffix}",
            "Send events as Snowplow's trackers post them.",
            media_types=media_types,
            gives="text/plain",
        ),
        EventRoute(
            "GET",
            f"{before}/i",
            _get,
            f"SnowplowPixel{suffix}",
            "Send one event as Snowplow's trackers put it into a query.",
            gives="image/gif",
            parameters=parameters,
        ),
    ]


ROUTES: Sequence[EventRoute] = (*_routes("", "", _APP_ID), *_routes("/w/{write_key}", "ByPath", {}))
