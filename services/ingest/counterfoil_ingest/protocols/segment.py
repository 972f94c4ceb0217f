"""The Segment protocol (spec at segment.com/docs/connections/spec), which RudderStack and Customer.io speak too.

An event becomes a record of the shipped contract `events`: `message_id`, `type`, `event` (of track; the name of page
and screen), `user_id`, `anonymous_id`, `group_id`, `timestamp`, `properties`, `context`, `traits`; every other key
follows in snake case. Ids that come as whole numbers become text. What `landing` adds is added to each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any

import orjson

from counterfoil_ingest import validation
from counterfoil_ingest.entities import Candidate
from counterfoil_ingest.protocols import Request
from counterfoil_ingest.protocols.body import (
    MAX_ID,
    Unreadable,
    elements,
    id_of,
    member,
    not_json,
    parse_each,
    too_many,
)
from counterfoil_ingest.protocols.landing import land, written
from counterfoil_ingest.protocols.segment_columns import IMPORT, MAX_EVENTS, columns, singles

__all__ = ["MAX_EVENTS", "columns", "parse", "singles"]

_NAMES = ("identify", "track", "page", "screen", "group", "alias")
_TYPES = {**dict(zip(_NAMES, _NAMES, strict=True)), **{name[0]: name for name in _NAMES}}
_SECRETS = ("writeKey", "write_key")  # browser SDKs put it into each event
_IDS = ("user_id", "anonymous_id", "group_id", "previous_id")
_AS_THEY_ARE = ("track", "group", "alias")  # types of which no property moves or is looked for elsewhere
_MOST_KEYS, _LONGEST_KEYS = 32, 500  # of an event whose shape is kept; in characters, all together
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake(key: str) -> str:
    """Return a key in snake case: `sentAt` -> `sent_at`, `deviceID` -> `device_id`."""
    return _HUMP.sub("_", key).lower()


_COLUMNS = {
    key: snake(key)
    for key in (
        *("messageId", "type", "event", "userId", "anonymousId", "groupId", "previousId", "properties", "context"),
        *("traits", "integrations", "timestamp", "originalTimestamp", "sentAt", "name", "category", "channel"),
    )
}


def parse(body: bytes, request: Request) -> list[Candidate]:
    """Return the events of a body: a batch, one event, or an array; the route gives the type of an event without."""
    envelope, events = _read(body)
    if len(events) > MAX_EVENTS:
        raise too_many(MAX_EVENTS)
    try:
        return _Mapper(envelope, request).candidates(events)
    except orjson.JSONEncodeError as error:  # one of them is deeper than can be written
        envelope, events = _read_parts(body.strip(), error)
        return _Mapper(envelope, request).candidates(events)


def _read(body: bytes) -> tuple[Mapping[str, Any], list[Any]]:
    """Return the envelope (empty for one event) and the events."""
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _read_parts(body.strip(), error)
    if isinstance(whole, list):
        return {}, whole
    if isinstance(whole, dict) and isinstance(whole.get("batch"), list):
        return whole, whole["batch"]
    return {}, [whole]


def _read_parts(body: bytes, error: Exception) -> tuple[Mapping[str, Any], list[Any]]:
    """Read a body event by event that does not parse as a whole, so that one bad event costs no other."""
    if (texts := elements(body)) is not None:
        return {}, parse_each(texts)
    place = member(body, b"batch")
    if place is None:
        if body.startswith(b"{") and elements(b"[" + body + b"]"):
            return {}, parse_each([body])
        raise not_json(error)
    start, end = place
    try:
        envelope = orjson.loads(body[:start] + b"[]" + body[end:])
    except orjson.JSONDecodeError:
        raise not_json(error) from error
    texts = elements(body[start:end]) or []
    if validation.nests_too_deep(body, envelope):  # its context would go into every event
        return {}, [Unreadable(text, validation.too_deep()) for text in texts]
    return envelope, parse_each(texts)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is known of all events with the same keys and types of values, in the same order.

    Where such an event needs no more than its keys renamed, `template` is its record with values that `columns`, one
    for each key, are to replace; it is None where an event has to be looked at key by key.
    """

    columns: tuple[str, ...]
    template: dict[str, Any] | None


_UNKNOWN = _Shape((), None)


@lru_cache(maxsize=1_000)
def _shape(keys: tuple[str, ...], kinds: tuple[type, ...]) -> _Shape:
    columns = tuple(_COLUMNS.get(each) or snake(each) for each in keys)
    by_column = dict(zip(columns, kinds, strict=True))
    usual = (
        len(by_column) == len(columns)
        and NoneType not in kinds
        and by_column.get("message_id") is str
        and all(by_column.get(name, str) is str for name in _IDS)
        and {"type", "timestamp"} <= by_column.keys()
        and not any(secret in keys for secret in _SECRETS)
    )
    return _Shape(columns, dict.fromkeys(columns) if usual else None)


