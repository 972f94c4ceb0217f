"""What a connector is, and how a run of it is written: as messages of the Airbyte protocol, one per line.

A connector says which parameters it takes and which streams it reads; everything else is the same for all. It is an
entry point of the group `counterfoil.connectors`, and runs where it may reach its source, which ingest may not.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

STATE_EVERY = 1_000
"""Records between two states: what is read again at the most when a run breaks off."""
_MOST_ID = 230  # characters, so that with the digest they are fewer than the 255 that ingest takes
_MOST_TOLD = 500  # characters of a source's own words


class SourceError(Exception):
    """The source cannot be read now; the message says what to do and holds no secret."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a connector is told; without a `default` a run needs it. A secret never stands on a command line."""

    name: str
    description: str
    default: str | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a stream.

    With a `record_id`, its key and version, it is kept once, however often it is read with the same content. With a
    `cursor`, any JSON but null, the next run goes on from there: give one only when every record before it was read.
    """

    data: Mapping[str, Any]
    record_id: str | None = None
    cursor: Any = None


@dataclass(frozen=True, slots=True)
class Stream:
    """The records of one dataset; `read` yields those since a cursor, of all when it is None; it raises SourceError."""

    name: str
    read: Callable[[Any], Iterator[Record]]


@dataclass(frozen=True, slots=True)
class Connector:
    """A kind of source; `streams` opens it as the parameters say."""

    parameters: Sequence[Parameter]
    streams: Callable[[Mapping[str, str]], Sequence[Stream]]

    def settled(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return every parameter's value; raise ValueError for one that is unknown or missing."""
        known = {each.name: each for each in self.parameters}
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"There is no parameter `{unknown[0]}`. There are: {', '.join(known)}.")
        defaults = {name: each.default for name, each in known.items() if each.default is not None}
        values = defaults | {name: value for name, value in given.items() if value}
        if missing := [each for name, each in known.items() if name not in values]:
            raise ValueError(f"`{missing[0].name}` is missing: {missing[0].description}")
        return values

    def messages(self, given: Mapping[str, str], *, state: str, emitted_at: int) -> Iterator[bytes]:
        """Yield a run's messages as lines, from a `state` as an import told it; what goes wrong is the last of them.

        `emitted_at` is in milliseconds since 1970; raises ValueError as `settled` does.
        """
        values = self.settled(given)
        secrets = [values[each.name] for each in self.parameters if each.secret and values[each.name]]
        cursors = _cursors(state)
        try:
            for stream in self.streams(values):
                yield from _run(stream, cursors.get(stream.name), emitted_at=emitted_at)
        except SourceError as error:
            told = {"message": _without(str(error), secrets)[:_MOST_TOLD], "failure_type": "system_error"}
            yield _line("TRACE", trace={"type": "ERROR", "emitted_at": emitted_at, "error": told})


def name_of(*parts: Any) -> str:
    """Return a record id made of key and version, whatever their length."""
    text = orjson.dumps(parts, default=json_value).decode()
    return text if len(text) <= _MOST_ID else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def json_value(value: Any) -> Any:
    """Return what JSON has for a value that it does not know; a number keeps every digit."""
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _run(stream: Stream, cursor: Any, *, emitted_at: int) -> Iterator[bytes]:
    told = cursor
    for number, record in enumerate(stream.read(cursor), 1):
        data = _json(record.data)
        body = {"stream": stream.name, "data": orjson.Fragment(data), "emitted_at": emitted_at}
        if record.record_id is not None:
            # A source may change an object and not its version, or be asked for more of it: that is another record.
            body["record_id"] = f"{record.record_id}~{hashlib.sha256(data).hexdigest()[:16]}"
        yield _line("RECORD", record=body)
        cursor = cursor if record.cursor is None else record.cursor
        if number % STATE_EVERY == 0 and cursor != told:
            told = cursor
            yield _state(stream.name, told)
    if cursor != told:
        yield _state(stream.name, cursor)


def _state(stream: str, cursor: Any) -> bytes:
    descriptor = {"stream_descriptor": {"name": stream}, "stream_state": {"cursor": cursor}}
    return _line("STATE", state={"type": "STREAM", "stream": descriptor})


def _cursors(state: str) -> dict[str, Any]:
    found = {}
    for each in orjson.loads(state) if state else ():
        stream = each.get("stream") or {}
        found[stream.get("stream_descriptor", {}).get("name")] = (stream.get("stream_state") or {}).get("cursor")
    return found


def _line(kind: str, **members: Any) -> bytes:
    return _json({"type": kind} | members) + b"\n"


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=json_value, option=orjson.OPT_UTC_Z)
    except TypeError:  # half a surrogate pair: ingest puts that record into quarantine, and takes its neighbours
        return json.dumps(value, default=str, separators=(",", ":")).encode()


def _without(text: str, secrets: Iterable[str]) -> str:
    for each in secrets:
        text = text.replace(each, "***")
    return text
