"""The Segment family of SDKs (Segment, RudderStack, Customer.io): routes, keys and answers; ingest reads the events.

SDKs drop what they sent on any 4xx and some count only 200 as success, so: exactly 200, never a 4xx for what an event
holds. Sources: Segment's HTTP API and the public SDKs' behaviour.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import orjson

from counterfoil_gateway import write_keys
from counterfoil_gateway.asgi import Reply
from counterfoil_gateway.events import EventDoor, EventRequest, EventRoute
from counterfoil_gateway.problems import C, Problem
from counterfoil_gateway.protocols.pixels import PIXEL

PROTOCOL = "segment"
TYPES: Mapping[str, str] = {
    "identify": "i",
    "track": "t",
    "page": "p",
    "screen": "s",
    "group": "g",
    "alias": "a",
    "batch": "b",
}
"""Each call with the short path that browsers' SDKs use."""
_MEDIA_TYPES = ("application/json", "text/plain", "application/x-www-form-urlencoded")
_JSON = [(b"content-type", b"application/json")]
_DONE = Reply(200, b'{"success":true}', _JSON)
_DEEPEST = 8
_Answer: TypeAlias = Callable[[EventDoor, EventRequest], Awaitable[Reply]]
_WRITE_KEY = {"writeKey": "The source's write key."}


def _collector(name: str) -> _Answer:
    async def collect(door: EventDoor, request: EventRequest) -> Reply:
        received_at = door.appender.now()
        body, signed_in = await door.body_and_source(request)
        declared = request.headers.get(b"content-type", b"").decode("latin-1")
        await door.appender.append(
            signed_in, body, protocol=PROTOCOL, route=name, content_type=declared, received_at=received_at
        )
        return _DONE

    return collect


def _pixel(name: str) -> _Answer:
    async def collect(door: EventDoor, request: EventRequest) -> Reply:
        received_at = door.appender.now()
        signed_in = await door.sign_in(request, write_keys.outside(request.headers, request.query))
        body = orjson.dumps(_event_of(request.query, name))
        await door.appender.append(
            signed_in, body, protocol=PROTOCOL, route=name, content_type="application/json", received_at=received_at
        )
        return PIXEL

    return collect


def _event_of(query: bytes, name: str) -> dict[str, Any]:
    """Return the event that a pixel's query describes; raise Problem when its `data` cannot be read."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given = dict(pairs)
    if "data" in given:
        return {**_decoded(given["data"]), "type": name}
    event: dict[str, Any] = {}
    for key, value in pairs:
        if key != "writeKey":
            _set(event, key.split(".", _DEEPEST), value)
    return {**event, "type": name}


def _decoded(data: str) -> dict[str, Any]:
    try:
        standard = data.replace("-", "+").replace("_", "/").rstrip("=")
        value = orjson.loads(base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True))
    except (binascii.Error, ValueError):
        value = None
    if not isinstance(value, dict):
        raise Problem(C.INVALID_ARGUMENT, "data is not a JSON object in base64", "BAD_JSON")
    return value


def _set(event: dict[str, Any], names: Sequence[str], value: str) -> None:
    for name in names[:-1]:
        inner = event.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        event = inner
    event[names[-1]] = value


async def _settings(door: EventDoor, request: EventRequest) -> Reply:
    """Answer with what Segment's browser SDK loads first: everything goes to this host, nothing elsewhere."""
    key = request.path_key
    await door.sign_in(request, key)
    host = request.headers.get(b"host", b"").decode("latin-1")
    segment = {"apiKey": key, "apiHost": f"{host}/v1", "protocol": request.scope["scheme"]}
    enabled = {"__default": {"enabled": True, "integrations": {}}}
    settings = {
        "integrations": {"Segment.io": {**segment, "unbundledIntegrations": [], "addBundledMetadata": True}},
        "plan": {"track": enabled, "identify": enabled, "group": enabled},
        "edgeFunction": {},
        "analyticsNextEnabled": True,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": {"sampleRate": 0},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }
    return Reply(200, orjson.dumps(settings), _JSON)


async def _source_config(door: EventDoor, request: EventRequest) -> Reply:
    """Answer with what RudderStack's browser SDK loads first: no destinations, and no statistics to its maker."""
    key = write_keys.outside(request.headers, request.query)
    signed_in = await door.sign_in(request, key)
    off = {"enabled": False}
    source_id = signed_in.principal.removeprefix("source:")
    source = {
        "id": source_id,
        "name": source_id,
        "writeKey": key,
        "enabled": True,
        "workspaceId": signed_in.workspace,
        "config": {"statsCollection": {"errors": off, "metrics": off}},
        "destinations": [],
        "dataplanes": {},
    }
    return Reply(200, orjson.dumps({"source": source}), _JSON)


def _posted(path: str, name: str, operation: str, summary: str) -> EventRoute:
    answer = _collector(name)
    return EventRoute("POST", path, answer, operation, summary, media_types=_MEDIA_TYPES, parameters=_WRITE_KEY)


def _calls(name: str, short: str) -> list[EventRoute]:
    what = "Send a batch of events." if name == "batch" else f"Send one {name} event."
    operation = f"Segment{name.title()}"
    return [_posted(f"/v1/{name}", name, operation, what), _posted(f"/v1/{short}", name, f"{operation}Short", what)]


def _image(name: str) -> EventRoute:
    data = "The event as base64 JSON; without it the parameters are the event's fields, dots for nesting."
    what = f"Send one {name} event from an image tag."
    return EventRoute(
        "GET",
        f"/pixel/v1/{name}",
        _pixel(name),
        f"RudderPixel{name.title()}",
        what,
        gives="image/gif",
        parameters={**_WRITE_KEY, "data": data},
    )


ROUTES: Sequence[EventRoute] = (
    *(route for name, short in TYPES.items() for route in _calls(name, short)),
    _posted("/v1/import", "import", "SegmentImport", "Send a batch of past events, whose times stay as they are."),
    _posted("/beacon/v1/batch", "batch", "RudderBeacon", "Send a batch of events as a page closes."),
    _image("track"),
    _image("page"),
    EventRoute(
        "GET",
        "/v1/projects/{write_key}/settings",
        _settings,
        "SegmentSettings",
        "Return what Segment's browser SDK loads first.",
    ),
    EventRoute(
        "GET",
        "/sourceConfig",
        _source_config,
        "RudderSourceConfig",
        "Return what RudderStack's browser SDK loads first.",
        parameters=_WRITE_KEY,
    ),
)