class _Mapper:
    """Makes candidates of the events of one request."""

    def __init__(self, envelope: Mapping[str, Any], request: Request) -> None:
        self._request = request
        self._type = _TYPES.get(request.route, "")
        self._corrects = request.route != IMPORT
        shared = ((column, _object(envelope.get(column))) for column in ("context", "integrations"))
        self._shared = [(column, value) for column, value in shared if value]
        self._columns: dict[str, str] = {}  # of this request: what senders name their keys must not grow the process
        self._sent_at = envelope.get("sentAt")
        self._timestamp = envelope.get("timestamp")
        self._datasets: dict[tuple[str, str], str] = {}
        self._only = request.only_dataset()

    def candidates(self, events: list[Any]) -> list[Candidate]:
        """Return one candidate per event, in order."""
        return [self._candidate(event) for event in events]

    def _candidate(self, event: Any) -> Candidate:
        if type(event) is not dict:
            return self._no_object(event)
        keys = tuple(event)
        few = len(keys) <= _MOST_KEYS and sum(map(len, keys)) <= _LONGEST_KEYS
        record = self._usual(event, _shape(keys, tuple(map(type, event.values()))) if few else _UNKNOWN)
        if record is None:
            for secret in _SECRETS:
                event.pop(secret, None)
            record = self._record(event)
        land(record, self._request.received_at, corrects=self._corrects)
        record_id = record["message_id"]
        if len(record_id) > MAX_ID:
            record_id = id_of(record_id)
        dataset = self._only or self._dataset(record.get("type"), record.get("event"))
        return Candidate(record_id, dataset, orjson.dumps(record), record, (), event)

    def _no_object(self, event: Any) -> Candidate:
        if isinstance(event, Unreadable):
            return event.candidate(self._request.new_id(), "")
        finding = validation.not_an_object()
        return Candidate(self._request.new_id(), "", orjson.dumps(event), event, (finding,))

    def _usual(self, event: dict[str, Any], shape: _Shape) -> dict[str, Any] | None:
        """Return the record of an event that needs no more than its keys renamed; None when it does."""
        if shape.template is None or self._shared:
            return None
        record = shape.template.copy()  # with room for all keys: half the time of a dictionary that grows
        record.update(zip(shape.columns, event.values(), strict=False))
        if self._sent_at is not None:
            record.setdefault("sent_at", self._sent_at)
        return record if record["message_id"] and record["type"] in _AS_THEY_ARE else None

    def _record(self, event: dict[str, Any]) -> dict[str, Any]:
        columns = self._columns
        record: dict[str, Any] = {}
        for key, value in event.items():
            column = _COLUMNS.get(key) or columns.get(key)
            if column is None:
                column = columns[key] = snake(key)
            if value is None:
                continue
            while column in record:  # a second spelling, e.g. `user_id` beside `userId`: both are kept
                column += "_"
            record[column] = value
        self._complete(record)
        return record

    def _complete(self, record: dict[str, Any]) -> None:
        """Give a record what events leave out or say elsewhere."""
        record_id = record.get("message_id")
        if type(record_id) is not str or not record_id:
            record["message_id"] = _digits(record_id) or self._request.new_id()
        for column in _IDS:
            if column in record and type(record[column]) is not str:
                record[column] = _digits(record[column]) or record[column]
        type_ = record.get("type")
        if not type_ and self._type:
            type_ = record["type"] = self._type
        if type_ in ("page", "screen") and "name" in record and "event" not in record:
            record["event"] = record.pop("name")
        if "timestamp" not in record:
            arrived = written(self._request.received_at // 1_000 * 1_000)
            record["timestamp"] = record.pop("original_timestamp", None) or self._timestamp or arrived
        if self._sent_at is not None and "sent_at" not in record:
            record["sent_at"] = self._sent_at
        for column, shared in self._shared:
            own = record.get(column, {})
            if isinstance(own, dict):
                record[column] = {**shared, **own}
        if type_ == "identify" and "traits" not in record:
            traits = _object(record.get("context")).get("traits")
            if traits is not None:
                record["traits"] = traits

    def _dataset(self, type_: Any, name: Any) -> str:
        key = (type_ if isinstance(type_, str) else "", name if isinstance(name, str) else "")
        found = self._datasets.get(key)
        if found is None:
            found = self._datasets[key] = self._request.dataset_of(*key)
        return found


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _digits(value: Any) -> str:
    """Return a whole number as text, anything else as nothing."""
    return str(value) if type(value) is int else ""
