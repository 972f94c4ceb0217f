"""The Snowplow tracker protocol: `payload_data` posted as JSON (tp2), and one event in a query string (`/i`).

An event becomes a record of the shipped contract `events`. A page view is a `page`, a screen view a `screen`, all else
a `track`: a self-describing event is named by its schema and its data are the properties; a structured event is named
by its action. What has no place in that form stays under its own name in `context.snowplow`, so nothing is dropped.
`timestamp` is when it happened (`dtm`, or `ttm` of a tracker that is sure), `sent_at` when it was sent (`stm`), and
what `landing` adds is added. Source: Snowplow Tracker Protocol, with what the public trackers send.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from counterfoil_ingest.entities import Candidate, Finding
from counterfoil_ingest.protocols import Request
from counterfoil_ingest.protocols.body import Unreadable, elements, id_of, member, not_json, parse_each, too_many
from counterfoil_ingest.protocols.landing import land, written
from counterfoil_ingest.validation import nests_too_deep, not_an_object, too_deep, too_large

MAX_EVENTS: Final = 5_000
"""Of one request."""

WRITE_KEY: Final = "cfw_"
CUT: Final = "cut"
"""The route of the beginning of a body that was too large to take."""

_LONGEST_DIGITS = 15
_SCHEMA = re.compile(r"iglu:[^/]+/([^/]+)/[^/]+/[0-9-]+")
_TYPES = {"pv": "page", "pp": "track", "se": "track", "ue": "track", "tr": "track", "ti": "track"}
_NAMES = {"pp": "page_ping", "tr": "transaction", "ti": "transaction_item"}
_PROPERTIES: Mapping[str, Mapping[str, str]] = {
    "se": {"se_ca": "category", "se_ac": "action", "se_la": "label", "se_pr": "property", "se_va": "value"},
    "pp": {"pp_mix": "min_x", "pp_max": "max_x", "pp_miy": "min_y", "pp_may": "max_y"},
    "tr": {
        "tr_id": "order_id",
        "tr_af": "affiliation",
        "tr_tt": "total",
        "tr_tx": "tax",
        "tr_sh": "shipping",
        "tr_ci": "city",
        "tr_st": "state",
        "tr_co": "country",
        "tr_cu": "currency",
    },
    "ti": {
        "ti_id": "order_id",
        "ti_sk": "sku",
        "ti_nm": "name",
        "ti_ca": "category",
        "ti_pr": "price",
        "ti_qu": "quantity",
        "ti_cu": "currency",
    },
}
_NUMBERS = frozenset({"se_va", "tr_tt", "tr_tx", "tr_sh", "ti_pr", "ti_qu", *_PROPERTIES["pp"]})
_CONTEXT: Mapping[str, tuple[str, ...]] = {
    "ip": ("ip",),
    "ua": ("userAgent",),
    "lang": ("locale",),
    "tz": ("timezone",),
    "p": ("platform",),
    "url": ("page", "url"),
    "page": ("page", "title"),
    "refr": ("page", "referrer"),
    "tv": ("library", "name"),
    "tna": ("app", "namespace"),
    "aid": ("app", "name"),
    "sid": ("session", "id"),
    "vid": ("session", "index"),
}
"""Where of the record's context a parameter goes."""


def parse(body: bytes, request: Request) -> list[Candidate]:
    """Return the events of a posted payload, or of the query string that is the body of the route `i`."""
    if request.route == CUT:
        return [Candidate(request.new_id(), "", body, None, (too_large(),))]
    if request.route == "i":
        query = body.decode("utf-8", "replace")
        return [_candidate(dict(parse_qsl(query, keep_blank_values=True)), request)]
    try:
        return _candidates(_read(body), request)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:  # or one of them is deeper than can be written
        return _candidates(_read_parts(body, error), request)


def _candidates(events: list[Any], request: Request) -> list[Candidate]:
    if len(events) > MAX_EVENTS:
        raise too_many(MAX_EVENTS)
    return [_candidate(event, request) for event in events]


