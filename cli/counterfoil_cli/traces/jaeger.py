"""Jaeger's query API: what its UI and its users' scripts ask, in its JSON.

The internal HTTP API of jaeger-query: https://www.jaegertracing.io/docs/latest/apis/#http-json-internal
"""

import logging
import re
import time
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from counterfoil_cli.traces.spans import Search, Trace
from counterfoil_cli.traces.store import SpanStore

DEFAULT_LIMIT = 20
MAX_LIMIT = 1500
MAX_ANSWER_SPANS = 50_000
TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
_UNITS_US = {"ns": 0.001, "us": 1, "µs": 1, "μs": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|μs|ms|s|m|h)")
_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


class BadQueryError(ValueError):
    """A parameter cannot be read; the text names it."""


class JaegerApi:
    """Answers from the store; every read runs in a thread of its own."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """Return the paths of the API."""
        return [
            Route("/api/services", self.services),
            Route("/api/services/{service:path}/operations", self.service_operations),
            Route("/api/operations", self.operations),
            Route("/api/traces", self.traces),
            Route("/api/traces/{trace_id}", self.trace),
            Route("/api/dependencies", self.dependencies),
        ]

    async def services(self, _: Request) -> Response:
        """List the services' names."""
        names = await run_in_threadpool(self._store.services)
        return answer(names, total=len(names))

    async def service_operations(self, request: Request) -> Response:
        """List the names of one service's operations."""
        found = await run_in_threadpool(self._store.operations, request.path_params["service"])
        names = sorted({name for name, _ in found})
        return answer(names, total=len(names))

    async def operations(self, request: Request) -> Response:
        """List one service's operations with their span kinds."""
        service = request.query_params.get("service", "")
        if not service:
            return refusal(400, "parameter 'service' is required")
        kind = request.query_params.get("spanKind", "")
        found = await run_in_threadpool(lambda: self._store.operations(service, kind=kind))
        return answer([{"name": name, "spanKind": kind} for name, kind in found], total=len(found))

    async def traces(self, request: Request) -> Response:
        """Find traces, newest first, or return those named by `traceID`."""
        try:
            named = [normal_id(text) for text in request.query_params.getlist("traceID")]
            search = read_search(request.query_params, now_us=time.time_ns() // 1000)
        except BadQueryError as error:
            return refusal(400, str(error))
        ids = named[:MAX_LIMIT] if named else await run_in_threadpool(self._store.find, search)
        return answer([as_json(trace) for trace in await run_in_threadpool(self._collect, ids)])

    async def trace(self, request: Request) -> Response:
        """Return one trace."""
        try:
            trace_id = normal_id(request.path_params["trace_id"])
        except BadQueryError as error:
            return refusal(400, str(error))
        trace = await run_in_threadpool(self._store.trace, trace_id)
        return refusal(404, "trace not found") if trace is None else answer([as_json(trace)])

    async def dependencies(self, request: Request) -> Response:
        """Count the calls between services over `lookback` ms up to `endTs` (ms)."""
        try:
            end = _whole(request.query_params, "endTs", default=time.time_ns() // 1_000_000)
            lookback = _whole(request.query_params, "lookback", default=_DAY_MS)
        except BadQueryError as error:
            return refusal(400, str(error))
        counted = await run_in_threadpool(
            lambda: self._store.dependencies(start_us=(end - lookback) * 1000, end_us=end * 1000)
        )
        return answer([{"parent": parent, "child": child, "callCount": calls} for parent, child, calls in counted])

    def _collect(self, ids: Sequence[str]) -> list[Trace]:
        found: list[Trace] = []
        spans = 0
        for trace_id in ids:
            trace = self._store.trace(trace_id)
            if trace is not None:
                found.append(trace)
                spans += len(trace.spans)
            if spans > MAX_ANSWER_SPANS:
                break
        return found


def answer(data: Any, *, total: int = 0) -> Response:
    """Wrap what was found as Jaeger does."""
    return _json({"data": data, "total": total, "limit": 0, "offset": 0, "errors": None}, 200)


def refusal(status: int, message: str) -> Response:
    """Wrap an error as Jaeger does."""
    errors = [{"code": status, "msg": message}]
    return _json({"data": None, "total": 0, "limit": 0, "offset": 0, "errors": errors}, status)


async def store_failed(request: Request, error: Exception) -> Response:
    """Answer a request whose read failed, e.g. on a full or missing disk; the sink goes on."""
    _log.error("traces_not_read", extra={"path": request.url.path}, exc_info=error)
    return refusal(503, "the traces cannot be read now")


def as_json(trace: Trace) -> dict[str, Any]:
    """Return a trace in Jaeger's shape."""
    return {
        "traceID": trace.trace_id,
        "spans": trace.spans,
        "processes": trace.processes,
        "warnings": trace.warnings or None,
    }


def normal_id(text: str) -> str:
    """Return a trace id as 32 lower-case hex digits; Jaeger's users leave leading zeros away."""
    if not TRACE_ID.fullmatch(text):
        raise BadQueryError("a trace id is 1 to 32 hex digits")
    return text.lower().rjust(32, "0")


def read_search(query: QueryParams, *, now_us: int) -> Search:
    """Read the parameters of `GET /api/traces`; raise BadQueryError."""
    end = _whole(query, "end", default=2**62)
    lookback = query.get("lookback", "")
    start = _whole(query, "start", default=now_us - duration_us(lookback) if lookback not in ("", "custom") else 0)
    limit = _whole(query, "limit", default=DEFAULT_LIMIT)
    if limit < 1:
        raise BadQueryError("parameter 'limit' is at least 1")
    return Search(
        service=query.get("service", ""),
        operation=query.get("operation", ""),
        tags=_tags(query),
        start_us=start,
        end_us=end,
        min_duration_us=duration_us(query.get("minDuration", "")),
        max_duration_us=duration_us(query.get("maxDuration", "")) or 2**62,
        limit=min(limit, MAX_LIMIT),
    )


def duration_us(text: str) -> int:
    """Read a duration as Go writes it, e.g. `1.2s`, `100ms`, `1h30m`, in microseconds; empty = 0."""
    text = text.strip()
    if not text:
        return 0
    if not _DURATION.fullmatch(text) or len(text) > 40:
        raise BadQueryError(f"{text[:40]!r} is not a duration; write 100ms, 1.2s, 2h")
    total = sum(float(number) * _UNITS_US[unit] for number, unit in _DURATION_PART.findall(text))
    return min(round(total), 2**62)


def _whole(query: QueryParams, name: str, *, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadQueryError(f"parameter {name!r} is not a whole number")
    return int(text)


def _tags(query: QueryParams) -> tuple[tuple[str, str], ...]:
    """Read `tags={"key":"value"}` and `tag=key:value`."""
    wanted: list[tuple[str, str]] = []
    for text in query.getlist("tags"):
        try:
            read = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise BadQueryError("parameter 'tags' is not a JSON object") from error
        if not isinstance(read, dict) or not all(isinstance(value, str) for value in read.values()):
            raise BadQueryError("parameter 'tags' is a JSON object whose values are text")
        wanted += read.items()
    for text in query.getlist("tag"):
        key, colon, value = text.partition(":")
        if not colon or not key:
            raise BadQueryError("parameter 'tag' is key:value")
        wanted.append((key, value))
    return tuple(wanted)


def _json(body: Any, status: int) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
