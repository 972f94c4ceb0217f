"""A trace laid out for reading: the tree flattened in order, each span with its place on the time axis."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from counterfoil_cli.traces.spans import Trace


@dataclass(frozen=True)
class Bar:
    """One line of the waterfall: `left` and `width` are percent of the trace's time."""

    span: dict[str, Any]
    service: str
    process_tags: list[dict[str, Any]]
    depth: int
    left: float
    width: float
    error: bool


@dataclass(frozen=True)
class Waterfall:
    """One trace, laid out; times in microseconds."""

    trace_id: str
    bars: list[Bar]
    services: list[str]  # in order of first appearance
    start_us: int
    duration_us: int
    errors: int


def lay_out(trace: Trace) -> Waterfall:
    """Order the spans as a tree, depth first, children by start; a span whose parent is missing stands as a root."""
    start = min(span["startTime"] for span in trace.spans)
    end = max(span["startTime"] + span["duration"] for span in trace.spans)
    total = max(1, end - start)
    bars = [
        Bar(
            span=span,
            service=trace.processes[span["processID"]]["serviceName"],
            process_tags=trace.processes[span["processID"]]["tags"],
            depth=depth,
            left=100 * (span["startTime"] - start) / total,
            width=100 * span["duration"] / total,
            error=any(tag["key"] == "error" and tag["value"] is True for tag in span["tags"]),
        )
        for span, depth in _in_order(trace.spans)
    ]
    return Waterfall(
        trace_id=trace.trace_id,
        bars=bars,
        services=list(dict.fromkeys(bar.service for bar in bars)),
        start_us=start,
        duration_us=end - start,
        errors=sum(bar.error for bar in bars),
    )


def _in_order(spans: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield every span once with its depth, also when parents form a circle."""
    known = {span["spanID"] for span in spans}
    children: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for span in spans:
        parent = _parent(span)
        children[parent if parent in known and parent != span["spanID"] else ""].append(span)
    seen: set[str] = set()
    for first in [*children[""], *spans]:  # the second part finds circles only
        stack = [(first, 0)]
        while stack:
            span, depth = stack.pop()
            if span["spanID"] not in seen:
                seen.add(span["spanID"])
                yield span, depth
                stack += [(child, depth + 1) for child in reversed(children[span["spanID"]])]


def _parent(span: dict[str, Any]) -> str:
    return next((str(ref["spanID"]) for ref in span["references"] if ref["refType"] == "CHILD_OF"), "")
