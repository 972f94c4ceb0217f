"""OTLP export requests to span rows, and stored spans to Jaeger's JSON as Jaeger's own translation does it.

https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/ and Jaeger's OTLP receiver; OTLP/JSON differs from
the JSON mapping of protobuf in its ids: hex, not base64 (opentelemetry-proto, "JSON Protobuf Encoding").
"""

import base64
import math
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from counterfoil_cli.traces.spans import SpanRow, Tag

MAX_TEXT = 16_384  # characters of one attribute that are shown
NO_SERVICE = "OTLPResourceNoServiceName"  # Jaeger's name for a resource without one
# Tags that the translation makes: their keys are not in the span's bytes.
MADE_TAGS = frozenset(
    {
        "error",
        "event",
        "otel.scope.name",
        "otel.scope.version",
        "otel.status_code",
        "otel.status_description",
        "span.kind",
        "w3c.tracestate",
    }
)
_KINDS = {
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}


class MalformedExportError(ValueError):
    """The bytes are no OTLP export request."""


def decode_protobuf(payload: bytes) -> ExportTraceServiceRequest:
    """Read a request in protobuf; raise MalformedExportError."""
    try:
        return ExportTraceServiceRequest.FromString(payload)
    except DecodeError as error:
        raise MalformedExportError(f"not an ExportTraceServiceRequest: {error}") from error


def decode_json(payload: bytes) -> ExportTraceServiceRequest:
    """Read a request in OTLP/JSON; raise MalformedExportError."""
    try:
        document = orjson.loads(payload)
        for span in _json_spans(document):
            _ids_to_base64(span)
            for link in span.get("links", ()):
                _ids_to_base64(link)
        return json_format.ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError) as error:
        raise MalformedExportError(f"not OTLP/JSON: {error}") from error


def rows(request: ExportTraceServiceRequest) -> tuple[list[SpanRow], int]:
    """Return the request's spans as rows, and how many were left out: ids of a wrong length, or all zero."""
    made: list[SpanRow] = []
    rejected = 0
    for resource_spans in request.resource_spans:
        service = _service(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            origin = _origin(resource_spans.resource, scope_spans.scope)
            for span in scope_spans.spans:
                if _is_valid(span):
                    made.append(_row(span, service=service, origin=origin))
                else:
                    rejected += 1
    return made, rejected


def _is_valid(span: Span) -> bool:
    return len(span.trace_id) == 16 and len(span.span_id) == 8 and any(span.trace_id) and any(span.span_id)


def _row(span: Span, *, service: str, origin: bytes) -> SpanRow:
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return SpanRow(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_span_id if any(span.parent_span_id) else b"",
        service=service,
        operation=span.name,
        kind=_KINDS.get(span.kind, ""),
        start_us=start // 1000,
        duration_us=max(0, end - start) // 1000,
        error=span.status.code == Status.STATUS_CODE_ERROR,
        origin=origin,
        body=span.SerializeToString(),
    )


def _service(resource: Resource) -> str:
    named = (attribute.value for attribute in resource.attributes if attribute.key == "service.name")
    return str(_value(next(named, AnyValue())) or NO_SERVICE)


def _origin(resource: Resource, scope: InstrumentationScope) -> bytes:
    """Return what spans of one resource and scope share, as OTLP bytes."""
    return ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope)]).SerializeToString()


class Origin:
    """Where spans come from: Jaeger's process, and the tags that each span has of its instrumentation scope."""

    def __init__(self, stored: bytes) -> None:
        read = ResourceSpans.FromString(stored)
        scope = read.scope_spans[0].scope
        named = (("otel.scope.name", scope.name), ("otel.scope.version", scope.version))
        attributes = (attribute for attribute in read.resource.attributes if attribute.key != "service.name")
        self.service = _service(read.resource)
        self.tags: list[Tag] = list(_tags(attributes))
        self.scope_tags: list[Tag] = [{"key": key, "type": "string", "value": value} for key, value in named if value]


def span_json(stored: bytes, origin: Origin) -> dict[str, Any]:
    """Return a stored span in Jaeger's shape, without its process id."""
    span = Span.FromString(stored)
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return {
        "traceID": span.trace_id.hex(),
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "references": list(_references(span)),
        "startTime": start // 1000,
        "duration": max(0, end - start) // 1000,
        "tags": [*origin.scope_tags, *_tags(span.attributes), *_span_tags(span)],
        "logs": [_log(event) for event in span.events],
        "warnings": None,
    }


def _references(span: Span) -> Iterator[dict[str, str]]:
    trace_id = span.trace_id.hex()
    if any(span.parent_span_id):
        yield {"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_span_id.hex()}
    for link in span.links:
        yield {"refType": "FOLLOWS_FROM", "traceID": link.trace_id.hex(), "spanID": link.span_id.hex()}


def _span_tags(span: Span) -> Iterator[Tag]:
    if kind := _KINDS.get(span.kind):
        yield {"key": "span.kind", "type": "string", "value": kind}
    if span.status.code == Status.STATUS_CODE_OK:
        yield {"key": "otel.status_code", "type": "string", "value": "OK"}
    elif span.status.code == Status.STATUS_CODE_ERROR:
        yield {"key": "otel.status_code", "type": "string", "value": "ERROR"}
        yield {"key": "error", "type": "bool", "value": True}
    if span.status.message:
        yield {"key": "otel.status_description", "type": "string", "value": span.status.message[:MAX_TEXT]}
    if span.trace_state:
        yield {"key": "w3c.tracestate", "type": "string", "value": span.trace_state[:MAX_TEXT]}


def _log(event: Span.Event) -> dict[str, Any]:
    fields = list(_tags(event.attributes))
    if event.name:
        fields.insert(0, {"key": "event", "type": "string", "value": event.name})
    return {"timestamp": event.time_unix_nano // 1000, "fields": fields}


def _tags(attributes: Iterable[KeyValue]) -> Iterator[Tag]:
    for attribute in attributes:
        which = attribute.value.WhichOneof("value")
        if which == "string_value":
            yield {"key": attribute.key, "type": "string", "value": attribute.value.string_value[:MAX_TEXT]}
        elif which == "int_value":
            yield {"key": attribute.key, "type": "int64", "value": attribute.value.int_value}
        elif which == "bool_value":
            yield {"key": attribute.key, "type": "bool", "value": attribute.value.bool_value}
        elif which == "double_value" and math.isfinite(attribute.value.double_value):
            yield {"key": attribute.key, "type": "float64", "value": attribute.value.double_value}
        elif which == "bytes_value":
            yield {"key": attribute.key, "type": "binary", "value": _value(attribute.value)}
        else:  # lists and maps as JSON text; what JSON cannot say as text
            value = _value(attribute.value)
            text = str(value) if isinstance(value, float) else orjson.dumps(value).decode() if which else ""
            yield {"key": attribute.key, "type": "string", "value": text[:MAX_TEXT]}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {item.key: _value(item.value) for item in value.kvlist_value.values}
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()[:MAX_TEXT]
    return getattr(value, which) if which else None


def _json_spans(document: Any) -> Iterator[dict[str, Any]]:
    for resource_spans in document.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            yield from scope_spans.get("spans", ())


def _ids_to_base64(holder: dict[str, Any]) -> None:
    for key in ("traceId", "spanId", "parentSpanId"):
        if holder.get(key):
            holder[key] = base64.b64encode(bytes.fromhex(holder[key])).decode()
