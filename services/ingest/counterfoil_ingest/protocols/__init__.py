"""Event protocols: each turns the bytes of one request into candidates.

A protocol is one module with a function `parse`, named by an entry point of the group `counterfoil.protocols`. It never
refuses a request for what one record holds: such a record is a candidate with findings. It raises BadJsonError only for
a body that is not JSON as a whole, and TooManyRecordsError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

from counterfoil_ingest.entities import Candidate, SourceMapping

API_SOURCE = "api"
"""The source id of what comes with an API key instead of a source's write key."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a protocol is told besides the body. `received_at` is microseconds UTC; `new_id` makes ids."""

    route: str
    dataset: str
    request_id: str
    received_at: int
    mappings: tuple[SourceMapping, ...]
    new_id: Callable[[], str]


Parse = Callable[[bytes, Request], list[Candidate]]
"""Turns a body (not compressed) into candidates, in their order."""


def installed() -> Mapping[str, Parse]:
    """Load every installed protocol, by name."""
    return {point.name: point.load().parse for point in entry_points(group="counterfoil.protocols")}
