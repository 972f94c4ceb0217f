"""The trace sink: spans of the real OpenTelemetry SDK in, Jaeger's JSON and the pages out."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest
from counterfoil_cli.traces.__main__ import Sink
from counterfoil_cli.traces.receiver import MAX_REQUEST_BYTES
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context
from starlette.concurrency import run_in_threadpool

from tests.cli.running import sink_in

BASE = 1_700_000_000_000_000_000  # ns
EVIL = "<script>alert('1')</script>"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
async def api(sink: Sink) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the pages' and Jaeger's door."""
    async with httpx.AsyncClient(base_url=f"http://{sink.pages}", trust_env=False, timeout=60) as client:
        yield client


class Sender:
    """Makes spans of several services with the SDK and exports them with its own OTLP exporter."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._kept: dict[str, InMemorySpanExporter] = {}
        self._tracers: dict[str, Any] = {}

    def span(self, service: str, name: str, *, at: float, ms: float, parent: Any = None, **options: Any) -> Any:
        """Make a span that starts `at` ms after BASE; return it, open for more, until `export`."""
        if service not in self._tracers:
            resource = Resource({"service.name": service, "service.version": "1.2"})
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._kept[service] = InMemorySpanExporter()
            provider.add_span_processor(SimpleSpanProcessor(self._kept[service]))
            self._tracers[service] = provider.get_tracer("scope", "0.1")
        context = set_span_in_context(parent) if parent is not None else None
        start = BASE + round(at * 1e6)
        made = self._tracers[service].start_span(name, context=context, start_time=start, **options)
        made.ends = start + round(ms * 1e6)
        return made

    async def export(self, *spans: Any) -> None:
        """End the spans and send everything; returns once the sink has committed it."""
        for span in spans:
            span.end(span.ends)
        finished = [span for kept in self._kept.values() for span in kept.get_finished_spans()]
        exporter: SpanExporter = OTLPSpanExporter(endpoint=f"http://{self._sink.otlp_grpc}", insecure=True)
        assert await run_in_threadpool(exporter.export, finished) is SpanExportResult.SUCCESS
        await run_in_threadpool(exporter.shutdown)


@pytest.fixture
def sender(sink: Sink) -> Sender:
    """What sends spans to the sink."""
    return Sender(sink)


def hexes(span: Any) -> tuple[str, str]:
    """Return a span's trace and span id as Jaeger writes them."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def found(api: httpx.AsyncClient, **query: str | int) -> list[str]:
    """Return the ids of the traces that a search finds, in its order."""
    answer = await api.get("/api/traces", params=query)
    assert answer.status_code == 200, answer.text
    return [trace["traceID"] for trace in answer.json()["data"]]


async def test_a_trace_of_two_services_is_read_back_in_jaegers_shape(api: httpx.AsyncClient, sender: Sender):
    root = sender.span("gateway", "POST /v1/x", at=0, ms=10, kind=SpanKind.SERVER)
    root.set_attributes({"text": "ü", "whole": 2**40, "real": 0.5, "yes": True, "list": ["a", "b"]})
    other = sender.span("gateway", "other", at=5, ms=1)
    child = sender.span(
        "ingest", "Append", at=1, ms=2, parent=root, kind=SpanKind.CONSUMER, links=[Link(other.context)]
    )
    child.add_event("retried", {"times": 2}, timestamp=BASE + 2_000_000)
    child.set_status(Status(StatusCode.ERROR, "full"))
    await sender.export(root, other, child)
    trace_id, root_id = hexes(root)
    answer = (await api.get(f"/api/traces/{trace_id}")).json()
    assert {name: answer[name] for name in ("total", "limit", "offset", "errors")} == {
        "total": 0,
        "limit": 0,
        "offset": 0,
        "errors": None,
    }
    [trace] = answer["data"]
    assert trace["traceID"] == trace_id
    first, second = trace["spans"]
    assert first == {
        "traceID": trace_id,
        "spanID": root_id,
        "operationName": "POST /v1/x",
        "references": [],
        "startTime": BASE // 1000,
        "duration": 10_000,
        "tags": [
            {"key": "list", "type": "string", "value": '["a","b"]'},
            {"key": "otel.scope.name", "type": "string", "value": "scope"},
            {"key": "otel.scope.version", "type": "string", "value": "0.1"},
            {"key": "real", "type": "float64", "value": 0.5},
            {"key": "span.kind", "type": "string", "value": "server"},
            {"key": "text", "type": "string", "value": "ü"},
            {"key": "whole", "type": "int64", "value": 2**40},
            {"key": "yes", "type": "bool", "value": True},
        ],
        "logs": [],
        "processID": "p1",
        "warnings": None,
    }
    assert second["references"] == [
        {"refType": "CHILD_OF", "traceID": trace_id, "spanID": root_id},
        {"refType": "FOLLOWS_FROM", "traceID": hexes(other)[0], "spanID": hexes(other)[1]},
    ]
    assert [tag for tag in second["tags"] if not tag["key"].startswith("otel.scope")] == [
        {"key": "error", "type": "bool", "value": True},
        {"key": "otel.status_code", "type": "string", "value": "ERROR"},
        {"key": "otel.status_description", "type": "string", "value": "full"},
        {"key": "span.kind", "type": "string", "value": "consumer"},
    ]
    assert second["logs"] == [
        {
            "timestamp": BASE // 1000 + 2000,
            "fields": [
                {"key": "event", "type": "string", "value": "retried"},
                {"key": "times", "type": "int64", "value": 2},
            ],
        }
    ]
    tags = [{"key": "service.version", "type": "string", "value": "1.2"}]
    assert trace["processes"] == {
        "p1": {"serviceName": "gateway", "tags": tags},
        "p2": {"serviceName": "ingest", "tags": tags},
    }


