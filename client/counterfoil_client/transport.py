"""How calls travel: JSON over HTTP, retried where that is safe, refused with the server's own words.

A call is sent again, with growing pauses or as the server says, when it cannot have done anything twice: reads, and
writes that carry an `Idempotency-Key`. The client gives every write that takes one a key of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from counterfoil_client.problem import Problem

LATER = frozenset((429, 502, 503, 504))
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
CHUNK = 1 << 16

Json = Any


@dataclass(frozen=True)
class Call:
    """One request, not yet sent. `path` fills the placeholders of `route`."""

    verb: str
    route: str
    path: Mapping[str, object] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Json | bytes | str | BinaryIO | Iterable[bytes] = None
    media_type: str = "application/json"
    keyed: bool = False
    key: str | None = None
    timeout: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the call can be sent again without doing anything twice."""
        replayed = self.media_type == "application/json" or isinstance(self.body, (bytes, str))
        return (self.verb == "GET" or self.keyed) and replayed


@dataclass(frozen=True)
class Options:
    """Where to, as whom, how long, how often."""

    url: str
    api_key: str
    timeout: float
    attempts: int


def given(**values: object) -> dict[str, object]:
    """Return the values that were given."""
    return {name: value for name, value in values.items() if value is not None}


class Transport:
    """Sends calls and waits for their answers."""

    def __init__(self, options: Options, client: httpx.Client) -> None:
        self._options = options
        self._client = client

    def send(self, call: Call) -> Json:
        """Return the JSON of an answer; raise Problem."""
        return self._answer(call).json()

    def read(self, call: Call) -> bytes:
        """Return the bytes of an answer; raise Problem."""
        return self._answer(call).content

    def pages(self, call: Call, items: str) -> Iterator[Json]:
        """Yield the things of every page, asking for a page when it is needed."""
        while True:
            page = self.send(call)
            yield from page.get(items, ())
            if not page.get("next_page_token"):
                return
            call = replace(call, query={**call.query, "page_token": page["next_page_token"]})

    def lines(self, call: Call) -> Iterator[Json]:
        """Yield what a stream says, one JSON value per line, until the server or the caller ends it."""
        request = self._client.build_request(**_request(_with_key(call), self._options, streamed=True))
        answer = self._client.send(request, stream=True)
        try:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise Problem.of(answer)
            for line in answer.iter_lines():
                if line.strip():
                    yield json.loads(line)
        finally:
            answer.close()

    def _answer(self, call: Call) -> httpx.Response:
        call = _with_key(call)
        for attempt in range(1, self._options.attempts + 1):
            last = attempt == self._options.attempts or not call.repeatable
            try:
                answer = self._client.request(**_request(call, self._options))
            except httpx.TransportError:
                if last:
                    raise
                time.sleep(_pause(attempt, None))
                continue
            if answer.is_success:
                return answer
            if last or answer.status_code not in LATER:
                raise Problem.of(answer)
            time.sleep(_pause(attempt, answer))
        raise AssertionError("at least one attempt is made")


class AsyncTransport:
    """The same for asyncio."""

    def __init__(self, options: Options, client: httpx.AsyncClient) -> None:
        self._options = options
        self._client = client

    async def send(self, call: Call) -> Json:
        """Return the JSON of an answer; raise Problem."""
        return (await self._answer(call)).json()

    async def read(self, call: Call) -> bytes:
        """Return the bytes of an answer; raise Problem."""
        return (await self._answer(call)).content

    async def pages(self, call: Call, items: str) -> AsyncIterator[Json]:
        """Yield the things of every page, asking for a page when it is needed."""
        while True:
            page = await self.send(call)
            for item in page.get(items, ()):
                yield item
            if not page.get("next_page_token"):
                return
            call = replace(call, query={**call.query, "page_token": page["next_page_token"]})

    async def lines(self, call: Call) -> AsyncIterator[Json]:
        """Yield what a stream says, one JSON value per line, until the server or the caller ends it."""
        request = self._client.build_request(**_request(_with_key(call), self._options, streamed=True))
        answer = await self._client.send(request, stream=True)
        try:
            if answer.status_code != httpx.codes.OK:
                await answer.aread()
                raise Problem.of(answer)
            async for line in answer.aiter_lines():
                if line.strip():
                    yield json.loads(line)
        finally:
            await answer.aclose()

    async def _answer(self, call: Call) -> httpx.Response:
        call = _with_key(call)
        for attempt in range(1, self._options.attempts + 1):
            last = attempt == self._options.attempts or not call.repeatable
            try:
                answer = await self._client.request(**_request(call, self._options, chunks=_asynchronous))
            except httpx.TransportError:
                if last:
                    raise
                await asyncio.sleep(_pause(attempt, None))
                continue
            if answer.is_success:
                return answer
            if last or answer.status_code not in LATER:
                raise Problem.of(answer)
            await asyncio.sleep(_pause(attempt, answer))
        raise AssertionError("at least one attempt is made")


def _with_key(call: Call) -> Call:
    return replace(call, key=uuid.uuid4().hex) if call.keyed and call.key is None else call


def _request(call: Call, options: Options, *, streamed: bool = False, chunks: Any = None) -> dict[str, Any]:
    """Return what httpx needs to send a call."""
    seconds = call.timeout or options.timeout
    headers = {"x-api-key": options.api_key}
    if not streamed:
        headers["request-timeout"] = f"{min(seconds, 60):g}"  # the server gives up when the caller does
    if call.key is not None:
        headers["idempotency-key"] = call.key
    if streamed:
        headers["accept"] = "application/x-ndjson"
    content: Any = None
    if call.body is not None:
        headers["content-type"] = call.media_type
        content = _content(call, chunks or _synchronous)
    return {
        "method": call.verb,
        "url": options.url + call.route.format_map({name: quote(str(of), safe="") for name, of in call.path.items()}),
        "params": {name: _text(value) for name, value in call.query.items()},
        "headers": headers,
        "content": content,
        "timeout": httpx.Timeout(None if streamed and call.timeout is None else seconds + 1, connect=min(seconds, 10)),
    }


def _content(call: Call, chunks: Any) -> Any:
    if call.media_type == "application/json":
        return json.dumps(call.body, separators=(",", ":"), ensure_ascii=False).encode()
    if isinstance(call.body, str):
        return call.body.encode()
    return call.body if isinstance(call.body, bytes) else chunks(call.body)


def _synchronous(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    if not hasattr(source, "read"):
        yield from source
        return
    while chunk := source.read(CHUNK):
        yield chunk


async def _asynchronous(source: BinaryIO | Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in _synchronous(source):
        yield chunk
        await asyncio.sleep(0)


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_text(each) for each in value] if isinstance(value, (list, tuple)) else value


def _pause(attempt: int, answer: httpx.Response | None) -> float:
    """Return the seconds to wait: what the server says, else twice as long each time, shortened by up to half."""
    asked = answer.headers.get("retry-after", "") if answer is not None else ""
    if asked.isdigit():
        return min(float(asked), LONGEST_PAUSE)
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
