"""States of the graph: the present one, one that a receipt cites, one that was known at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from counterfoil_graph.entities import State
from counterfoil_graph.errors import (
    GraphBehindError,
    GraphErasedError,
    GraphRebuildingError,
    GraphRebuiltError,
    StateUnknownError,
)
from counterfoil_graph.store import GraphReader, PersonReader


async def present(reader: PersonReader) -> State:
    """Return the state as it is now; raise GraphRebuildingError while the log is read again."""
    state = await reader.state()
    until = await reader.rebuild_until()
    if state.next_offset < until:
        raise GraphRebuildingError(
            f"The graph reads the log again and is at {state.next_offset} of {until}. Try again in a moment.",
            metadata={"next_offset": str(state.next_offset), "until": str(until)},
            retry_after=timedelta(seconds=1),
        )
    return state


async def cited(
    reader: GraphReader,
    *,
    log_epoch: str,
    next_offset: int,
    mappings_sha256: str,
    predecessors: Callable[[], Mapping[str, int]],
    erasures: int | None = None,
) -> State:
    """Return a state as it was cited; without an epoch, the present one.

    `predecessors` tells the lives of the log that the present one continues, each with the exclusive offset up to which
    it is the same. `erasures` are those that the state was read after; None = whatever was erased since.

    Raises:
        GraphErasedError: an erasure has changed it since.
        GraphRebuiltError: it belongs to another life of the log, or other mappings are in force since.
        GraphBehindError: the graph has not read so far.
        StateUnknownError: no state ends at this offset.
    """
    now = await present(reader)
    if not log_epoch:
        return now
    if log_epoch != now.log_epoch and next_offset > predecessors().get(log_epoch, -1):
        raise GraphRebuiltError(
            "The state belongs to another life of the log, which was restored since; ask again without it."
        )
    if mappings_sha256 != now.mappings_sha256:
        until = await reader.former_until(mappings_sha256)
        if until is None or next_offset > until:
            raise GraphRebuiltError(
                "The state was read under other mappings than those in force; ask again without it."
            )
    if next_offset > now.next_offset:
        raise GraphBehindError(f"The graph has read the log up to {now.next_offset} only. Try again in a moment.")
    if erasures is not None and await reader.is_erased_since(erasures, below=next_offset):
        raise GraphErasedError("Records of the state have been erased since it was read; ask again without it.")
    known_us = await reader.known_us(next_offset)
    if known_us is None and next_offset:
        raise StateUnknownError(f"No state of the graph ends at {next_offset}; take one from an answer or a receipt.")
    return State(log_epoch, next_offset, mappings_sha256, known_us, now.erasures)


async def known_at(reader: GraphReader, known_us: int | None) -> int:
    """Return the exclusive offset of what was known at a time (None = now), 0 when nothing was."""
    now = await present(reader)
    return now.next_offset if known_us is None else await reader.offset_known_at(known_us)
