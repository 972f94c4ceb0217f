"""Segment batches as columns: what most batches need, at a fraction of the cost of a dictionary for each event.

Objects such as `properties` stay the text that was sent: checked to be JSON, never made into Python values. A batch
that needs more than this knows is left to `segment.parse`; the records of both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, compress
from typing import Annotated, Any, Literal, cast, get_args

import msgspec
import numpy as np
import orjson

from counterfoil_ingest.entities import MAX_RECORD_BYTES, Columns
from counterfoil_ingest.protocols import Request, landing
from counterfoil_ingest.protocols.body import MAX_ID, is_utf8, read_alike

MAX_EVENTS = 5_000
"""Of one batch."""

IMPORT = "import"
"""The route of batches of the past: their times are not corrected."""

_EMPTY = (b"{}", b"null")
_UNSET = msgspec.UNSET

Type = Literal["track", "page", "screen", "identify", "group", "alias"]
Text = str | None
Object = msgspec.Raw | msgspec.UnsetType


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as it is sent. Another key than these, or another type of value, makes its batch an unusual one."""

    messageId: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]  # noqa: N815  (the protocol's names)
    type: Type
    event: Text = None
    userId: Text = None  # noqa: N815
    anonymousId: Text = None  # noqa: N815
    groupId: Text = None  # noqa: N815
    previousId: Text = None  # noqa: N815
    timestamp: Text = None
    originalTimestamp: Text = None  # noqa: N815
    sentAt: Text = None  # noqa: N815
    name: Text = None
    category: Text = None
    channel: Text = None
    properties: Object = _UNSET
    context: Object = _UNSET
    traits: Object = _UNSET
    integrations: Object = _UNSET


class _Single(_Event, forbid_unknown_fields=True, gc=False):
    """The same where the route may say the type."""

    type: Type | None = None  # type: ignore[assignment]  # msgspec takes it in the place of the other


class _Record(msgspec.Struct, omit_defaults=True, gc=False):
    """The same as a record, field for field in the same order: the columns of the one are those of the other."""

    message_id: str
    type: str
    event: Text = None
    user_id: Text = None
    anonymous_id: Text = None
    group_id: Text = None
    previous_id: Text = None
    timestamp: Text = None
    original_timestamp: Text = None
    sent_at: Text = None
    name: Text = None
    category: Text = None
    channel: Text = None
    properties: Object = _UNSET
    context: Object = _UNSET
    traits: Object = _UNSET
    integrations: Object = _UNSET


