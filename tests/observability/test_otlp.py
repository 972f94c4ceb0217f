"""A collector that hears nobody out costs neither memory, nor log lines, nor a late end; what it misses is counted."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from counterfoil_chassis.telemetry import MOST_WAITING

PROGRAM = """
import json, logging, sys, time
import psutil
from counterfoil_chassis import telemetry
from counterfoil_chassis.metrics import SPANS_DROPPED
from counterfoil_chassis.spans import HotSpan

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s %(message)s")
telemetry.configure("probe", sys.argv[1])
told = []
logging.getLogger("counterfoil_chassis.telemetry").addFilter(lambda line: told.append(line) or True)
process = psutil.Process()

def work(spans):
    for _ in range(spans // 2):
        with telemetry.tracer().start_as_current_span("work") as span:
            span.set_attribute("text", "x" * 200)
        with HotSpan("hot", traceparent="") as span:
            span.set_attribute("text", "x" * 200)
    return process.memory_info().rss

filled = work(8_000)  # four times what may wait
after = work(20_000)
deadline = time.monotonic() + 30
while time.monotonic() < deadline and not told:
    time.sleep(0.05)
work(4_000)  # once told, it is not told again
begun = time.monotonic()
telemetry.flush()
dropped = {cause: SPANS_DROPPED.labels(cause)._value.get() for cause in ("full", "undelivered")}
print(json.dumps({"grown": after - filled, "flushed": time.monotonic() - begun, **dropped}))
"""


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_collector_that_does_not_answer_costs_nothing(silent: str) -> None:
    endpoints = [silent, "http://127.0.0.1:1", "http://collector.invalid:4317"]
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, each], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            for each in endpoints
        ]
        ended = [each.communicate(timeout=120) for each in programs]
    for endpoint, program, (output, errors) in zip(endpoints, programs, ended, strict=True):
        assert program.returncode == 0, errors
        measured = json.loads(output)
        assert measured["grown"] < 12 << 20, endpoint
        assert measured["flushed"] < 10, endpoint
        assert measured["undelivered"], endpoint
        left = 32_000 - measured["full"] - measured["undelivered"]
        assert 0 <= left <= MOST_WAITING + 512, endpoint  # those that wait, and those that are under way
        assert errors.splitlines() == ["counterfoil_chassis.telemetry traces are not delivered"], endpoint
