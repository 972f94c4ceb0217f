"""Jaeger v2 with our configuration: one trace across the processes, and the same answers as the embedded sink's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.cli.running import sink_in
from tests.observability.conftest import Jaeger
from tests.system.installation import Installation, traceparent, until
from tests.system.tenant import Tenant

BASE = 1_790_000_000_000_000_000
TRACE, OTHER = b"\x11" * 16, b"\x22" * 16
ATTRIBUTES = {
    "text": AnyValue(string_value="<é>&"),
    "whole": AnyValue(int_value=7),
    "large": AnyValue(int_value=2**60),
    "yes": AnyValue(bool_value=True),
    "share": AnyValue(double_value=0.25),
    "bytes": AnyValue(bytes_value=b"\x00\xff"),
    "list": AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="a<b"), AnyValue(int_value=1)])),
    "map": AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="b", value=AnyValue(bool_value=False))])),
    "nothing": AnyValue(),
}


def pairs(**values: AnyValue) -> list[KeyValue]:
    return [KeyValue(key=name, value=value) for name, value in values.items()]


def span(number: int, name: str, *, parent: int = 0, **more: Any) -> Span:
    made = Span(
        trace_id=TRACE,
        span_id=number.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        name=name,
        start_time_unix_nano=BASE + number * 1_000_000,
        end_time_unix_nano=BASE
        + (100 - number) * 1_000_000
        + 999,  # within its parent: clocks that differ get a warning
    )
    made.MergeFrom(Span(**more))
    return made


def every_kind_of_span() -> ExportTraceServiceRequest:
    """Spans of two services with whatever OTLP can say of one."""
    request = ExportTraceServiceRequest()
    shop = request.resource_spans.add()
    shop.resource.CopyFrom(
        Resource(
            attributes=pairs(
                **{
                    "service.name": AnyValue(string_value="shop"),
                    "zone": AnyValue(string_value="z"),
                    "host": AnyValue(string_value="h"),
                }
            )
        )
    )
    scope = shop.scope_spans.add(scope=InstrumentationScope(name="scope", version="1.2"))
    link_to_parent = Span.Link(trace_id=TRACE, span_id=(1).to_bytes(8))
    child_of = Span.Link(
        trace_id=OTHER,
        span_id=(9).to_bytes(8),
        attributes=pairs(**{"opentracing.ref_type": AnyValue(string_value="child_of")}),
    )
    follows = Span.Link(trace_id=OTHER, span_id=(8).to_bytes(8))
    event = Span.Event(
        time_unix_nano=BASE + 1_234_567,
        name="found",
        attributes=pairs(zeta=AnyValue(int_value=1), alpha=AnyValue(int_value=2)),
    )
    named = Span.Event(
        time_unix_nano=BASE + 2_000_000, name="found", attributes=pairs(event=AnyValue(string_value="its own"))
    )
    scope.spans.extend(
        [
            span(1, "GET /", kind=Span.SPAN_KIND_SERVER, attributes=pairs(**ATTRIBUTES), trace_state="a=1"),
            span(2, "linked to its parent", parent=1, links=[link_to_parent]),
            span(3, "follows two", parent=1, kind=Span.SPAN_KIND_CONSUMER, links=[follows, child_of]),
            span(4, "linked, without a parent", links=[follows, link_to_parent]),
            span(5, "with events", parent=1, events=[event, named]),
            span(6, "failed", parent=1, status=Status(code=Status.STATUS_CODE_ERROR, message="no")),
            span(7, "well", parent=6, kind=Span.SPAN_KIND_CLIENT, status=Status(code=Status.STATUS_CODE_OK)),
        ]
    )
    store = request.resource_spans.add()
    store.resource.CopyFrom(Resource(attributes=pairs(**{"service.name": AnyValue(string_value="store")})))
    store.scope_spans.add().spans.extend([span(8, "plain", parent=7, kind=Span.SPAN_KIND_INTERNAL)])
    return request


def plain(answer: Any) -> Any:
    """Return a trace without what has no meaning: the names of processes, the order of spans."""
    [trace] = answer["data"]
    spans = [each | {"processID": trace["processes"][each["processID"]]} for each in trace["spans"]]
    return {
        "traceID": trace["traceID"],
        "spans": sorted(spans, key=lambda each: each["spanID"]),
        "warnings": trace["warnings"],
    }


async def test_the_embedded_sink_answers_as_jaeger_does(jaeger: Jaeger, tmp_path: Path) -> None:
    content = every_kind_of_span().SerializeToString()
    headers = {"content-type": "application/x-protobuf"}
    async with sink_in(tmp_path) as sink, httpx.AsyncClient(trust_env=False) as client:
        doors = [(f"127.0.0.1:{jaeger.ports[4318]}", f"127.0.0.1:{jaeger.ports[16686]}"), (sink.otlp_http, sink.pages)]
        for otlp, _ in doors:
            assert (await client.post(f"http://{otlp}/v1/traces", content=content, headers=headers)).is_success
        path = f"/api/traces/{TRACE.hex()}"
        until(lambda: jaeger.get(path).json()["data"] or None, seconds=30, what="Jaeger does not have the trace")

        async def both(path: str, **query: Any) -> tuple[Any, Any]:
            first, second = [await client.get(f"http://{pages}{path}", params=query) for _, pages in doors]
            assert first.status_code == second.status_code, path
            return first.json(), second.json()

        real, ours = map(plain, await both(path))
        for theirs, mine in zip(real["spans"], ours["spans"], strict=True):
            assert mine == theirs
        assert ours == real
        for query in ({"service": "shop", "tags": '{"error":"true"}'}, {"service": "store", "operation": "plain"}):
            window = {"start": BASE // 1000 - 1, "end": BASE // 1000 + 10**9, "lookback": "custom"}
            real, ours = map(plain, await both("/api/traces", **query, **window))
            assert ours == real
        real, ours = await both("/api/operations", service="shop")
        assert sorted(ours["data"], key=str) == sorted(real["data"], key=str)
        real, ours = await both("/api/services/shop/operations")
        assert sorted(ours["data"]) == sorted(real["data"])
        real, ours = await both("/api/services")
        assert {"shop", "store"} <= set(real["data"]) & set(ours["data"])
        real, ours = await both(f"/api/traces/{OTHER.hex()}")
        assert real["errors"] == ours["errors"]


@pytest.fixture(scope="module")
def event(watched: Installation, jaeger: Jaeger) -> str:
    """The trace id of one event that was sent by an SDK's request."""
    with watched.http(watched.admin_key) as admin:
        tenant = Tenant.create(watched, admin, workspace="traced")
    _, write_key = tenant.source()
    tenant.http.close()
    header, trace_id = traceparent()
    sent = {"type": "track", "event": "Order Completed", "userId": "ada"}
    with watched.http() as client:
        answer = client.post("/v1/batch", json={"batch": [sent]}, headers={"traceparent": header}, auth=(write_key, ""))
    assert answer.status_code == 200, answer.text
    return trace_id


