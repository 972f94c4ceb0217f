"""When an edge was valid, whatever order events come in.

A job tells an edge whenever an event names it, and with each event that completes a run it tells all of its edges: one
that it leaves out is over. So an edge is valid from when it is told until the next completion without it. What is
believed of that is a list of spans, ascending, with gaps between them; the functions here change it by one event.
"""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil_contracts.lineage.entities import Span


def told(spans: Sequence[Span], *, at: int, next_completion: int | None) -> list[Span]:
    """Return the spans once an edge is told `at` a time; `next_completion` is the job's first completion after it.

    A completion with the edge has told it itself, so its span begins by then.
    """
    if any(span.holds(at) for span in spans):
        return list(spans)
    end, rest = next_completion, list(spans)
    later = [span for span in spans if span.start > at]
    if later and (end is None or later[0].start <= end):
        end = later[0].end
        rest.remove(later[0])
    start = at
    if touching := [span for span in rest if span.end == at]:
        start = touching[0].start
        rest.remove(touching[0])
    return sorted([*rest, Span(start, end)], key=_start)


def left_out(spans: Sequence[Span], *, at: int, told_again: int | None) -> list[Span]:
    """Return the spans once a completion `at` a time left an edge out; `told_again` is when it is next told since then.

    Told at the very moment by another run, it goes on.
    """
    if told_again == at:
        return list(spans)
    found: list[Span] = []
    for span in spans:
        if span.start < at and (span.end is None or at < span.end):
            found.append(Span(span.start, at))
            if told_again is not None and (span.end is None or told_again < span.end):
                found.append(Span(told_again, span.end))
        else:
            found.append(span)
    return found


def _start(span: Span) -> int:
    return span.start