async def test_services_operations_and_dependencies_are_listed(api: httpx.AsyncClient, sender: Sender):
    root = sender.span("gateway", "POST", at=0, ms=10, kind=SpanKind.SERVER)
    children = [sender.span("ingest", name, at=1, ms=1, parent=root, kind=SpanKind.SERVER) for name in ("b", "a", "a")]
    await sender.export(root, *children)
    assert (await api.get("/api/services")).json()["data"] == ["gateway", "ingest"]
    assert (await api.get("/api/services/ingest/operations")).json()["data"] == ["a", "b"]
    operations = (await api.get("/api/operations", params={"service": "ingest", "spanKind": "server"})).json()
    assert operations["data"] == [{"name": "a", "spanKind": "server"}, {"name": "b", "spanKind": "server"}]
    assert (await api.get("/api/operations")).status_code == 400
    window = {"endTs": BASE // 10**6 + 1000, "lookback": 5000}
    calls = (await api.get("/api/dependencies", params=window)).json()["data"]
    assert calls == [{"parent": "gateway", "child": "ingest", "callCount": 3}]
    assert (await api.get("/api/dependencies", params={"endTs": 1})).json()["data"] == []


async def test_a_search_takes_service_operation_time_duration_tags_and_limit(api: httpx.AsyncClient, sender: Sender):
    slow = sender.span("gateway", "slow", at=0, ms=900, attributes={"http.status": 500, "who": "ada"})
    slow.set_status(Status(StatusCode.ERROR))
    quick = sender.span("gateway", "quick", at=1000, ms=1, attributes={"http.status": 200, "who": "ada"})
    other = sender.span("models", "slow", at=2000, ms=50)
    await sender.export(slow, quick, other)
    a, b, c = (hexes(span)[0] for span in (slow, quick, other))
    start = BASE // 1000
    assert await found(api) == [c, b, a]
    assert await found(api, service="gateway") == [b, a]
    assert await found(api, service="gateway", operation="slow") == [a]
    assert await found(api, operation="slow") == [c, a]
    assert await found(api, service="nobody") == []
    assert await found(api, limit=1) == [c]
    assert await found(api, start=start + 1, end=start + 1_000_000) == [b]
    assert await found(api, minDuration="50ms") == [c, a]
    assert await found(api, maxDuration="50ms") == [c, b]
    assert await found(api, minDuration="20ms", maxDuration="0.1s") == [c]
    assert await found(api, tags='{"http.status":"200"}') == [b]
    assert await found(api, tags='{"who":"ada","error":"true"}') == [a]
    assert await found(api, tags='{"service.version":"1.2"}', limit=2) == [c, b]
    assert await found(api, tag="who:ada") == [b, a]
    assert await found(api, tag="who:ad") == []
    assert await found(api, lookback="1h") == []
    assert await found(api, traceID=a) == [a]


@pytest.mark.parametrize(
    "query",
    [
        {"start": "yesterday"},
        {"limit": "-1"},
        {"limit": "0"},
        {"minDuration": "10"},
        {"maxDuration": "1 week"},
        {"tags": "{"},
        {"tags": '{"a":1}'},
        {"tags": "[]"},
        {"tag": "a"},
        {"traceID": "x"},
        {"lookback": "2 days"},
    ],
)
async def test_a_query_that_cannot_be_read_is_400_in_jaegers_shape(api: httpx.AsyncClient, query: dict[str, str]):
    answer = await api.get("/api/traces", params=query)
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["code"] == 400
    assert answer.json()["data"] is None


async def test_an_unknown_trace_is_404_in_jaegers_shape(api: httpx.AsyncClient):
    answer = await api.get(f"/api/traces/{'ab' * 16}")
    assert answer.status_code == 404
    assert answer.json()["data"] is None
    assert answer.json()["errors"] == [{"code": 404, "msg": "trace not found"}]
    assert (await api.get(f"/trace/{'ab' * 16}")).status_code == 404
    assert (await api.get("/trace/nonsense")).status_code == 400


async def test_the_same_spans_again_change_nothing(api: httpx.AsyncClient, sender: Sender):
    span = sender.span("gateway", "once", at=0, ms=1)
    await sender.export(span)
    await sender.export()
    [trace] = (await api.get(f"/api/traces/{hexes(span)[0]}")).json()["data"]
    assert len(trace["spans"]) == 1


def request_bytes(**changes: Any) -> bytes:
    """Return an export request of one span."""
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=bytes(range(16)), span_id=bytes(range(8)), name="x", start_time_unix_nano=BASE)
    )
    for name, value in changes.items():
        setattr(span, name, value)
    return request.SerializeToString()