def test_one_trace_in_jaeger_crosses_the_processes(jaeger: Jaeger, event: str) -> None:
    def crossed() -> list[dict[str, Any]] | None:
        found = jaeger.get(f"/api/traces/{event}").json()["data"]
        if not found:
            return None
        [trace] = found
        spans = [each | {"service": trace["processes"][each["processID"]]["serviceName"]} for each in trace["spans"]]
        return spans if {"gateway", "ingest", "graph", "models"} <= {each["service"] for each in spans} else None

    spans = until(crossed, seconds=60, what="the trace lacks a process")
    assert {each["traceID"] for each in spans} == {event}
    known = {each["spanID"] for each in spans}
    roots = {each["service"] for each in spans if each["references"][0]["spanID"] not in known}
    assert roots == {"gateway"}, "only the caller's own span is elsewhere"


def test_jaeger_makes_request_metrics_of_spans(jaeger: Jaeger, event: str) -> None:
    def counted() -> bool | None:
        page = jaeger.get("/metrics", door=8889).text
        return ("traces_span_metrics_calls_total{" in page and 'service_name="ingest"' in page) or None

    until(counted, seconds=60, what="no metrics of spans")


def test_jaeger_tells_of_itself(jaeger: Jaeger, event: str) -> None:
    assert "otelcol_receiver_accepted_spans" in jaeger.get("/metrics", door=8888).text
