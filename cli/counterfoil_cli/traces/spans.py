"""The shapes that the trace sink's parts share."""

from dataclasses import dataclass
from typing import Any, NamedTuple

Tag = dict[str, Any]  # Jaeger's {"key", "type", "value"}


class SpanRow(NamedTuple):
    """One span as it is stored; times in microseconds since 1970."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes  # empty: a root
    service: str
    operation: str
    kind: str
    start_us: int
    duration_us: int
    error: bool
    origin: bytes  # OTLP: resource and scope
    body: bytes  # OTLP: the span


@dataclass(frozen=True)
class Search:
    """What a trace must hold: one span that fits all of this."""

    service: str = ""
    operation: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    start_us: int = 0
    end_us: int = 2**62
    min_duration_us: int = 0
    max_duration_us: int = 2**62
    limit: int = 20


@dataclass(frozen=True)
class Trace:
    """One trace in Jaeger's JSON shape: spans in order of start, and their processes by id."""

    trace_id: str
    spans: list[dict[str, Any]]
    processes: dict[str, dict[str, Any]]
    warnings: list[str]


@dataclass(frozen=True)
class TraceSummary:
    """One trace on a line: times in microseconds."""

    trace_id: str
    name: str
    root_service: str
    services: tuple[str, ...]
    spans: int
    errors: int
    start_us: int
    duration_us: int