async def post(sink: Sink, content: bytes, **headers: str) -> httpx.Response:
    """Send an export request over HTTP."""
    names = {"content-type": "application/x-protobuf"} | {key.replace("_", "-"): text for key, text in headers.items()}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.post(f"http://{sink.otlp_http}/v1/traces", content=content, headers=names)


async def test_http_takes_protobuf_gzip_and_json(api: httpx.AsyncClient, sink: Sink):
    plain = await post(sink, request_bytes(trace_id=b"a" * 16))
    assert (plain.status_code, ExportTraceServiceResponse.FromString(plain.content)) == (
        200,
        ExportTraceServiceResponse(),
    )
    zipped = await post(sink, gzip.compress(request_bytes(trace_id=b"b" * 16)), content_encoding="gzip")
    assert zipped.status_code == 200
    span = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174", "name": "json", "kind": 2}
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [span | {"startTimeUnixNano": str(BASE)}]}]}]}
    as_json = await post(sink, orjson.dumps(document), content_type="application/json; charset=utf-8")
    assert (as_json.status_code, as_json.json()) == (200, {})
    assert set(await found(api)) == {"61" * 16, "62" * 16, "5b8efff798038103d269b633813fc60c"}
    assert (await api.get("/api/services")).json()["data"] == ["OTLPResourceNoServiceName"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\xff\xff\xff", {}, 400),
        (b"{", {"content_type": "application/json"}, 400),
        (b"[]", {"content_type": "application/json"}, 400),
        (b'{"resourceSpans":7}', {"content_type": "application/json"}, 400),
        (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}',
            {"content_type": "application/json"},
            400,
        ),
        (b'{"resourceSpans":' + b"[" * 5000, {"content_type": "application/json"}, 400),
        (b"not gzip", {"content_encoding": "gzip"}, 400),
        (gzip.compress(b"x")[:-4], {"content_encoding": "gzip"}, 400),
        (gzip.compress(bytes(MAX_REQUEST_BYTES + 1)), {"content_encoding": "gzip"}, 413),
        (bytes(MAX_REQUEST_BYTES + 1), {}, 413),
        (b"x", {"content_encoding": "br"}, 415),
        (b"x", {"content_type": "text/plain"}, 415),
    ],
)
async def test_what_is_no_export_request_is_refused_and_the_sink_goes_on(
    sink: Sink, content: bytes, headers: dict[str, str], status: int
):
    assert (await post(sink, content, **headers)).status_code == status
    assert (await post(sink, request_bytes())).status_code == 200


async def test_grpc_refuses_malformed_bytes_and_goes_on(sink: Sink):
    async with grpc.aio.insecure_channel(sink.otlp_grpc) as channel:
        export = channel.unary_unary(EXPORT)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await export(b"\xff\xff\xff", timeout=60)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await export(request_bytes(), timeout=60) == b""


