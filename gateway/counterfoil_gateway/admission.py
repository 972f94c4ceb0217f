"""What the gateway takes in at once, at both doors: so many requests, bytes of bodies, and streams; no more.

What is over a bound is refused before anything is read, so that a flood costs neither memory nor those who are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from counterfoil_chassis.shedding import Load, OverloadedError, overloaded

from counterfoil_gateway.asgi import App, Event, Receive, Reply, Scope, Send, for_any_page
from counterfoil_gateway.bodies import MAX_BODY
from counterfoil_gateway.metrics import REFUSALS
from counterfoil_gateway.problems import from_failure

PLACE = "counterfoil.place"
"""Where a request's scope holds its place."""
_PROBES = frozenset({"/healthz", "/readyz"})
_CLOSE = (b"connection", b"close")


class Admission:
    """The bounds and what counts against them. `load.watch` has to run beside."""

    def __init__(self, load: Load, *, most_bytes: int, most_streams: int) -> None:
        """Take the bound on requests and delay, on bytes of bodies that are held, and on streams that go on."""
        self.load = load
        self.bytes = 0
        self.streams = 0
        self.draining = False
        self._most_bytes = most_bytes
        self._most_streams = most_streams

    def place(self, size: int) -> Place:
        """Return the place of a request whose body has so many bytes, to be held while it is worked on."""
        return Place(self, size)

    def takes(self, size: int) -> bool:
        """Say whether so many bytes more may be held; a single body always may."""
        return not self.bytes or self.bytes + size <= self._most_bytes

    def has_stream(self) -> bool:
        """Say whether one more stream may go on."""
        return self.streams < self._most_streams

    def guard(self, app: App) -> App:
        """Return the application with its requests bounded; while draining its answers end their connections."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in _PROBES:
                await app(scope, receive, send)
                return
            place = Place(self, _size_of(scope))
            try:
                with place:
                    scope[PLACE] = place
                    await app(scope, receive, self._closing(send))
            except OverloadedError as error:
                await _refuse(error, scope, send)

        return serve

    def _closing(self, send: Send) -> Send:
        async def sent(event: Event) -> None:
            if self.draining and event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), _CLOSE]
            await send(event)

        return sent


class Place:
    """One request's place. It counts as a request, and as a stream once it turns out to be one."""

    __slots__ = ("_admission", "_is_stream", "_size")

    def __init__(self, admission: Admission, size: int) -> None:
        self._admission = admission
        self._size = size
        self._is_stream = False

    def __enter__(self) -> Self:
        """Take the place; raise OverloadedError when there is none."""
        admission = self._admission
        if not admission.takes(self._size):
            raise overloaded("bytes")
        admission.load.enter()
        admission.bytes += self._size
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_stream:
            self._admission.streams -= 1
        else:
            self._admission.load.leave()
            self._admission.bytes -= self._size

    def streams(self) -> None:
        """Say that this goes on, and holds no body; raise OverloadedError when too many streams do."""
        admission = self._admission
        if not admission.has_stream():
            raise overloaded("streams")
        admission.load.leave()
        admission.bytes -= self._size
        admission.streams += 1
        self._is_stream = True


def _size_of(scope: Scope) -> int:
    """Return the bytes of a request's body, the most there may be when it does not say."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            return min(int(value), MAX_BODY) if value.isdigit() else MAX_BODY
    return MAX_BODY


async def _refuse(error: OverloadedError, scope: Scope, send: Send) -> None:
    problem = from_failure(error)
    REFUSALS.labels(problem.reason).inc()
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    await Reply(problem.status, problem.json(), [*problem.fields(), *for_any_page(headers)]).to(send)