def _read(body: bytes) -> list[Any]:
    whole = orjson.loads(body)
    data = whole.get("data") if isinstance(whole, dict) else None
    return data if isinstance(data, list) else [whole]


def _read_parts(body: bytes, error: Exception) -> list[Any]:
    """Read a payload event by event that does not parse as a whole, so that one bad event costs no other."""
    place = member(body, b"data")
    texts = elements(body[slice(*place)] if place else b"[" + body + b"]")
    if texts is None or not (place or body.lstrip().startswith(b"{")):
        raise not_json(error) from error
    return parse_each(texts)


def _candidate(event: Any, request: Request) -> Candidate:
    if isinstance(event, Unreadable):
        return event.candidate(request.new_id(), "")
    if not isinstance(event, dict):
        return Candidate(request.new_id(), "", orjson.dumps(event), event, (not_an_object(),))
    if str(event.get("aid", "")).startswith(WRITE_KEY):
        del event["aid"]
    event.pop("writeKey", None)
    given = event.get("eid")
    record_id = id_of(given) if isinstance(given, str) and given else request.new_id()
    made = _Record(event, request)
    made.record["message_id"] = given if isinstance(given, str) and given else record_id
    type_, name = (str(made.record.get(each) or "") for each in ("type", "event"))
    dataset = request.dataset_of(type_, name)
    return Candidate(record_id, dataset, orjson.dumps(made.record), made.record, tuple(made.findings), event)