class _Stated(msgspec.Struct, gc=False):
    """What an order says that it brought."""

    revenue: Any = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A batch; another key than these makes it an unusual one, since what is skipped is not read as others read it."""

    batch: list[_Event]
    sentAt: Text = None  # noqa: N815
    context: Object = _UNSET
    integrations: Object = _UNSET
    writeKey: Any = None  # noqa: N815
    timestamp: Any = None
    messageId: Any = None  # noqa: N815
    sequence: Any = None


_NAMES = _Record.__struct_fields__
_OBJECTS = ("properties", "context", "traits", "integrations")
_TEXTS = tuple(name for name in _NAMES if name not in _OBJECTS)
_ROUTES = frozenset(get_args(Type))
_LONGER = 64
"""Bytes by which an event may grow as a record: names in snake case, and its type."""
_decoder = msgspec.json.Decoder(_Batch)
_single_decoder = msgspec.json.Decoder(_Single)
_stated_decoder = msgspec.json.Decoder(list[_Stated])
_LANDINGS = ("page", "screen")
_A_DAY = 86_400_000_000


def _form(template: str) -> tuple[list[int], Any, int]:
    """Return where which signs stand in a form of times, and how long the part is that differs."""
    places = [place for place, sign in enumerate(template) if sign != "?"]
    return places, np.frombuffer(template.replace("?", "").encode(), np.uint8), template.rindex("?") + 1


_SECONDS = "????-??-??T??:??:??"
_FORMS = {len(each): _form(each) for each in (_SECONDS + "Z", _SECONDS + ".???Z", _SECONDS + ".??????+00:00")}
"""How SDKs write times in UTC, by length."""


def columns(body: bytes, request: Request) -> Columns | None:
    """Return the events of a body as columns; None when it has to be parsed event by event."""
    if request.route not in ("batch", IMPORT) or b"\n" in body or not is_utf8(body):
        return None
    try:
        batch = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):  # it is no JSON, or unusual, or nests a thousand levels
        return None
    # What the batch says is said by every record of it, each of its characters as six where it has to be escaped.
    size = len(body) + len(batch.batch) * 6 * len(batch.sentAt or "")
    shares = any(each is not _UNSET and bytes(each) not in _EMPTY for each in (batch.context, batch.integrations))
    if shares or not 0 < len(batch.batch) <= MAX_EVENTS or size > MAX_RECORD_BYTES:
        return None
    return _columns(batch.batch, request, size=size, sent_at=batch.sentAt, arrived=(request.received_at,))


def singles(bodies: Sequence[bytes], request: Request, arrived: Sequence[int]) -> tuple[list[int], Columns] | None:
    """Return those of the bodies that hold one usual event each, by their indexes, and these events as columns.

    `arrived` is when each did. None when there is none, or when all have to be parsed one by one.
    """
    if request.route not in _ROUTES:
        return None
    found = [(index, event) for index, body in enumerate(bodies) if (event := _single(body, request.route)) is not None]
    if not found:
        return None
    taken, events = [index for index, _ in found], [event for _, event in found]
    size, times = sum(len(bodies[index]) + _LONGER for index in taken), [arrived[index] for index in taken]
    columns = _columns(events, request, size=size, sent_at=None, arrived=times)
    return None if columns is None else (taken, columns)


def _single(body: bytes, route: str) -> _Single | None:
    """Return the event of a body; None when it has to be parsed by itself."""
    if b"\n" in body or not is_utf8(body) or len(body) + _LONGER > MAX_RECORD_BYTES:
        return None
    try:
        event = _single_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if event.type is None:
        event.type = cast("Type", route)
    timed = event.timestamp is not None or event.originalTimestamp
    return event if timed and _has_its_traits(event.type, event.traits, event.context) else None


def _columns(
    events: Sequence[_Event], request: Request, *, size: int, sent_at: str | None, arrived: Sequence[int]
) -> Columns | None:
    """Return usual events as columns; `arrived` is when, each or all of them."""
    every = map(list, zip(*map(msgspec.structs.astuple, events), strict=True))
    by_name: dict[str, list[Any]] = dict(zip(_NAMES, every, strict=True))
    objects = _objects(by_name)
    told = read_alike(chain.from_iterable(objects.values()))
    if told is None or not _complete(by_name, sent_at):
        return None
    dataset = request.only_dataset() or _one_dataset(by_name, request)
    if not dataset:
        return None
    lacking = _lacking(by_name, told, arrived, corrects=request.route != IMPORT)
    if lacking:
        grown = _land(by_name, sorted(lacking), arrived, corrects=request.route != IMPORT)
        if grown is None or size + grown > MAX_RECORD_BYTES:
            return None
        size += grown
        objects = _objects(by_name)
    return Columns(
        dataset=dataset,
        ids=by_name["message_id"],
        records=list(map(_Record, *by_name.values())),
        size=size,
        texts={name: by_name[name] for name in _TEXTS if any(by_name[name])},
        objects=objects,
    )


def _one_dataset(by_name: dict[str, list[Any]], request: Request) -> str:
    """Return the dataset of all events; "" when they are not of one."""
    kinds = set(zip(by_name["type"], by_name["event"], strict=True))
    datasets = {request.dataset_of(type_, event or "") for type_, event in kinds}
    return datasets.pop() if len(datasets) == 1 else ""


def _objects(by_name: dict[str, list[Any]]) -> dict[str, list[msgspec.Raw]]:
    return {name: found for name in _OBJECTS if (found := _present(by_name[name]))}


def _lacking(by_name: dict[str, list[Any]], told: bytes, arrived: Sequence[int], *, corrects: bool) -> set[int]:
    """Return the indexes of events that `landing.land` may have something to add to; `told` are all their objects."""
    found: set[int] = set()
    if corrects:
        found.update(_by_another_clock(by_name, min(arrived), max(arrived)))
    if landing.may_have_parameters(told):
        places = enumerate(zip(by_name["type"], by_name["context"], by_name["properties"], strict=True))
        found.update(
            index
            for index, (type_, context, properties) in places
            if _may_name_a_click(context) or (type_ in _LANDINGS and _may_name_a_click(properties))
        )
    if not landing.ORDERS.isdisjoint(by_name["event"]):
        found.update(_without_revenue(by_name["event"], by_name["properties"]))
    return found


def _without_revenue(events: Sequence[str | None], properties: Sequence[Any]) -> list[int]:
    """Return the indexes of the orders that do not state what they bring."""
    are_orders: list[bool] = list(map(landing.ORDERS.__contains__, events))
    if not all(properties):
        are_orders = [each and told is not _UNSET for each, told in zip(are_orders, properties, strict=True)]
    stated = _stated_decoder.decode(b"[%b]" % b",".join(compress(properties, are_orders)))
    orders = compress(range(len(events)), are_orders)
    return [index for index, each in zip(orders, stated, strict=True) if each.revenue is None]


def _by_another_clock(by_name: dict[str, list[Any]], first: int, last: int) -> list[int]:
    """Return the indexes of events whose time may have to be corrected; they arrived between `first` and `last`."""
    sent, times = by_name["sent_at"], by_name["timestamp"]
    ends = {first, last}
    apart = {each for each in set(sent) for end in ends if landing.differs(each, end)}
    found = [index for index, each in enumerate(sent) if each in apart] if apart else []
    # A text of a time that is not past begins with a day that is not: no zone is further away.
    today, latest = _begin(first // _A_DAY - 1), first + landing.TOLERANCE
    newest = max(times)
    if newest >= today and not _are_past(times, newest, latest):
        recent = [(index, landing.moment(each)) for index, each in enumerate(times) if each >= today]
        found += [index for index, each in recent if each is not None and each > latest]
    return found


@lru_cache(maxsize=16)
def _begin(day: int) -> str:
    """Return the text of the time at which a day begins."""
    return landing.written(day * _A_DAY)


def _are_past(times: Sequence[str], newest: str, latest: int) -> bool:
    """Tell whether it is sure that no time is later than `latest`: texts in one of the usual forms sort as times do."""
    form = _FORMS.get(len(newest))
    text = "".join(times)
    if form is None or len(text) != len(newest) * len(times) or not text.isascii():
        return False
    places, signs, digits = form
    texts = np.frombuffer(text.encode(), np.uint8).reshape(len(times), len(newest))
    usual = bool((texts[:, places] == signs).all())
    return usual and newest[:digits] <= (landing.written(latest // 1_000 * 1_000)[:-1] + "000")[:digits]


def _may_name_a_click(value: Object) -> bool:
    return value is not _UNSET and landing.may_name_a_click(bytes(value))


def _land(
    by_name: dict[str, list[Any]], indexes: Sequence[int], arrived: Sequence[int], *, corrects: bool
) -> int | None:
    """Complete some events; return by how many bytes they have grown, None when one needs another column for it."""
    grown = 0
    for index in indexes:
        record = {name: values[index] for name, values in by_name.items() if values[index] not in (None, _UNSET)}
        sent: dict[str, Any] = {}
        sent.update((name, orjson.loads(bytes(record[name]))) for name in ("context", "properties") if name in record)
        record.update(sent)
        landing.land(record, arrived[index if len(arrived) > 1 else 0], corrects=corrects)
        if "original_timestamp_" in record:
            return None
        for name in ("timestamp", "original_timestamp"):
            by_name[name][index] = record.get(name)
        for name in ("context", "properties"):
            if record.get(name) is not sent.get(name):
                text = orjson.dumps(record[name])
                grown += len(text)
                by_name[name][index] = msgspec.Raw(text)
        grown += _LONGER
    return grown


def _present(values: list[Any]) -> list[msgspec.Raw]:
    return values if all(values) else [each for each in values if each is not _UNSET]  # which is falsy, as no text is


def _complete(by_name: dict[str, list[Any]], sent_at: str | None) -> bool:
    """Give records what events leave out or say elsewhere; return whether all that could be done here."""
    types = set(by_name["type"])
    if types & {"page", "screen"}:
        _name_pages(by_name)
    if "identify" in types and not all(map(_has_its_traits, by_name["type"], by_name["traits"], by_name["context"])):
        return False
    if not all(by_name["timestamp"]) and not _take_original_times(by_name):
        return False
    if sent_at is not None:
        by_name["sent_at"] = [sent_at if each is None else each for each in by_name["sent_at"]]
    return True


def _name_pages(by_name: dict[str, list[Any]]) -> None:
    names, events = by_name["name"], by_name["event"]
    for index, type_ in enumerate(by_name["type"]):
        if type_ in ("page", "screen") and events[index] is None:
            events[index], names[index] = names[index], None


def _has_its_traits(type_: str, traits: Object, context: Object) -> bool:
    """Tell whether it is sure that no traits are to be taken out of the context."""
    if type_ != "identify" or traits is not _UNSET or context is _UNSET:
        return True
    text = bytes(context)
    return b"traits" not in text and b"\\" not in text


def _take_original_times(by_name: dict[str, list[Any]]) -> bool:
    times, original = by_name["timestamp"], by_name["original_timestamp"]
    for index, time in enumerate(times):
        if time is None:
            times[index], original[index] = original[index], None
    return all(times)
