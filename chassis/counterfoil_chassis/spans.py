"""Spans of the hot paths: what the SDK's cost is a third of a request there, kept and encoded in a fifth of its time.

They are spans like any other: current in their block, in the caller's trace, sampled with it, exported with the rest.
What they cannot do is what a request served in microseconds does not need: events, links, more than plain attributes.
"""

from __future__ import annotations

import random
import re
import struct
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SCOPE = InstrumentationScope("counterfoil")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_UNSET = Status()
_NOWHERE = Context()
_propagator = TraceContextTextMapPropagator()

# The fields of a span on the wire: each number with its type, then the length of what has one; protobuf's encoding.
_TRACE_ID, _SPAN_ID, _PARENT_ID, _START, _END = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x39", b"\x41"
_STATUS, _FLAGS, _SPANS = b"\x7a", b"\x85\x01", b"\x12"
_LOW = (1 << 64) - 1
_TIMES = struct.Struct("<cQcQ2sI")


class _Place(NamedTuple):
    """Where a span stands, its ids in hexadecimal: few are ever asked for the SDK's form of it, which costs more."""

    trace_id: str
    span_id: str
    sampled: bool

    def context(self, *, is_remote: bool) -> SpanContext:
        flags = _SAMPLED if self.sampled else _NOT_SAMPLED
        return SpanContext(int(self.trace_id, 16), int(self.span_id, 16), is_remote, flags)


class Provider(TracerProvider):
    """The SDK's provider, which hot spans ask whether to be kept."""

    def __init__(self, *, ratio: float, **options: Any) -> None:
        super().__init__(**options)
        self.bound = round(ratio * 2**64)
        """A new trace is kept when the lower half of its id is below, as TraceIdRatioBased has it."""

    def ended(self, span: HotSpan) -> None:
        """Hand a span to whatever takes the others."""
        ended: Any = span
        self._active_span_processor.on_end(ended)