class _Record:
    """The record of one event; what could not be read becomes a finding and stays as it was sent."""

    def __init__(self, event: Mapping[str, Any], request: Request) -> None:
        self.findings: list[Finding] = []
        self.record: dict[str, Any] = {"message_id": "", "type": ""}
        self._rest = {name: value for name, value in event.items() if name != "eid"}
        self._context: dict[str, Any] = {}
        self._describe(self._take("e"))
        self._identify(contexts := self._contexts())
        self._time(request.received_at)
        for name, place in _CONTEXT.items():
            self._put(place, self._take(name))
        self._screen(self._take("res"))
        own = self._rest | ({"contexts": contexts} if contexts else {})
        self.record["context"] = self._context | ({"snowplow": own} if own else {})
        land(self.record, request.received_at)

    def _take(self, name: str) -> Any:
        return self._rest.pop(name, None)

    def _put(self, place: tuple[str, ...], value: Any) -> None:
        if value is None:
            return
        inside = self._context
        for name in place[:-1]:
            inside = inside.setdefault(name, {})
        inside[place[-1]] = value

    def _describe(self, kind: Any) -> None:
        """Set type, name and properties."""
        stated, kind = kind, kind if isinstance(kind, str) else ""
        self.record["type"] = _TYPES.get(kind, stated)
        if kind == "pv":
            self.record["event"] = self._rest.get("page")
        elif kind == "ue":
            self._self_describing()
        else:
            self.record["event"] = self._rest.get("se_ac") if kind == "se" else _NAMES.get(kind)
            names = {name: to for name, to in _PROPERTIES.get(kind, {}).items() if name in self._rest}
            self.record["properties"] = {to: _number_if(name, self._take(name)) for name, to in names.items()}
        if self.record["event"] is None:
            del self.record["event"]

    def _self_describing(self) -> None:
        described = _inner(self._json("ue_pr", "ue_px"))
        schema = described.get("schema") if isinstance(described, dict) else None
        match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
        if match is None:
            if not self.findings:
                text = "A self-describing event names its schema: {schema: iglu:vendor/name/format/version, data: {}}."
                self.findings.append(Finding("NO_SCHEMA", "$.ue_pr", text))
            self.record["event"] = None
            return
        data = described.get("data")
        name = match[1]
        if name == "screen_view" and isinstance(data, dict):
            self.record["type"], name = "screen", data.get("name")
        self.record["event"] = name
        self.record["properties"] = data
        self._rest["schema"] = schema

    def _json(self, plain: str, encoded: str) -> Any:
        """Return the JSON of a parameter, or of its base64 twin; None when there is neither, or it cannot be read."""
        for name in (plain, encoded):
            if name not in self._rest:
                continue
            try:
                text = _base64(self._rest[name]) if name == encoded else self._rest[name].encode()
                value = orjson.loads(text)
            except (orjson.JSONDecodeError, binascii.Error, UnicodeEncodeError, AttributeError):
                self.findings.append(Finding("BAD_JSON", f"$.{name}", f"`{name}` is not JSON; send what it holds."))
                return None
            if nests_too_deep(text, value):
                self.findings.append(too_deep())
                return None
            del self._rest[name]
            return value
        return None

    def _contexts(self) -> list[Any]:
        attached = _inner(self._json("co", "cx"), of_list=True)
        return attached if isinstance(attached, list) else []

    def _identify(self, contexts: list[Any]) -> None:
        """Set who it was: the account's id, and the first of the ids that name a device or browser."""
        session = _data_of(contexts, "client_session")
        self._put(("session", "id"), session.get("sessionId"))
        self._put(("session", "index"), session.get("sessionIndex"))
        self._put(("page", "id"), _data_of(contexts, "web_page").get("id"))
        ids = (self._take("duid"), session.get("userId"), self._take("nuid"), self._take("tnuid"))
        told = [each for each in ids if each]
        for name, value in (("user_id", self._take("uid")), ("anonymous_id", told[0] if told else None)):
            if value is not None:
                self.record[name] = str(value) if type(value) is int else value
        if others := [each for each in told[1:] if each != told[0]]:
            self._rest["other_device_ids"] = others

    def _time(self, received_at: int) -> None:
        """Set when it happened, and when it was sent where that may tell how the tracker's clock goes."""
        sure, created, sent = self._rest.get("ttm"), self._rest.get("dtm"), self._rest.get("stm")
        stated = created if sure is None else sure
        happened = _milliseconds(stated)
        if happened is not None:
            self.record["timestamp"] = _text(happened)
        else:
            self.record["timestamp"] = _text(received_at // 1_000) if stated is None else stated
        if sure is None and (left := _milliseconds(sent)) is not None:
            self.record["sent_at"] = _text(left)

    def _screen(self, size: Any) -> None:
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size) if isinstance(size, str) else None
        if match:
            self._context["screen"] = {"width": int(match[1]), "height": int(match[2])}
        elif size is not None:
            self._rest["res"] = size


def _inner(value: Any, *, of_list: bool = False) -> Any:
    """Return what a wrapper `{schema: ..., data: ...}` holds."""
    data = value.get("data") if isinstance(value, dict) else None
    return data if isinstance(data, list if of_list else dict) else None


def _data_of(contexts: list[Any], name: str) -> Mapping[str, Any]:
    """Return the data of the first attached context of that name."""
    for each in contexts:
        schema = each.get("schema") if isinstance(each, dict) else None
        match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
        if match and match[1] == name and isinstance(each.get("data"), dict):
            return each["data"]  # type: ignore[no-any-return]
    return {}


def _base64(text: str) -> bytes:
    standard = text.encode("ascii").translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)


def _milliseconds(value: Any) -> int | None:
    """Return a moment in milliseconds since 1970, of a year that can be written; None when it is none."""
    text = str(value) if type(value) in (int, str) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_DIGITS):
        return None
    return int(text) if int(text) < 253_402_300_800_000 else None


def _text(milliseconds: int) -> str:
    return written(milliseconds * 1_000)


def _number_if(name: str, value: Any) -> Any:
    """Return a parameter that is a number as one; trackers send every value as text."""
    if name not in _NUMBERS or not isinstance(value, str):
        return value
    try:
        number = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return number if type(number) in (int, float) else value
