"""Laws of the trace sink's translations."""

import base64

import orjson
import pytest
from counterfoil_cli.traces.jaeger import BadQueryError, duration_us, normal_id
from counterfoil_cli.traces.otlp import MalformedExportError, Origin, decode_json, decode_protobuf, rows, span_json
from counterfoil_cli.traces.page import format_us
from counterfoil_cli.traces.spans import Trace
from counterfoil_cli.traces.waterfall import lay_out
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)
values = st.one_of(
    st.text().map(lambda text: AnyValue(string_value=text)),
    st.booleans().map(lambda flag: AnyValue(bool_value=flag)),
    st.integers(-(2**63), 2**63 - 1).map(lambda whole: AnyValue(int_value=whole)),
    st.floats().map(lambda real: AnyValue(double_value=real)),
    st.binary().map(lambda raw: AnyValue(bytes_value=raw)),
    st.just(AnyValue()),
)


@given(trace_ids, span_ids, span_ids)
def test_ids_are_the_same_by_protobuf_and_by_json_and_in_the_answer(trace_id: bytes, span_id: bytes, parent: bytes):
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=span_id, parent_span_id=parent)
    span = {"traceId": trace_id.hex(), "spanId": span_id.hex().upper(), "parentSpanId": parent.hex()}
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert decode_json(orjson.dumps(document)) == decode_protobuf(request.SerializeToString()) == request
    [row], rejected = rows(request)
    shown = span_json(row.body, Origin(row.origin))
    assert (bytes.fromhex(shown["traceID"]), bytes.fromhex(shown["spanID"])) == (trace_id, span_id)
    assert shown["references"] == [{"refType": "CHILD_OF", "traceID": trace_id.hex(), "spanID": parent.hex()}]
    assert (row.trace_id, row.span_id, row.parent_id, rejected) == (trace_id, span_id, parent, 0)


@given(st.lists(st.tuples(st.text(), values)))
def test_whatever_the_attributes_a_span_has_one_json_tag_for_each(attributes: list[tuple[str, AnyValue]]):
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"a" * 16, span_id=b"b" * 8)
    span.attributes.extend(KeyValue(key=key, value=value) for key, value in attributes)
    [row], _ = rows(request)
    tags = orjson.loads(orjson.dumps(span_json(row.body, Origin(row.origin))))["tags"]
    attributes.sort(key=lambda pair: pair[0])
    assert [tag["key"] for tag in tags] == [key for key, _ in attributes]
    for tag, (_, value) in zip(tags, attributes, strict=True):
        assert tag["value"] is not None
        if tag["type"] == "int64":
            assert int(tag["value"]) == value.int_value
            assert isinstance(tag["value"], str) == (abs(value.int_value) >= 2**53)
        if tag["type"] == "binary":
            assert base64.b64decode(tag["value"]) == value.bytes_value


@given(st.binary())
def test_bytes_from_anywhere_are_read_or_refused_and_nothing_else(payload: bytes):
    for decode in (decode_protobuf, decode_json):
        try:
            rows(decode(payload))
        except MalformedExportError:
            continue


@given(st.integers(min_value=0, max_value=2**128 - 1))
def test_a_trace_id_without_its_leading_zeros_is_the_same(number: int):
    assert normal_id(f"{number:x}") == normal_id(f"{number:032X}") == f"{number:032x}"


@pytest.mark.parametrize("text", ["", "g", "0" * 33, "12 ", "-1", "١"])
def test_other_text_is_no_trace_id(text: str):
    with pytest.raises(BadQueryError):
        normal_id(text)


@given(st.integers(0, 1000), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_are_read_as_go_writes_them(hours: int, minutes: int, seconds: int, millis: int):
    text = f"{hours}h{minutes}m{seconds}.{millis:03}s"
    assert duration_us(text) == ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + millis * 1000


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0 µs"), (999, "999 µs"), (1000, "1 ms"), (12_345, "12.3 ms"), (999_999, "1 s"), (1_234_567, "1.23 s")],
)
def test_durations_are_written_with_three_digits(micros: int, text: str):
    assert format_us(micros) == text


@given(st.integers(min_value=0, max_value=2**53))
def test_every_duration_can_be_written_without_an_exponent(micros: int):
    assert "e+" not in format_us(micros)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1
    )
)
def test_a_layout_has_every_span_once_inside_the_time_axis(drawn: list[tuple[int, int, int, int]]):
    spans = {
        f"{own:016x}": {
            "spanID": f"{own:016x}",
            "references": [{"refType": "CHILD_OF", "traceID": "a", "spanID": f"{parent:016x}"}],
            "startTime": start,
            "duration": duration,
            "tags": [],
            "processID": "p1",
        }
        for own, parent, start, duration in drawn
    }
    fall = lay_out(Trace("a", list(spans.values()), {"p1": {"serviceName": "s", "tags": []}}, []))
    assert sorted(bar.span["spanID"] for bar in fall.bars) == sorted(spans)
    for bar in fall.bars:
        assert 0 <= bar.left <= 100
        assert bar.left + bar.width <= 100 + 1e-6