@pytest.mark.parametrize(
    "changes", [{"trace_id": b""}, {"trace_id": bytes(16)}, {"trace_id": b"short"}, {"span_id": bytes(8)}]
)
async def test_spans_with_a_bad_id_are_left_out_and_counted(sink: Sink, changes: dict[str, bytes]):
    answer = await post(sink, request_bytes(**changes))
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1


async def test_every_text_of_a_page_is_escaped_and_scripts_are_forbidden(api: httpx.AsyncClient, sender: Sender):
    root = sender.span(EVIL, EVIL, at=0, ms=1, attributes={EVIL: EVIL})
    root.add_event(EVIL, {EVIL: EVIL})
    root.set_status(Status(StatusCode.ERROR, EVIL))
    await sender.export(root)
    for path in (f"/trace/{hexes(root)[0]}", "/", f"/?service={EVIL}"):
        page = await api.get(path)
        assert page.status_code == 200
        assert "<script" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert EVIL not in (await api.get(f"/trace/{EVIL}")).text


async def test_the_waterfall_shows_every_span_even_when_parents_are_missing_or_form_a_circle(
    api: httpx.AsyncClient, sink: Sink
):
    for span, parent in ((b"a" * 8, b"b" * 8), (b"b" * 8, b"a" * 8), (b"c" * 8, b"z" * 8), (b"d" * 8, b"d" * 8)):
        assert (await post(sink, request_bytes(span_id=span, parent_span_id=parent, name=span.decode()))).is_success
    page = await api.get(f"/trace/{bytes(range(16)).hex()}")
    assert page.status_code == 200
    for name in ("aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"):
        assert page.text.count(f'<details id="{name.encode().hex()}">') == 1


async def test_leading_zeros_of_a_trace_id_may_be_left_away(api: httpx.AsyncClient, sink: Sink):
    await post(sink, request_bytes(trace_id=bytes(8) + b"12345678"))
    short = b"12345678".hex()
    assert (await api.get(f"/api/traces/{short}")).json()["data"][0]["traceID"] == "0" * 16 + short
    assert (await api.get(f"/trace/{short.upper()}")).status_code == 200


async def test_only_the_newest_spans_are_kept(tmp_path: Path):
    async with sink_in(tmp_path, max_spans=10) as sink, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for number in range(30):
            await post(sink, request_bytes(trace_id=bytes([number + 1] * 16)))
    async with sink_in(tmp_path, max_spans=10) as sink, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await post(sink, request_bytes(trace_id=b"new" + bytes(13)))
        kept = (await client.get(f"http://{sink.pages}/api/traces", params={"limit": 100})).json()["data"]
    assert len(kept) == 10
    assert bytes([30] * 16).hex() in {trace["traceID"] for trace in kept}


async def test_old_spans_go_and_with_them_their_operations(tmp_path: Path):
    async with sink_in(tmp_path) as sink:
        await post(sink, request_bytes(name="old"))
    async with sink_in(tmp_path, max_days=1e-9) as sink, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await post(sink, request_bytes(trace_id=b"n" * 16, name="new"))
        assert (await client.get(f"http://{sink.pages}/api/traces")).json()["data"] == []
        assert (await client.get(f"http://{sink.pages}/api/services")).json()["data"] == []


async def test_a_broken_file_is_put_aside_and_the_sink_starts(tmp_path: Path):
    (tmp_path / "traces.db").write_text("no database at all" * 100)
    async with sink_in(tmp_path) as sink:
        assert (await post(sink, request_bytes())).status_code == 200
    assert (tmp_path / "traces.db.broken").exists()


async def test_spans_survive_a_restart(tmp_path: Path):
    async with sink_in(tmp_path) as sink:
        await post(sink, request_bytes(trace_id=b"k" * 16))
    async with sink_in(tmp_path) as sink, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        assert (await client.get(f"http://{sink.pages}/api/traces/{b'k'.hex() * 16}")).status_code == 200


async def test_the_list_of_traces_can_be_narrowed_to_a_service_and_opened_by_id(api: httpx.AsyncClient, sender: Sender):
    spans = [sender.span(name, f"work of {name}", at=0, ms=1) for name in ("gateway", "models")]
    await sender.export(*spans)
    page = (await api.get("/", params={"service": "models"})).text
    assert "work of models" in page
    assert "work of gateway" not in page
    jump = await api.get("/search", params={"id": "../evil?x"})
    assert (jump.status_code, jump.headers["location"]) == (303, "/trace/..%2Fevil%3Fx")
