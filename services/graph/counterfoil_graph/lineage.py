"""What the graph is made of, as lineage is told it: which fields of which dataset each of its parts reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from counterfoil_chassis.lineage import LineageDataset, job_event

from counterfoil_graph.mapping import DatasetRules, read_mapping
from counterfoil_graph.reads import paths_in

SERVICE: Final = "graph"
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "persons": ("identifiers",),
    "nodes": ("identifiers", "nodes", "edges"),
    "journeys": ("identifiers", "touchpoints", "conversions"),
}
"""The datasets that lineage knows the graph by, each with the rules that make it; an edge may end at a person."""


def mappings_event(documents: Sequence[str], *, at: datetime) -> dict[str, Any]:
    """Return the event that says what the graph reads under these mappings since a time."""
    rules = [
        (dataset, each)
        for document in documents
        if (mapping := read_mapping(document)[0]) is not None
        for dataset, each in mapping.datasets.items()
    ]
    return job_event(
        SERVICE,
        "graph/build",
        at=at,
        inputs=[LineageDataset(dataset) for dataset in dict.fromkeys(dataset for dataset, _ in rules)],
        outputs=[
            LineageDataset(f"graph/{part}", type="GRAPH", made_of={"": origins})
            for part, names in PARTS.items()
            if (origins := _origins(rules, names))
        ],
        processing="STREAMING",
    )


def _origins(rules: Sequence[tuple[str, DatasetRules]], names: Sequence[str]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for dataset, each in rules:
        parts = [getattr(each, name) for name in names]
        if any(parts[1:]) or len(parts) == 1:  # identifiers alone make persons only
            parts += [each.time, each.when]
            found.update(dict.fromkeys((dataset, ".".join(path)) for path in paths_in(tuple(parts)) if path))
    return list(found)
