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
MAX_EXACT = 2**53 - 1
_ESCAPED = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
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
        self.tags: list[Tag] = _sorted(_tags(attributes))
        self.scope_tags: list[Tag] = [{"key": key, "type": "string", "value": value} for key, value in named if value]


def span_json(stored: bytes, origin: Origin) -> dict[str, Any]:
    """Return a stored span in Jaeger's shape, without its process id."""
    span = Span.FromString(stored)
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return {
        "traceID": span.trace_id.hex(),
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "references": _references(span),
        "startTime": start // 1000,
        "duration": max(0, end - start) // 1000,
        "tags": _sorted([*origin.scope_tags, *_tags(span.attributes), *_span_tags(span)]),
        "logs": [_log(event) for event in span.events],
        "warnings": None,
    }


def _references(span: Span) -> list[dict[str, str]]:
    """Return the parent, then the links; a link to the parent only says what kind of reference it is."""
    trace_id = span.trace_id.hex()
    parent = (trace_id, span.parent_span_id.hex()) if any(span.parent_span_id) else None
    kinds = {parent: "CHILD_OF"} if parent else {}
    others = []
    for link in span.links:
        named = {attribute.key: attribute.value.string_value for attribute in link.attributes}
        kind = "CHILD_OF" if named.get("opentracing.ref_type") == "child_of" else "FOLLOWS_FROM"
        to = (link.trace_id.hex(), link.span_id.hex())
        if to == parent:
            kinds[parent] = kind
        else:
            others.append((to, kind))
    found = [
        {"refType": kind, "traceID": trace, "spanID": span_id} for (trace, span_id), kind in (*kinds.items(), *others)
    ]
    # Readers take the first one for the parent: one of this trace, a child before any other.
    ranks = [(each["traceID"] == trace_id) * (1 + (each["refType"] == "CHILD_OF")) for each in found]
    if any(ranks):
        first = ranks.index(max(ranks))
        found[0], found[first] = found[first], found[0]
    return found


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
    fields = _sorted(_tags(event.attributes))
    own = next((each for each in fields if each["key"] == "event" and each["type"] == "string"), None)
    if own is not None:
        fields.remove(own)
        fields.insert(0, own)
    elif event.name and all(each["key"] != "event" for each in fields):
        fields.insert(0, {"key": "event", "type": "string", "value": event.name})
    return {"timestamp": event.time_unix_nano // 1000, "fields": fields}


def _sorted(tags: Iterable[Tag]) -> list[Tag]:
    return sorted(tags, key=lambda tag: str(tag["key"]))


def _tags(attributes: Iterable[KeyValue]) -> Iterator[Tag]:
    for attribute in attributes:
        which = attribute.value.WhichOneof("value")
        if which == "string_value":
            yield {"key": attribute.key, "type": "string", "value": attribute.value.string_value[:MAX_TEXT]}
        elif which == "int_value":
            whole = attribute.value.int_value  # as text where JavaScript would round it
            yield {"key": attribute.key, "type": "int64", "value": str(whole) if abs(whole) > MAX_EXACT else whole}
        elif which == "bool_value":
            yield {"key": attribute.key, "type": "bool", "value": attribute.value.bool_value}
        elif which == "double_value" and math.isfinite(attribute.value.double_value):
            yield {"key": attribute.key, "type": "float64", "value": attribute.value.double_value}
        elif which == "bytes_value":
            yield {"key": attribute.key, "type": "binary", "value": _value(attribute.value)}
        else:  # lists and maps as JSON text; what JSON cannot say as text
            value = _value(attribute.value)
            text = str(value) if isinstance(value, float) else _json_text(value) if which else ""
            yield {"key": attribute.key, "type": "string", "value": text[:MAX_TEXT]}


def _json_text(value: Any) -> str:
    """Return JSON as Go writes it, which escapes what HTML would read."""
    return orjson.dumps(value).decode().translate(_ESCAPED)


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
