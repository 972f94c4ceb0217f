"""The door for events: one bare ASGI application in front of everything else, since every event passes it.

Event protocols are modules of the entry point group `counterfoil.routes`; each offers `ROUTES`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, cast

from counterfoil_chassis.spans import HotSpan
from counterfoil_chassis.telemetry import ATTRIBUTE_PRINCIPAL, ATTRIBUTE_WORKSPACE

from counterfoil_gateway import write_keys
from counterfoil_gateway.access import API_KEY
from counterfoil_gateway.addresses import client_of
from counterfoil_gateway.append import Appender
from counterfoil_gateway.asgi import App, CallerLeftError, Fields, Receive, Reply, Scope, Send, for_any_page
from counterfoil_gateway.bodies import read_body
from counterfoil_gateway.credentials import Keyring, SignedIn, unauthenticated
from counterfoil_gateway.metrics import LEFT, REQUESTS
from counterfoil_gateway.problems import Problem, internal
from counterfoil_gateway.quotas import Bound
from counterfoil_gateway.serve import refusal

GROUP = "counterfoil.routes"
log = logging.getLogger(__name__)
SEND_A_WRITE_KEY = (
    "send a write key: as Basic user, X-Write-Key, ?writeKey or writeKey in the body; POST /v1/sources makes one"
)
_PREFLIGHT: Fields = [
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, content-encoding, anonymousid, sentat, x-write-key",
    ),
    (b"access-control-max-age", b"86400"),
]


@dataclass(slots=True)
class EventRequest:
    """One request to an event route."""

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]
    path_key: str
    """The write key in the path, where the route has one."""
    span: HotSpan

    @property
    def query(self) -> bytes:
        """Return the raw query string."""
        return cast("bytes", self.scope["query_string"])


@dataclass(frozen=True)
class EventRoute:
    """One verb and path of an event protocol, with what the API document says of it."""

    verb: str
    path: str
    """May hold `{write_key}`."""
    answer: Callable[[EventDoor, EventRequest], Awaitable[Reply]]
    """Signs in and sends through the door."""
    operation: str
    summary: str
    media_types: tuple[str, ...] = ()
    """What the body may be; empty = there is none."""
    gives: str = "application/json"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Query parameters with their meaning."""

    @cached_property
    def name(self) -> str:
        """The name of its requests' spans and metrics."""
        return f"{self.verb} {self.path}"


class RouteModule(Protocol):
    """What a module of the entry point group offers."""

    ROUTES: Sequence[EventRoute]


def load_routes() -> list[EventRoute]:
    """Return the routes of every installed protocol, in the order of the protocols' names."""
    entries = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name)
    return [route for entry in entries for route in cast("RouteModule", entry.load()).ROUTES]


_ByVerb: TypeAlias = dict[str, EventRoute]


class EventDoor:
    """Serves event routes and passes every other request on."""

    def __init__(self, routes: Sequence[EventRoute], keys: Keyring, appender: Appender, *, requests: Bound) -> None:
        """Serve these routes; raise ValueError when two take one verb and path."""
        self.appender = appender
        self._keys = keys
        self._requests = requests
        self._exact: dict[bytes, _ByVerb] = {}
        self._patterns: list[tuple[re.Pattern[bytes], _ByVerb]] = []
        self.then: App = _nothing
        for route in routes:
            self._add(route)

    def _add(self, route: EventRoute) -> None:
        if "{write_key}" in route.path:
            pattern = re.escape(route.path.encode()).replace(rb"\{write_key\}", rb"([^/]+)")
            self._patterns.append((re.compile(pattern), {route.verb: route}))
        elif self._exact.setdefault(route.path.encode(), {}).setdefault(route.verb, route) is not route:
            message = f"{route.verb} {route.path} is taken"
            raise ValueError(message)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an event request, or pass it on."""
        if scope["type"] != "http":
            await self.then(scope, receive, send)
            return
        by_verb, path_key = self._find(scope)
        verb: str = scope["method"]
        route = by_verb.get(verb)
        if route is not None:
            await self._serve(route, scope, receive, send, path_key=path_key)
        elif by_verb and verb == "OPTIONS":
            headers = dict(scope["headers"])
            await Reply(204, fields=[*_PREFLIGHT, *for_any_page(headers)]).to(send)
        else:
            await self.then(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[_ByVerb, str]:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        by_verb = self._exact.get(path) or self._exact.get(path.rstrip(b"/"))
        if by_verb is not None:
            return by_verb, ""
        for pattern, found in self._patterns:
            if match := pattern.fullmatch(path):
                return found, match[1].decode("latin-1")
        return {}, ""

    async def _serve(self, route: EventRoute, scope: Scope, receive: Receive, send: Send, *, path_key: str) -> None:
        """Answer within a span of our own: one per request, in the caller's trace when it names one."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        traceparent = headers.get(b"traceparent", b"").decode("latin-1")
        attributes = {"http.request.method": route.verb, "http.route": route.path}
        with (
            REQUESTS.of(route.name).counted(LEFT) as counted,
            HotSpan(route.name, traceparent=traceparent, attributes=attributes) as span,
        ):
            try:
                reply = await route.answer(self, EventRequest(scope, receive, headers, path_key, span))
            except Problem as problem:
                reply = refusal(problem)
            except CallerLeftError:
                return
            except Exception:
                log.exception("event request failed", extra={"route": route.path})
                reply = refusal(internal())
            span.set_attribute("http.response.status_code", reply.status)
            counted.outcome = str(reply.status)
            await reply.to(send, also=for_any_page(headers))

    async def body_and_source(self, request: EventRequest) -> tuple[bytes, SignedIn]:
        """Return the body as it came and who sent it; raise Problem.

        The body is parsed only when neither header nor query carries a write key.
        """
        key = write_keys.outside(request.headers, request.query)
        if key:
            signed_in = await self.sign_in(request, key)
            return await read_body(request.receive, request.headers), signed_in
        body = await read_body(request.receive, request.headers)
        return body, await self.sign_in(request, write_keys.inside(body))

    async def sign_in(self, request: EventRequest, key: str) -> SignedIn:
        """Return the source that holds a write key; raise Problem 401, or 429 so that its SDK comes again."""
        if not key:
            raise unauthenticated(SEND_A_WRITE_KEY, "CREDENTIAL_MISSING")
        if key.startswith(API_KEY):
            text = "this is an API key, and event routes take write keys only; POST /v1/sources makes one"
            raise unauthenticated(text, "CREDENTIAL_WRONG_KIND")
        signed_in = await self._keys.sign_in(key, address=client_of(request.scope))
        self._requests.take(signed_in)
        request.span.set_attributes(
            {ATTRIBUTE_WORKSPACE: signed_in.workspace, ATTRIBUTE_PRINCIPAL: signed_in.principal}
        )
        return signed_in


async def _nothing(_scope: Scope, _receive: Receive, _send: Any) -> None:
    raise RuntimeError("nothing stands behind the event door")
