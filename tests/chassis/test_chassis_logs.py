"""Log lines: fixed fields whatever is logged, the trace that it belongs to, and no secret even in an error's text."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from counterfoil_chassis.logs import JsonFormatter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id


def logged(text: str, /, *args: object, error: Exception | None = None, **extra: Any) -> dict[str, Any]:
    logger = logging.getLogger("probe")
    failure = (type(error), error, None) if error else None
    record = logger.makeRecord("probe", logging.WARNING, "f.py", 1, text, args, failure, extra=extra)
    return json.loads(JsonFormatter("models").format(record))


def test_a_field_of_the_caller_never_takes_the_place_of_a_fixed_one() -> None:
    line = logged("stopped", service="somebody else", level="DEBUG", time="never", logger="x", event="y")
    assert (line["service"], line["level"], line["event"], line["logger"]) == ("models", "WARNING", "stopped", "probe")
    assert line["time"].endswith("+00:00")


def test_a_line_within_a_trace_names_it_and_one_outside_names_none() -> None:
    assert "trace_id" not in logged("outside")
    with TracerProvider().get_tracer("probe").start_as_current_span("work") as span:
        assert logged("inside")["trace_id"] == format_trace_id(span.get_span_context().trace_id)


@pytest.mark.parametrize(
    "secret",
    ["cfk_" + "canary" * 7, "cfw_" + "canary" * 7, "eyJhbGciOiJFZERTQSJ9.eyJjYW5hcnkiOiJjYW5hcnkifQ.Y2FuYXJ5-c2ln"],
)
def test_keys_and_tokens_do_not_get_into_a_line_wherever_they_stand(secret: str) -> None:
    lines = [
        logged("refused %s", secret),
        logged("refused", key=secret, nested={"header": [f"Bearer {secret}"]}),
        logged("failed", error=ValueError(f"cannot read {secret}")),
    ]
    for line in lines:
        text = json.dumps(line)
        assert secret not in text
        assert "(left out)" in text
        assert "canary" not in text


def test_what_json_does_not_know_is_written_as_text() -> None:
    line = logged("odd", thing=sys, number=float("nan"), pairs={1: b"bytes"})
    assert "module 'sys'" in line["thing"]
    assert line["number"] is None
    assert line["pairs"] == {"1": "b'bytes'"}
