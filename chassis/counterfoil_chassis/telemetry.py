"""Tracing: one trace per request across services; the names of our own spans and attributes, and nothing else's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from counterfoil_chassis.metrics import SPANS_DROPPED
from counterfoil_chassis.spans import Exporter, HotSpan, Provider

SPAN_OUTBOX_DELIVER = "outbox deliver"
SPAN_LOG_CONSUME = "log consume"
ATTRIBUTE_WORKSPACE = "counterfoil.workspace"
ATTRIBUTE_PRINCIPAL = "counterfoil.principal"
ATTRIBUTE_REASON = "counterfoil.reason"
ATTRIBUTE_TOPIC = "counterfoil.topic"
ATTRIBUTE_ITEMS = "counterfoil.items"

MOST_WAITING = 2_048
"""Spans that wait for the collector; one more takes the place of the oldest."""
_EXPORT_SECONDS = 5
_FLUSH_SECONDS = 3
_logger = logging.getLogger(__name__)
_traceparent = TraceContextTextMapPropagator()


class _QuietExporter(SpanExporter):
    """Reports a collector's loss and return once each; the exporter's own logger would repeat itself."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans, or drop them."""
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost:
            SPANS_DROPPED.labels("undelivered").inc(len(spans))
        if lost and not self._lost:
            _logger.warning("traces are not delivered", extra={"endpoint": self._endpoint})
        if self._lost and not lost:
            _logger.info("traces are delivered again", extra={"endpoint": self._endpoint})
        self._lost = lost
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: spans are sent as they come."""
        return True


class _Waiting(BatchSpanProcessor):
    """The SDK's processor, which tells what it drops in its own log alone."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, in the oldest one's place when there is no room."""
        if len(self._batch_processor._queue) >= MOST_WAITING:  # noqa: SLF001 - nothing public tells
            SPANS_DROPPED.labels("full").inc()
        ended: Any = span
        if isinstance(ended, HotSpan):
            self._batch_processor.emit(span)  # only those that are sampled come here
        else:
            super().on_end(span)


def configure(service_name: str, endpoint: str, *, ratio: float = 1.0) -> None:
    """Set up tracing for this process, once; later calls change nothing. An empty endpoint exports nowhere.

    Call it after a fork, never before: exporting starts a thread and a gRPC channel. `ratio` is the share of new
    traces that are kept; a trace that came in keeps its own decision.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    provider = Provider(
        ratio=ratio,
        resource=Resource.create({SERVICE_NAME: service_name}),
        sampler=ParentBased(TraceIdRatioBased(ratio)),
        shutdown_on_exit=False,
    )
    if endpoint:
        for noisy in ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        exporter = Exporter(endpoint=endpoint, insecure=True, timeout=_EXPORT_SECONDS)
        quiet = _QuietExporter(exporter, endpoint)
        waiting = _Waiting(quiet, max_queue_size=MOST_WAITING, schedule_delay_millis=1000)
        provider.add_span_processor(waiting)
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Send what is waiting and stop exporting, within three seconds whatever the collector does."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        # The exporter's own timeouts do not cover its waits; a daemon thread does not hold the process.
        thread = threading.Thread(target=provider.shutdown, daemon=True)
        thread.start()
        thread.join(_FLUSH_SECONDS)


@cache  # asked for once per request, and made anew each time otherwise; the proxy follows a later configure()
def tracer() -> trace.Tracer:
    """Return the tracer for spans of our own."""
    return trace.get_tracer("counterfoil")


def current_trace_id() -> str:
    """Return the running trace's id, 32 hex digits, or "" when there is none."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def current_traceparent() -> str:
    """Return the running span as a W3C `traceparent`, or "" when there is none."""
    span = trace.get_current_span()
    if isinstance(span, HotSpan):
        return span.traceparent
    trace_id, span_id, _, flags, *_, is_valid = span.get_span_context()
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}" if is_valid else ""


def context_of(traceparent: str) -> Context:
    """Return the context that a stored `traceparent` names; an empty or malformed one names none."""
    return _traceparent.extract({"traceparent": traceparent}, context=Context())


def links_to(traceparents: Sequence[str]) -> list[trace.Link]:
    """Return a link to each valid stored `traceparent`, for work that serves many requests at once."""
    contexts = (trace.get_current_span(context_of(each)).get_span_context() for each in traceparents)
    return [trace.Link(context) for context in contexts if context.is_valid]


@contextmanager
def continued(name: str, traceparent: str) -> Iterator[trace.Span]:
    """Run a block in a span of our own that continues the trace of a stored `traceparent`."""
    with tracer().start_as_current_span(name, context=context_of(traceparent)) as span:
        yield span
