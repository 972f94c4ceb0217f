"""What the gateway takes in at once, at both doors: so many requests, bytes of bodies, and streams; no more.

What is over a bound is refused before anything is read, so that a flood costs neither memory nor those who are served.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Self

from counterfoil_chassis.shedding import Load, OverloadedError, overloaded

from counterfoil_gateway.asgi import App, Event, Receive, Reply, Scope, Send, for_any_page
from counterfoil_gateway.bodies import MAX_BODY
from counterfoil_gateway.deadlines import LONGEST
from counterfoil_gateway.metrics import REFUSALS
from counterfoil_gateway.problems import C, Problem, from_failure

PLACE = "counterfoil.place"
"""Where a request's scope holds its place."""
LONGEST_REQUEST = LONGEST + 30.0
"""Seconds after which a request that is no stream has no place any more: the longest call, and time for both bodies."""
_PROBES = frozenset({"/healthz", "/readyz"})
_CLOSE = (b"connection", b"close")


class Admission:
    """The bounds and what counts against them. `watch` has to run beside."""

    def __init__(self, load: Load, *, most_bytes: int, most_streams: int) -> None:
        """Take the bound on requests and delay, on bytes of bodies that are held, and on streams that go on."""
        self.load = load
        self.bytes = 0
        self.streams = 0
        self.places: set[Place] = set()
        """Those that are held, but for streams."""
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
            is_answered = False

            async def sent(event: Event) -> None:
                nonlocal is_answered
                if event["type"] == "http.response.start":
                    is_answered = True
                    if self.draining:
                        event["headers"] = [*event.get("headers", ()), _CLOSE]
                await send(event)

            try:
                with place:
                    scope[PLACE] = place
                    await app(scope, receive, sent)
            except OverloadedError as error:
                await _refuse(from_failure(error), scope, send)
            except asyncio.CancelledError:
                if not place.was_left():
                    raise
                if not is_answered:
                    await _refuse(_too_slow(), scope, send)

        return serve

    async def watch(self) -> None:
        """Look for ever after the load, and let go of places whose requests do not get on."""
        await asyncio.gather(self.load.watch(), self._let_go())

    async def _let_go(self) -> None:
        while True:
            await asyncio.sleep(LONGEST_REQUEST / 20)
            latest = time.monotonic() - LONGEST_REQUEST
            for place in tuple(self.places):
                if place.begun < latest:
                    place.leave()


class Place:
    """One request's place. It counts as a request, and as a stream once it turns out to be one."""

    __slots__ = ("_admission", "_is_left", "_is_stream", "_size", "_task", "begun")

    def __init__(self, admission: Admission, size: int) -> None:
        self.begun = time.monotonic()
        self._admission = admission
        self._size = size
        self._task: asyncio.Task[Any] | None = None
        self._is_stream = False
        self._is_left = False

    def __enter__(self) -> Self:
        """Take the place; raise OverloadedError when there is none."""
        admission = self._admission
        if not admission.takes(self._size):
            raise overloaded("bytes")
        admission.load.enter()
        admission.bytes += self._size
        admission.places.add(self)
        self._task = asyncio.current_task()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_stream:
            self._admission.streams -= 1
        else:
            self._give_back()

    def streams(self) -> None:
        """Say that this goes on, and holds no body; raise OverloadedError when too many streams do."""
        admission = self._admission
        if not admission.has_stream():
            raise overloaded("streams")
        self._give_back()
        admission.streams += 1
        self._is_stream = True

    def leave(self) -> None:
        """Cancel what has the place: it waits for a body, or for somebody to take the answer, and neither comes."""
        if self._task is not None and not self._is_left:
            self._is_left = True
            self._task.cancel()

    def was_left(self) -> bool:
        """Say whether this is why the running task was cancelled; it is not any more then."""
        return self._is_left and self._task is not None and self._task.uncancel() == 0

    def _give_back(self) -> None:
        self._admission.load.leave()
        self._admission.bytes -= self._size
        self._admission.places.discard(self)


def _size_of(scope: Scope) -> int:
    """Return the bytes of a request's body, the most there may be when it does not say."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            return min(int(value), MAX_BODY) if value.isdigit() else MAX_BODY
    return MAX_BODY


def _too_slow() -> Problem:
    text = f"the request was not whole, or its answer not taken, within {LONGEST_REQUEST:g} s"
    return Problem(C.DEADLINE_EXCEEDED, text, "REQUEST_TOO_SLOW", http=408)


async def _refuse(problem: Problem, scope: Scope, send: Send) -> None:
    REFUSALS.labels(problem.reason).inc()
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    await Reply(problem.status, problem.json(), [*problem.fields(), *for_any_page(headers)]).to(send)
