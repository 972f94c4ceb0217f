"""Reads OpenLineage events: checks them against the official schemas and our bounds, and takes out what is kept."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from counterfoil_chassis.clock import to_micros

from counterfoil_contracts.lineage.columns import links_of
from counterfoil_contracts.lineage.entities import Field, Name, RunState, Told, ToldDataset, uuid_of
from counterfoil_contracts.lineage.facets import EventKind, Place, event_fault, facet_fault

MOST_DATASETS: Final = 1000
MOST_FIELDS: Final = 10_000
MOST_LINKS: Final = 10_000
MOST_DEPTH: Final = 64
LONGEST_NAME: Final = 1024
"""Bytes: two such names with a workspace have room in an entry of PostgreSQL's indexes."""
_LATEST_US: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FRACTION = re.compile(r"(\.\d{6})\d+")
_STATES: Final = {
    "START": RunState.RUNNING,
    "RUNNING": RunState.RUNNING,
    "COMPLETE": RunState.COMPLETED,
    "ABORT": RunState.ABORTED,
    "FAIL": RunState.FAILED,
}


class EventRefusedError(Exception):
    """The event is not kept: a stable reason, a path, and what is wrong."""

    def __init__(self, reason: str, path: str, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.reason = reason
        self.path = path
        self.detail = detail


def read_event(content: bytes) -> Told:
    """Return what an event tells; raise EventRefusedError."""
    event = _parse(content)
    kind = _kind(event)
    fault = event_fault(kind, event)
    if fault is not None:
        _name_the_facet(event)
        raise EventRefusedError("EVENT_INVALID", f"${fault.path}", fault.detail)
    at = _time(event["eventTime"], "$.eventTime")
    event_id = hashlib.sha256(orjson.dumps(event, option=orjson.OPT_SORT_KEYS)).hexdigest()
    job, run = event.get("job"), event.get("run") or {}
    inputs: tuple[ToldDataset, ...] = ()
    if kind is EventKind.DATASET:
        outputs: tuple[ToldDataset, ...] = (_dataset(event["dataset"], "$.dataset", role=None),)
    else:
        listed = _listed(event)
        inputs = tuple(_dataset(each, path, role=Place.INPUT) for each, path in listed["inputs"])
        outputs = tuple(_dataset(each, path, role=Place.OUTPUT) for each, path in listed["outputs"])
    links = sum(len(each.columns or ()) for each in (*inputs, *outputs))
    if links > MOST_LINKS:
        raise EventRefusedError("EVENT_TOO_LARGE", "$.outputs", f"more than {MOST_LINKS} column edges; send fewer")
    event_type = str(event.get("eventType", "")) if kind is EventKind.RUN else ""
    return Told(
        event_id=event_id,
        event_type=event_type,
        at=at,
        run_id=str(uuid.UUID(run["runId"])) if kind is EventKind.RUN else uuid_of("declared", event_id),
        state=_STATES.get(event_type, RunState.NEW) if kind is EventKind.RUN else RunState.DECLARED,
        job=None if job is None else _name(job, "$.job"),
        job_facets={} if job is None else _facets(job, "$.job.facets", Place.JOB),
        run_facets=_facets(run, "$.run.facets", Place.RUN) if kind is EventKind.RUN else {},
        inputs=inputs,
        outputs=outputs,
        payload=content,
    )


def schema_fields(facets: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the fields that a dataset's facets tell, nested ones by dotted names, with descriptions and tags."""
    tags: dict[str, list[str]] = {}
    for tag in (facets.get("tags") or {}).get("tags") or ():
        if tag.get("field"):
            tags.setdefault(tag["field"], []).append(tag["key"])
    found: list[Field] = []
    waiting = [("", each) for each in reversed((facets.get("schema") or {}).get("fields") or ())]
    while waiting:
        prefix, each = waiting.pop()
        name = prefix + each["name"]
        found.append(Field(name, each.get("type") or "", each.get("description") or "", tuple(tags.get(name, ()))))
        waiting.extend((f"{name}.", inner) for inner in reversed(each.get("fields") or ()))
    return tuple(found)


def time_of(text: Any) -> int | None:
    """Return the microseconds of an RFC 3339 time, None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r"\1", text))
    except ValueError:
        return None
    try:
        return to_micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except OverflowError:
        return None


def _parse(content: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise EventRefusedError("EVENT_INVALID", "$", f"not JSON: {error}") from None
    if not isinstance(event, dict):
        raise EventRefusedError("EVENT_INVALID", "$", "an event is a JSON object")
    level: list[Any] = [event]
    for _ in range(MOST_DEPTH):
        children = (c for v in level for c in (v.values() if isinstance(v, dict) else v))
        level = [c for c in children if isinstance(c, dict | list)]
        if not level:
            return event
    raise EventRefusedError("EVENT_TOO_LARGE", "$", f"nested deeper than {MOST_DEPTH} levels")


def _name_the_facet(event: Mapping[str, Any]) -> None:
    """Raise for the facet that makes an event invalid, if one does: the whole's schema says only where facets are."""
    places = [("run", Place.RUN, "facets"), ("job", Place.JOB, "facets"), ("dataset", Place.DATASET, "facets")]
    found = [(event.get(name), f"$.{name}", place, key) for name, place, key in places]
    for name, role, role_key in (("inputs", Place.INPUT, "inputFacets"), ("outputs", Place.OUTPUT, "outputFacets")):
        listed = event.get(name)
        for at, each in enumerate(listed if isinstance(listed, list) else ()):
            path = f"$.{name}[{at}]"
            found += [(each, path, Place.DATASET, "facets"), (each, path, role, role_key)]
    for value, path, place, key in found:
        facets = value.get(key) if isinstance(value, dict) else None
        if isinstance(facets, dict) and all(isinstance(facet, dict) for facet in facets.values()):
            _facets({key: facets}, f"{path}.{key}", place, key=key)


def _kind(event: Mapping[str, Any]) -> EventKind:
    if "run" in event:
        return EventKind.RUN
    return EventKind.JOB if "job" in event else EventKind.DATASET


def _time(text: str, path: str) -> int:
    at = time_of(text)
    if at is None or not 0 <= at <= _LATEST_US:
        raise EventRefusedError("EVENT_INVALID", path, "not a time between 1970 and 9999")
    return at


def _listed(event: Mapping[str, Any]) -> dict[str, list[tuple[dict[str, Any], str]]]:
    listed = {
        key: [(each, f"$.{key}[{at}]") for at, each in enumerate(event.get(key) or ())] for key in ("inputs", "outputs")
    }
    if sum(map(len, listed.values())) > MOST_DATASETS:
        raise EventRefusedError("EVENT_TOO_LARGE", "$", f"more than {MOST_DATASETS} datasets; send fewer")
    return listed


def _name(value: Mapping[str, Any], path: str) -> Name:
    for key in ("namespace", "name"):
        text = value[key]
        if not text or not _is_name(text):
            detail = f"must be 1 to {LONGEST_NAME} bytes without control characters"
            raise EventRefusedError("NAME_INVALID", f"{path}.{key}", detail)
    return Name(value["namespace"], value["name"])


def _dataset(value: Mapping[str, Any], path: str, *, role: Place | None) -> ToldDataset:
    facets = _facets(value, f"{path}.facets", Place.DATASET)
    role_facets: dict[str, Any] = {}
    if role is not None:
        key = "inputFacets" if role is Place.INPUT else "outputFacets"
        role_facets = _facets(value, f"{path}.{key}", role, key=key)
    fields = schema_fields(facets)
    if len(fields) > MOST_FIELDS:
        raise EventRefusedError("EVENT_TOO_LARGE", f"{path}.facets.schema", f"more than {MOST_FIELDS} fields")
    links = links_of(facets)
    _check_texts(fields, links or (), path)
    return ToldDataset(_name(value, path), facets, role_facets, links)


def _facets(value: Mapping[str, Any], path: str, place: Place, *, key: str = "facets") -> dict[str, Any]:
    facets: dict[str, Any] = value.get(key) or {}
    for name, facet in facets.items():
        fault = facet_fault(place, name, facet)
        if fault is not None:
            raise EventRefusedError("FACET_INVALID", f"{path}.{name}{fault.path}", fault.detail)
    return facets


def _check_texts(fields: Iterable[Field], links: Iterable[Any], path: str) -> None:
    """Refuse what no store can keep as a name."""
    texts = [each.name for each in fields]
    for link in links:
        texts += [link.source.namespace, link.source.name, link.source_field, link.target_field, link.subtype]
    if not all(_is_name(text) for text in texts):
        detail = f"a name must be at most {LONGEST_NAME} bytes without control characters"
        raise EventRefusedError("NAME_INVALID", f"{path}.facets", detail)


def _is_name(text: str) -> bool:
    return len(text.encode()) <= LONGEST_NAME and not _CONTROL.search(text)
