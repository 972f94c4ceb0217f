"""When an edge was valid does not depend on the order in which events come."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations

import pytest
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil_chassis.clock import to_timestamp
from counterfoil_contracts.lineage.entities import Span
from counterfoil_contracts.lineage.timeline import left_out, told
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.calls import Contracts
from tests.contracts.lineage_world import Lineage, dataset, edges, event, moment


@dataclass(frozen=True)
class Said:
    """An event of a job: when, whether it ends a run, and whether it names the edge."""

    at: int
    ends: bool
    named: bool


SAID = st.builds(Said, st.integers(0, 8), st.booleans(), st.booleans())


def fold(events: list[Said]) -> list[Span]:
    """Return what is believed after the events, in the order in which they came."""
    spans: list[Span] = []
    for count, each in enumerate(events, start=1):
        seen = events[:count]
        if each.named:
            following = min((other.at for other in seen if other.ends and other.at > each.at), default=None)
            spans = told(spans, at=each.at, next_completion=following)
        elif each.ends:
            again = min((other.at for other in seen if other.named and other.at >= each.at), default=None)
            spans = left_out(spans, at=each.at, told_again=again)
    return spans


def holds(events: list[Said], at: int) -> bool:
    """Say from all events at once whether the edge was valid at a time: named since it was last left out."""
    named = max((each.at for each in events if each.named and each.at <= at), default=None)
    over = max((each.at for each in events if each.ends and not each.named and each.at <= at), default=None)
    return named is not None and (over is None or over <= named)


@given(st.lists(SAID, max_size=8))
def test_the_spans_hold_what_all_events_together_say(events: list[Said]) -> None:
    spans = fold(events)
    for at in range(-1, 10):
        assert any(span.holds(at) for span in spans) == holds(events, at), (at, spans)


@given(st.lists(SAID, max_size=8))
def test_spans_are_ascending_and_do_not_touch(events: list[Said]) -> None:
    spans = fold(events)
    for earlier, later in pairwise(spans):
        assert earlier.end is not None
        assert earlier.end < later.start or any(each.at == later.start for each in events)
    assert all(span.end is None or span.start < span.end for span in spans)


@pytest.mark.both_engines("contracts")
async def test_a_job_has_the_same_history_in_whatever_order_its_runs_are_told(contracts: Contracts) -> None:
    lineage = Lineage(contracts)
    orders, rates, out = dataset("orders"), dataset("rates"), dataset("revenue")
    events = [
        event("load", at=1, inputs=[orders, rates], outputs=[out]),
        event("load", at=3, inputs=[orders], outputs=[out]),
        event("load", at=4, state="START", inputs=[rates]),
        event("load", at=6, inputs=[orders], outputs=[out]),
    ]
    histories = set()
    for number, order in enumerate(permutations(events)):
        workspace = f"order-{number}"
        await lineage.kept(*order, workspace=workspace)
        history = []
        for at in (0.5, 1, 2, 3, 3.5, 4, 5, 6, 7):
            graph = await lineage.graph("job:nightly:load", workspace=workspace, as_of=to_timestamp(moment(at)))
            history.append((at, frozenset(edges(graph))))
        histories.add(tuple(history))
    [history] = histories
    reads = {at: ("rates", "load") in found for at, found in history}
    assert [at for at, read in reads.items() if read] == [1, 2, 4, 5]


@pytest.mark.both_engines("contracts")
async def test_columns_end_with_the_run_that_leaves_them_out(contracts: Contracts) -> None:
    lineage = Lineage(contracts)
    for at, origin in ((1, "net"), (2, "gross")):
        told_by = {
            "_producer": "https://example.com",
            "_schemaURL": "https://example.com/x.json",
            "fields": {"total": {"inputFields": [{"namespace": "n", "name": "orders", "field": origin}]}},
        }
        written = {"namespace": "n", "name": "daily", "facets": {"columnLineage": told_by}}
        await lineage.kept(event("load", at=at, outputs=[written]))
    call = contracts.as_principal()
    for at, origins in ((1.5, {"net"}), (3, {"gross"})):
        request = pb.GetColumnLineageRequest(namespace="n", dataset="daily", as_of=to_timestamp(moment(at)))
        found = await lineage.stub.GetColumnLineage(request, **call)
        assert {edge.source.field for edge in found.edges} == origins
