"""Facets held against OpenLineage's own schemas, which are shipped: nothing is fetched."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import jsonschema_rs
import orjson

_CORE: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json"


class Place(enum.Enum):
    """Where a facet stands; the values are the names of OpenLineage's kinds of facets."""

    RUN = "RunFacet"
    JOB = "JobFacet"
    DATASET = "DatasetFacet"
    INPUT = "InputDatasetFacet"
    OUTPUT = "OutputDatasetFacet"


class EventKind(enum.Enum):
    """What an event is about; the values are the names of OpenLineage's definitions."""

    RUN = "RunEvent"
    JOB = "JobEvent"
    DATASET = "DatasetEvent"


@dataclass(frozen=True)
class Fault:
    """What a schema says of a value: where, and what is wrong, without the value itself."""

    path: str
    detail: str


def event_fault(kind: EventKind, event: Mapping[str, Any]) -> Fault | None:
    """Return the first thing that OpenLineage's schema has against an event as a whole."""
    return _fault(_definition(f"{_CORE}#/$defs/{kind.value}"), event)


def facet_fault(place: Place, name: str, facet: Mapping[str, Any]) -> Fault | None:
    """Return the first thing that a facet's own schema has against it, or that of all facets of its place."""
    reference = f"{_CORE}#/$defs/{place.value}"
    if facet.get("_deleted") is not True:
        reference = _references().get((place, name), reference)
    return _fault(_definition(reference), facet)


def _fault(validator: jsonschema_rs.Draft202012Validator, value: Mapping[str, Any]) -> Fault | None:
    error = next(validator.iter_errors(value), None)
    if error is None:
        return None
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return Fault("".join(steps), error.message)


@functools.cache
def _definition(reference: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": reference}, registry=_registry(), validate_formats=True, mask="the value"
    )


@functools.cache
def _registry() -> jsonschema_rs.Registry:
    return jsonschema_rs.Registry([(schema["$id"], schema) for schema in _schemas()])


@functools.cache
def _schemas() -> tuple[dict[str, Any], ...]:
    folder = files("counterfoil_contracts") / "lineage" / "openlineage"
    return tuple(orjson.loads(each.read_bytes()) for each in folder.iterdir() if each.name.endswith(".json"))


@functools.cache
def _references() -> Mapping[tuple[Place, str], str]:
    """Return the definition of each facet: which place it is for follows from the kind that it extends."""
    places = {place.value: place for place in Place}
    found: dict[tuple[Place, str], str] = {}
    for schema in _schemas():
        for facet in schema.get("properties", ()):
            for name, definition in schema["$defs"].items():
                for part in definition.get("allOf", ()):
                    kind = part.get("$ref", "").rpartition("/")[2]
                    if kind in places:
                        found[places[kind], facet] = f"{schema['$id']}#/$defs/{name}"
    return found
