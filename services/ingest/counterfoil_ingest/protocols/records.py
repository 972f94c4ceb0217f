"""Records as they are: a JSON array of objects, one object, or one object per line (NDJSON)."""

from __future__ import annotations

from typing import Any

import orjson

from counterfoil_ingest import validation
from counterfoil_ingest.entities import Candidate
from counterfoil_ingest.protocols import Request
from counterfoil_ingest.protocols.body import Unreadable, elements, id_of, not_json, parse_each, too_many
from counterfoil_ingest.protocols.landing import land

EVENTS = "events"
"""The dataset whose records are completed as those of event protocols are; those of others stay as they are sent."""

MAX_RECORDS = 10_000
"""Of one request."""


def parse(body: bytes, request: Request) -> list[Candidate]:
    """Return the records of a body, all for the request's dataset.

    A record's id is its `message_id`; without one it is `<request id>#<position>`, and without that a fresh one.
    """
    values = _values(body)
    if len(values) > MAX_RECORDS:
        raise too_many(MAX_RECORDS)
    try:
        return [_candidate(value, index, request) for index, value in enumerate(values)]
    except orjson.JSONEncodeError:  # one of them is deeper than can be written
        texts = elements(body) if body.lstrip().startswith(b"[") else [body]
        return [_candidate(value, index, request) for index, value in enumerate(parse_each(texts or []))]


def _values(body: bytes) -> list[Any]:
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _parts(body.strip(), error)
    return whole if isinstance(whole, list) else [whole]


def _parts(body: bytes, error: Exception) -> list[Any]:
    """Parse a body record by record that does not parse as a whole."""
    texts = elements(body) if body.startswith(b"[") else [line for line in body.split(b"\n") if line.strip()]
    values = parse_each(texts or [])
    if all(isinstance(each, Unreadable) for each in values) and not _is_one_object(body):
        raise not_json(error)
    return values


def _is_one_object(body: bytes) -> bool:
    """Tell whether a body looks like one object, or an array of nothing but unreadable ones."""
    return body[:1] in b"[{" and bool(elements(body if body.startswith(b"[") else b"[" + body + b"]"))


def _candidate(value: Any, index: int, request: Request) -> Candidate:
    record_id = _id(value, index, request)
    if isinstance(value, Unreadable):
        return value.candidate(record_id, request.dataset)
    if request.dataset == EVENTS and isinstance(value, dict):
        value = dict(value)
        land(value, request.received_at)
    # Written anew, so that what is stored is what was checked: of a key that comes twice, readers differ on which wins.
    data = orjson.dumps(value)
    findings = () if isinstance(value, dict) else (validation.not_an_object(),)
    return Candidate(record_id, request.dataset, data, value, findings)


def _id(value: Any, index: int, request: Request) -> str:
    if isinstance(value, dict):
        given = value.get("message_id")
        if isinstance(given, str) and given:
            return id_of(given)
    return f"{request.request_id}#{index}" if request.request_id else request.new_id()
