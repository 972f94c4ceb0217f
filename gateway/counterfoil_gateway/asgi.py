"""The types of an ASGI application, and the few things every answer of ours shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from counterfoil_gateway.metrics import COUNTED, LEFT, OTHER, REQUESTS

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Fields: TypeAlias = list[tuple[bytes, bytes]]

SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer. Whatever shows pages sets a policy of its own."""
_ANY_PAGE: Fields = [
    *SECURITY,
    (b"access-control-expose-headers", b"Retry-After"),  # else a browser's SDK cannot see how long to wait
    (b"vary", b"Origin"),
]


def for_any_page(headers: Mapping[bytes, bytes]) -> Fields:
    """Return the fields of an answer that the page of a request with these headers may read, whichever it is.

    A write key is public by nature, and there is no cookie that a page could borrow.
    """
    origin = headers.get(b"origin")
    if not origin:
        return _ANY_PAGE
    return [*_ANY_PAGE, (b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]


class CallerLeftError(Exception):
    """The caller closed the connection before its request was whole; there is nobody to answer."""


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    content: bytes = b""
    fields: Fields = field(default_factory=list)

    async def to(self, send: Send, *, also: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it, with more header fields."""
        fields = [*self.fields, *also]
        if self.status not in (204, 304):
            fields.append((b"content-length", b"%d" % len(self.content)))
        await send({"type": "http.response.start", "status": self.status, "headers": fields})
        await send({"type": "http.response.body", "body": self.content})


def secured(app: App) -> App:
    """Put the security header fields on every answer of an application, unless it set its own; count its requests."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return

        async def with_fields(event: Event) -> None:
            if event["type"] == "http.response.start":
                present = {name.lower() for name, _ in event.get("headers", ())}
                event["headers"] = [*event.get("headers", ()), *(f for f in SECURITY if f[0] not in present)]
                counted.outcome = str(event["status"])
            await send(event)

        with REQUESTS.of(OTHER).counted(LEFT) as counted:
            scope[COUNTED] = counted
            await app(scope, receive, with_fields)

    return serve
