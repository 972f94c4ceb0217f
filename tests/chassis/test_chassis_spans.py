"""Hot spans: the same trace, the same bytes, the same sampling as the SDK's."""

import subprocess
import sys

import pytest
from counterfoil_chassis import telemetry
from counterfoil_chassis.spans import Exporter, HotSpan, Provider
from counterfoil_chassis.telemetry import current_trace_id, current_traceparent, tracer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def kept() -> InMemorySpanExporter:
    telemetry.configure("tests", "")
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, Provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def test_is_current_within_its_block_and_continues_the_caller_s_trace(kept: InMemorySpanExporter) -> None:
    with HotSpan("GET /v1/x", traceparent=f"00-{TRACE}-{SPAN}-01") as span:
        assert current_trace_id() == TRACE
        assert current_traceparent() == span.traceparent
        with tracer().start_as_current_span("inside"):
            pass
    assert not trace.get_current_span().get_span_context().is_valid
    inside, hot = kept.get_finished_spans()
    assert inside.context.trace_id == hot.context.trace_id == int(TRACE, 16)
    assert inside.parent.span_id == hot.context.span_id
    assert hot.parent.span_id == int(SPAN, 16)


def test_is_encoded_as_the_sdk_would(kept: InMemorySpanExporter) -> None:
    with HotSpan("GET /v1/x", traceparent=f"00-{TRACE}-{SPAN}-01", attributes={"http.route": "/v1/x"}) as span:
        span.set_attribute("http.response.status_code", 200)
    with pytest.raises(ValueError, match="no"), HotSpan("fails", traceparent=""):
        raise ValueError("no")
    with tracer().start_as_current_span("sdk"):
        pass
    found = kept.get_finished_spans()
    ours, theirs = Exporter._translate_data(None, found), encode_spans(found)

    def spans(request: object) -> dict[bytes, object]:
        return {s.span_id: s for r in request.resource_spans for c in r.scope_spans for s in c.spans}

    assert len(spans(theirs)) == 3
    assert spans(ours) == spans(theirs)
    assert {str(r.resource) for r in ours.resource_spans} == {str(r.resource) for r in theirs.resource_spans}


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01x"],
)
def test_a_malformed_traceparent_begins_a_trace(kept: InMemorySpanExporter, header: str) -> None:
    with HotSpan("GET /v1/x", traceparent=header) as span:
        assert span.parent is None
    [found] = kept.get_finished_spans()
    assert found.context.is_valid
    assert found.context.trace_id != int(TRACE, 16)


def test_a_later_version_of_the_header_is_understood(kept: InMemorySpanExporter) -> None:
    with HotSpan("GET /v1/x", traceparent=f"01-{TRACE}-{SPAN}-01-more"):
        assert current_trace_id() == TRACE


def test_a_caller_that_does_not_sample_is_followed(kept: InMemorySpanExporter) -> None:
    with HotSpan("GET /v1/x", traceparent=f"00-{TRACE}-{SPAN}-00") as span:
        assert not span.is_recording()
        assert current_traceparent().startswith(f"00-{TRACE}-")
        assert current_traceparent().endswith("-00")
    assert kept.get_finished_spans() == ()


def test_a_share_of_new_traces_is_kept() -> None:
    program = (
        "from counterfoil_chassis import telemetry\n"
        "from counterfoil_chassis.spans import HotSpan\n"
        "telemetry.configure('x', '', ratio=0.25)\n"
        "print(sum(HotSpan('x', traceparent='').is_recording() for _ in range(4000)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 800 < int(done.stdout) < 1200


def test_without_a_provider_it_carries_the_caller_s_trace_on_and_keeps_nothing() -> None:
    program = (
        "from counterfoil_chassis.spans import HotSpan\n"
        f"with HotSpan('x', traceparent='00-{TRACE}-{SPAN}-01') as span: print(span.traceparent, span.is_recording())\n"
        "with HotSpan('x', traceparent='') as span: print(repr(span.traceparent))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"00-{TRACE}-{SPAN}-01 False", "''"]
