"""One binding, ready to serve: HTTP request to message bytes, message bytes to HTTP answer.

All that can be worked out at start is worked out in the constructor, the field rules are compiled there too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl

import orjson
import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from counterfoil_gateway.api import Binding, Method, variables
from counterfoil_gateway.asgi import Fields, Reply
from counterfoil_gateway.bodies import JSON, MERGE_PATCH, media_type, parse
from counterfoil_gateway.fields import descriptor, raw_field, raw_media_types
from counterfoil_gateway.problems import C, Problem, bad_request
from counterfoil_gateway.read import Reader
from counterfoil_gateway.values import Fault, Faults
from counterfoil_gateway.write import Writers

_TAG = re.compile(r"[!#-~]{1,200}")
"""What may stand inside a quoted ETag; anything else could break the header line."""
_OFFSET_DIGITS = 15
"""What stays a number in every reader."""
_JSON_FIELDS: Fields = [(b"content-type", JSON.encode())]


@dataclass(frozen=True)
class Arrived:
    """One request, as far as HTTP is understood."""

    found: Mapping[str, str]
    """Path variables, decoded, by field path."""
    query: bytes
    body: bytes
    headers: Mapping[bytes, bytes]


class Transcoder:
    """Turns the requests of one binding into messages and the answers into JSON."""

    def __init__(self, method: Method, binding: Binding, *, reader: Reader, writers: Writers) -> None:
        self.method = method
        self.binding = binding
        self._reader = reader
        self.write = writers.of(descriptor(method.output))
        inside = descriptor(method.input)
        named = variables(binding.segments)
        self._field = binding.body if binding.body not in ("", "*") else ""
        self._closed = frozenset(named) | ({self._field} if self._field else frozenset())
        self._inner = frozenset(n.split(".", 1)[1] for n in named if self._field and n.startswith(self._field + "."))
        self._raw = raw_field(inside) if binding.body == "*" else None
        self._raw_types = raw_media_types(self._raw) if self._raw else ()
        self._takes_request_id = "request_id" in inside.fields_by_name
        self._takes_etag = "etag" in inside.fields_by_name
        self._masked = binding.verb == "PATCH" and "update_mask" in inside.fields_by_name
        self._gives_etag = "etag" in method.output.DESCRIPTOR.fields_by_name
        self._follows = method.follows
        self._item = next((f.name for f in descriptor(method.output).fields if f.message_type), "")
        self._empty = method.output.DESCRIPTOR.full_name == "google.protobuf.Empty"
        protovalidate.collect_violations(method.input())  # compiles the rules now, not on the first request

    def request(self, arrived: Arrived) -> bytes:
        """Return the message's bytes; raise Problem with every fault."""
        message = self.method.input()
        faults = Faults()
        value, raw = self._body(message, arrived, faults) if self.binding.body else ({}, False)
        for name, text in arrived.found.items():
            self._reader.from_text(message, name, [text], faults)
        self._query(message, arrived.query, raw=raw, faults=faults)
        self._headers(message, arrived.headers, faults)
        if faults.found:
            raise bad_request(faults.found)
        if self._masked and not cast("Any", message).update_mask.paths:
            inside = getattr(message, self._field).DESCRIPTOR
            cast("Any", message).update_mask.paths.extend(self._reader.implied_mask(value, inside))
        violations = protovalidate.collect_violations(message)
        if violations:
            raise bad_request([self._violation(v) for v in violations])
        return message.SerializeToString()

    def _body(self, message: Message, arrived: Arrived, faults: Faults) -> tuple[Any, bool]:
        """Read the body into the message; return the JSON value, and whether the body was taken as it came."""
        kind = media_type(arrived.headers)
        if self._raw is not None and kind in self._raw_types:
            _set_whole(message, self._raw, arrived.body, faults)
            return {}, True
        if kind not in (JSON, MERGE_PATCH):
            allowed = ", ".join((JSON, *(t for t in self._raw_types if t != JSON)))
            raise Problem(C.INVALID_ARGUMENT, f"send {allowed}", "UNSUPPORTED_MEDIA_TYPE", http=415)
        if self._field and not arrived.body:
            raise bad_request([Fault("", "required", f"send {self._field} as JSON in the body")])
        value = parse(arrived.body) if arrived.body else {}
        if not self._field:
            self._reader.read(message, value, faults, skip=self._closed)
            return value, False
        target = getattr(message, self._field)
        target.SetInParent()
        self._reader.read(target, value, faults, skip=self._inner, nulls=self._masked)
        return value, False

    def _query(self, message: Message, query: bytes, *, raw: bool, faults: Faults) -> None:
        if not query:
            return
        grouped: dict[str, list[str]] = {}
        for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            grouped.setdefault(name, []).append(text)
        if self.binding.body == "*" and not raw:
            for name in grouped:
                faults.add(name, "unknown_parameter", "this method takes its fields in the body")
            return
        closed = self._closed | {self._raw.name} if raw and self._raw else self._closed
        for name, texts in grouped.items():
            self._reader.from_text(message, name, texts, faults, closed=closed)

    def _headers(self, message: Any, headers: Mapping[bytes, bytes], faults: Faults) -> None:
        """Take the headers that stand for fields: Idempotency-Key, If-Match and Last-Event-ID."""
        if self._takes_request_id and (key := headers.get(b"idempotency-key", b"").decode("latin-1")):
            if message.request_id not in ("", key):
                faults.add("request_id", "conflict", "is not the Idempotency-Key; give one of them")
            message.request_id = key
        if self._takes_etag and not message.etag and (tag := headers.get(b"if-match", b"*").decode("latin-1")) != "*":
            message.etag = _bare(tag)

        if self._follows and (last := headers.get(b"last-event-id", b"").decode("latin-1")):
            if last.isascii() and last.isdigit() and len(last) <= _OFFSET_DIGITS:
                message.from_offset = int(last)  # it tells what the reader has got, the query where it began
            else:
                faults.add("Last-Event-ID", "format", "must be an id that this stream gave")

    def _violation(self, violation: Any) -> Fault:
        """Return a broken field rule, its path as the caller wrote it: without the field that is the body."""
        path = ""
        for element in violation.proto.field.elements if violation.proto.field else ():
            path += ("." if path else "") + element.field_name
            if element.subscript is not None and element.subscript.field:
                path += f"[{element.subscript.value!r}]"
        return Fault(path.removeprefix(self.binding.body + "."), violation.proto.rule_id, violation.proto.message)

    def reply(self, raw: bytes, headers: Mapping[bytes, bytes]) -> Reply:
        """Return the whole answer for a message's bytes: 200, 204 for Empty, 304 when the caller has it already."""
        if self._empty:
            return Reply(204)
        message: Any = self.method.output.FromString(raw)
        fields = _JSON_FIELDS
        if self._gives_etag and _TAG.fullmatch(message.etag):
            fields = [*_JSON_FIELDS, (b"etag", f'"{message.etag}"'.encode())]
            if self.binding.verb == "GET" and message.etag in _tags(headers.get(b"if-none-match", b"")):
                return Reply(304, fields=fields[1:])
        return Reply(200, self.text(message), fields)

    def text(self, message: Message) -> bytes:
        """Return one message as JSON."""
        return orjson.dumps(self.write(message))

    def event(self, message: Any) -> bytes:
        """Return one message as a server-sent event (HTML, section 9.2).

        Where a stream can be taken up again, an event is named after what it brings and its id is the offset to go on
        at; a message that brings nothing is a comment, whose id moves the reader on all the same.
        """
        if not self._follows:
            return b"data: " + self.text(message) + b"\n\n"
        place = f"id: {message.next_offset}\n".encode()
        if not message.HasField(self._item):
            return b": nothing new\n" + place + b"\n"
        return b"event: " + self._item.encode() + b"\n" + place + b"data: " + self.text(message) + b"\n\n"


def _set_whole(message: Message, field: FieldDescriptor, body: bytes, faults: Faults) -> None:
    if field.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, field.name, body)
        return
    try:
        setattr(message, field.name, body.decode("utf-8"))
    except UnicodeDecodeError as error:
        faults.add(field.name, "type", f"must be valid UTF-8; it is not at byte {error.start}")


def _bare(tag: str) -> str:
    return tag.strip().removeprefix("W/").strip('"')


def _tags(header: bytes) -> Iterable[str]:
    return [_bare(tag) for tag in header.decode("latin-1").split(",")] if header else ()