class HotSpan(trace.Span):
    """One span, as a block: `with HotSpan("GET /v1/x", traceparent=header) as span`."""

    dropped_attributes = dropped_events = dropped_links = 0
    events = links = ()
    instrumentation_scope = instrumentation_info = SCOPE

    def __init__(
        self,
        name: str,
        *,
        traceparent: str,
        kind: SpanKind = SpanKind.SERVER,
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        """Continue the trace of a W3C `traceparent`; an empty or malformed one begins a trace."""
        provider = trace.get_tracer_provider()
        self._provider = provider if isinstance(provider, Provider) else None
        self._parent = self._place = parent = _parsed(traceparent)
        self.name = name
        self.kind = kind
        self.attributes: dict[str, Any] = dict(attributes) if attributes else {}
        self.status = _UNSET
        self.end_time: int | None = None
        self._context: SpanContext | None = None
        self._kept = False
        if self._provider is None:
            return
        if parent is not None:
            trace_id, sampled = parent.trace_id, parent.sampled
        else:
            number = random.getrandbits(128) or 1
            trace_id, sampled = f"{number:032x}", number & _LOW < self._provider.bound
        self._place = _Place(trace_id, f"{random.getrandbits(64) or 1:016x}", sampled)
        self._kept = sampled
        self.start_time = time.time_ns()

    @property
    def context(self) -> SpanContext:
        """Return its ids, invalid ones when there is no trace."""
        if self._context is None:
            place = self._place
            is_remote = place is self._parent
            self._context = trace.INVALID_SPAN_CONTEXT if place is None else place.context(is_remote=is_remote)
        return self._context

    @property
    def parent(self) -> SpanContext | None:
        """Return the ids of the span that it continues."""
        return None if self._parent is None else self._parent.context(is_remote=True)

    @property
    def resource(self) -> Resource:
        """Return whose span it is."""
        return self._provider.resource if self._provider is not None else Resource.get_empty()

    @property
    def traceparent(self) -> str:
        """Return it as a W3C `traceparent`, or "" when there is no trace."""
        place = self._place
        return "" if place is None else f"00-{place.trace_id}-{place.span_id}-{'01' if place.sampled else '00'}"

    def __enter__(self) -> Self:
        """Make it the current span."""
        self._token = attach(trace.set_span_in_context(self, _NOWHERE))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        """End it; an error that leaves the block is its status."""
        detach(self._token)
        if isinstance(error, Exception):
            self.status = Status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
        self.end()

    def end(self, end_time: int | None = None) -> None:
        """End it, once."""
        if self._kept and self.end_time is None and self._provider is not None:
            self.end_time = end_time or time.time_ns()
            self._provider.ended(self)

    def get_span_context(self) -> SpanContext:
        """Return its ids."""
        return self.context

    def is_recording(self) -> bool:
        """Say whether attributes are of use."""
        return self._kept and self.end_time is None

    def set_attribute(self, key: str, value: Any) -> None:
        """Note a string or a whole number."""
        self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Note several."""
        self.attributes.update(attributes)

    def update_name(self, name: str) -> None:
        """Name it anew."""
        self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went."""
        self.status = status if isinstance(status, Status) else Status(status, description)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Drop it: events need the SDK's spans."""

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Keep it as the status."""
        self.set_status(Status(StatusCode.ERROR, f"{type(exception).__name__}: {exception}"))

    def encoded(self) -> bytes:
        """Return it as OTLP has it: put together by hand, since most of its bytes are those of the span before."""
        place, parent = self._place, self._parent
        assert place is not None  # noqa: S101 - it is kept
        flags: int = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
        if parent is not None:
            flags |= trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
        parts = [
            _described(self.name, self.kind, tuple(self.attributes.items())),
            _TRACE_ID,
            bytes.fromhex(place.trace_id),
            _SPAN_ID,
            bytes.fromhex(place.span_id),
            _TIMES.pack(_START, self.start_time, _END, self.end_time or self.start_time, _FLAGS, flags),
            _status(self.status.status_code, self.status.description or ""),
        ]
        if parent is not None:
            parts += (_PARENT_ID, bytes.fromhex(parent.span_id))
        return b"".join(parts)


class Exporter(OTLPSpanExporter):
    """The SDK's exporter, which lets hot spans write themselves."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        mixed: Sequence[Any] = data
        hot: list[HotSpan] = [span for span in mixed if isinstance(span, HotSpan)]
        if not hot:
            return encode_spans(data)
        request = encode_spans([span for span in mixed if not isinstance(span, HotSpan)])
        group = request.resource_spans.add()
        _write_attributes(group.resource.attributes, hot[0].resource.attributes)
        scope = group.scope_spans.add()
        scope.scope.name = SCOPE.name
        scope.MergeFromString(b"".join(_field(_SPANS, span.encoded()) for span in hot))
        return request


def _field(tag: bytes, value: bytes) -> bytes:
    """Return a field that has a length before its bytes."""
    return b"".join((tag, _length(len(value)), value))


@lru_cache(maxsize=1_000)
def _length(number: int) -> bytes:
    """Return a number as a varint."""
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*low, number))


@lru_cache(maxsize=1_000)
def _status(code: StatusCode, description: str) -> bytes:
    status = trace_pb2.Status()
    if code is not StatusCode.UNSET:
        status.code = code.value
        status.message = description
    return _field(_STATUS, status.SerializeToString())


@lru_cache(maxsize=1_000)
def _described(name: str, kind: SpanKind, attributes: tuple[tuple[str, Any], ...]) -> bytes:
    """Return what most spans of a route have in common with others, encoded."""
    span = trace_pb2.Span(name=name)
    span.kind = kind.value + 1  # type: ignore[assignment]  # OTLP counts from UNSPECIFIED
    _write_attributes(span.attributes, dict(attributes))
    return span.SerializeToString()


def _write_attributes(written: Any, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        pair: KeyValue = written.add(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = str(value)


def _parsed(traceparent: str) -> _Place | None:
    if not traceparent:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is not None:
        trace_id, span_id, flags = found.groups()
        return _Place(trace_id, span_id, int(flags, 16) & 1 == 1) if _is_valid(trace_id, span_id) else None
    # It is malformed, or of a later version.
    context = trace.get_current_span(_propagator.extract({"traceparent": traceparent}, context=Context()))
    parent = context.get_span_context()
    if not parent.is_valid:
        return None
    return _Place(f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.trace_flags.sampled)


def _is_valid(trace_id: str, span_id: str) -> bool:
    return trace_id != _NO_TRACE and span_id != _NO_SPAN
