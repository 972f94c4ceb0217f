"""Event protocols: each turns the bytes of one request into candidates.

A protocol is one module with a function `parse`, named by an entry point of the group `counterfoil.protocols`. It never
refuses a request for what one record holds: such a record is a candidate with findings. It raises BadJsonError only for
a body that is not JSON as a whole, and TooManyRecordsError. A module may have a function `columns` that turns most
bodies into the same records at less cost, and returns None for the others; and `singles`, which does so with many
bodies of one record each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from counterfoil_ingest.entities import UNPLANNED, Candidate, Columns, SourceMapping

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

    def only_dataset(self) -> str:
        """Return the dataset of everything, as it is of most sources; "" where it depends on the event."""
        first = self.mappings[0] if self.mappings else None
        return first.dataset if first and not first.type and not first.event else ""

    def dataset_of(self, type_: str, event: str) -> str:
        """Return the dataset of the first mapping that fits an event; `unplanned` when none does."""
        for mapping in self.mappings:
            if mapping.type in ("", type_) and mapping.event in ("", event):
                return mapping.dataset
        return UNPLANNED


Parse = Callable[[bytes, Request], list[Candidate]]
"""Turns a body (not compressed) into candidates, in their order."""


ParseColumns = Callable[[bytes, Request], Columns | None]
"""Turns a body (not compressed) into columns; None = it has to be parsed record by record."""


ParseSingles = Callable[[Sequence[bytes], Request, Sequence[int]], tuple[Sequence[int], Columns] | None]
"""Turns bodies of one route and source, told when each arrived, into columns, and tells the indexes of those taken."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What one module offers."""

    parse: Parse
    columns: ParseColumns | None
    singles: ParseSingles | None


def installed() -> Mapping[str, Protocol]:
    """Load every installed protocol, by name."""
    modules = {point.name: point.load() for point in entry_points(group="counterfoil.protocols")}
    return {name: _protocol(module) for name, module in modules.items()}


def _protocol(module: Any) -> Protocol:
    return Protocol(module.parse, getattr(module, "columns", None), getattr(module, "singles", None))
