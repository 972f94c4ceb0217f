"""Which fields of which dataset a mapping reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from counterfoil_graph import mapping as language
from counterfoil_graph.entities import MappingVersion
from counterfoil_graph.mapping import Condition, NodeRule, Value, read_mapping
from counterfoil_graph.mappings import PLATFORM


@dataclass(frozen=True, slots=True)
class Reads:
    """What one mapping reads of one dataset: paths from the record."""

    mapping_id: str
    dataset: str
    fields: tuple[tuple[str, ...], ...]
    owner: str


def all_reads(versions: Sequence[MappingVersion]) -> list[Reads]:
    """Return what the mappings of a workspace read; one without mappings gets the shipped one."""
    if not versions:
        return _reads(language.shipped_document(), PLATFORM)
    return [each for version in versions for each in _reads(version.document, version.created_by)]


def _reads(document: str, owner: str) -> list[Reads]:
    mapping, _ = read_mapping(document)
    if mapping is None:  # of another release: the graph does not read it either
        return []
    found = []
    for dataset, rules in mapping.datasets.items():
        if paths := tuple(dict.fromkeys(path for path in paths_in(rules) if path)):
            found.append(Reads(mapping.mapping_id, dataset, paths, owner))
    return found


def paths_in(part: Any) -> Iterator[tuple[str, ...]]:
    """Yield the paths that a part of a mapping reads; an empty one is a constant's."""
    if isinstance(part, Value | Condition):
        yield part.path
    elif isinstance(part, tuple):
        for each in part:
            yield from paths_in(each)
    elif is_dataclass(part):
        if isinstance(part, NodeRule):
            yield from part.attributes
        for each in fields(part):
            yield from paths_in(getattr(part, each.name))
