"""Batches as columns: the same records as event by event, or left to it; never a record that readers would refuse."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import orjson
import pytest
from counterfoil_ingest.entities import MAX_DEPTH, Columns, SourceMapping
from counterfoil_ingest.protocols import Request, body, segment
from counterfoil_ingest.registry import validator_of
from counterfoil_ingest.validation import deeper_than
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ingest.ingest_records import EVENTS_SCHEMA

RECEIVED_AT = 1_767_323_045_000_000
EVENT = {"type": "track", "event": "Seen", "messageId": "m1", "userId": "ada", "timestamp": "2026-01-02T03:04:05Z"}


def request(*mappings: SourceMapping, route: str = "batch") -> Request:
    numbers = itertools.count()
    everything = (SourceMapping("", "", "events"),)
    return Request(route, "", "", RECEIVED_AT, mappings or everything, lambda: f"new-{next(numbers)}")


def columns(body: bytes, *mappings: SourceMapping) -> Columns | None:
    return segment.columns(body, request(*mappings))


def batch(*events: Any, **envelope: Any) -> bytes:
    return orjson.dumps({"batch": events, **envelope})


def records(found: Columns) -> list[Any]:
    return [orjson.loads(msgspec.json.encode(each)) for each in found.records]


TIMES = st.sampled_from(
    [
        *("2026-01-02T03:04:05Z", "2026-01-02T03:04:09.999Z", "2026-01-02T03:04:11.000Z", "2026-01-01T20:00:00-09:00"),
        *("2026-01-02T05:00:00.123456+00:00", "2025-12-31T23:59:59.000Z", "2026-01-03T01:00:00+14:00", "2027-01-01"),
        *("2026-01-02T02:04:05Z", "2026-01-02 09:04:05Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"),
    ]
)
TEXTS = st.one_of(st.none(), st.text(max_size=5), st.sampled_from(["x" * 300, "7", "Order Completed"]), TIMES)
PAGES = st.sampled_from(
    [
        *(
            {"url": "https://a.test/?utm_source=x&gclid=1"},
            {"url": "https://a.test/", "search": "?fbclid=2"},
            "page",
            {},
        ),
        *({"url": "https://a.test/?q=1"}, {"url": 5}, {"url": "/?UTM_Source=x"}, {"url": "/?mscl\u212aid=1"}),
    ]
)
AMOUNTS = st.sampled_from([None, 0, 12.5, "3.10", "much", True, [{"price": 2, "quantity": 3}]])
OBJECTS = st.one_of(
    st.none(),
    st.just([]),
    st.dictionaries(
        st.sampled_from(["traits", "a", "é"]), st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=3))
    ),
    st.fixed_dictionaries({}, optional={"page": PAGES, "campaign": PAGES, "click_ids": PAGES}),
    st.fixed_dictionaries(
        {}, optional={**dict.fromkeys(["revenue", "total", "tax", "products"], AMOUNTS), "url": st.just("/?utm_id=1")}
    ),
)
KINDS = st.sampled_from(["track", "page", "screen", "identify", "group", "alias", "odd", None])
EVENTS = st.one_of(
    st.just("no event"),
    st.fixed_dictionaries(
        {"messageId": st.one_of(st.text(max_size=3), st.integers(0, 9)), "type": KINDS},
        optional={
            **dict.fromkeys(["event", "userId", "anonymousId", "groupId", "previousId", "name", "category"], TEXTS),
            **dict.fromkeys(["timestamp", "originalTimestamp", "sentAt", "channel"], TEXTS),
            **dict.fromkeys(["properties", "context", "traits", "integrations"], OBJECTS),
            "other": TEXTS,
        },
    ),
)
USUAL = st.fixed_dictionaries(
    {
        "messageId": st.text(min_size=1, max_size=3),
        "type": st.sampled_from(["track", "page", "screen", "identify", "group", "alias"]),
        "timestamp": st.one_of(st.just("2026-01-02T03:04:05Z"), TIMES),
    },
    optional={
        **dict.fromkeys(["userId", "name"], st.one_of(st.none(), st.text(max_size=3))),
        "event": st.one_of(st.none(), st.text(max_size=3), st.just("Order Completed")),
        **dict.fromkeys(["properties", "context"], OBJECTS.filter(lambda value: isinstance(value, dict))),
        "traits": st.dictionaries(st.text(max_size=2), st.integers(-9, 9)),
    },
)
ENVELOPES = st.fixed_dictionaries(
    {}, optional={"sentAt": TEXTS, "context": OBJECTS, "integrations": OBJECTS, "timestamp": TEXTS, "writeKey": TEXTS}
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(EVENTS, max_size=4), st.lists(USUAL, max_size=4)), ENVELOPES)
@example([EVENT | {"timestamp": None, "originalTimestamp": "then"}], {})
@example([EVENT | {"type": "identify", "context": {"traits": {"a": 1}}}], {})
@example([EVENT | {"timestamp": "2026-01-02T02:04:05Z"}] * 3, {"sentAt": "2026-01-02T02:04:06Z"})
@example([EVENT, EVENT | {"timestamp": "2026-01-02T03:05:05Z"}], {"sentAt": "2026-01-02T03:04:05Z"})
def test_the_records_are_those_of_event_by_event(events: list[Any], envelope: dict[str, Any]) -> None:
    body = batch(*events, **envelope)
    found = columns(body)
    if found is None:
        return
    one_by_one = segment.parse(body, request())
    assert [each.findings for each in one_by_one] == [()] * len(events)
    assert [(each.record_id, each.dataset) for each in one_by_one] == [(id_, found.dataset) for id_ in found.ids]
    made = records(found)
    assert made == [orjson.loads(each.data) for each in one_by_one]
    for name, values in found.texts.items():
        assert values == [each.get(name) for each in made]
    for name, texts in found.objects.items():
        assert [orjson.loads(bytes(each)) for each in texts] == [each[name] for each in made if name in each]
    assert {name for each in made for name, value in each.items() if value not in ("", {})} <= {
        *found.texts,
        *found.objects,
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(USUAL, min_size=1, max_size=4))
def test_usual_batches_are_columns(events: list[Any]) -> None:
    for event in events:
        if event["type"] == "identify" and "traits" not in event:
            event.pop("context", None)
    assert columns(batch(*events, sentAt="2026-01-02T03:04:06Z")) is not None
    assert columns(batch(*events, sentAt="2026-01-02T02:04:06Z")) is not None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(EVENTS, USUAL), max_size=5), st.sampled_from(["track", "page", "identify", "batch"]))
@example([EVENT, {"messageId": "m2", "timestamp": "then"}, EVENT | {"messageId": 5}, {}, EVENT], "track")
@example([EVENT | {"timestamp": None, "originalTimestamp": "then"}, EVENT], "track")
def test_the_records_of_single_events_are_those_of_one_by_one(events: list[Any], route: str) -> None:
    bodies = [orjson.dumps(each) for each in events]
    found = segment.singles(bodies, request(route=route), [RECEIVED_AT] * len(bodies))
    if found is None:
        return
    taken, of_them = found
    one_by_one = [each for index in taken for each in segment.parse(bodies[index], request(route=route))]
    assert [(each.record_id, each.dataset, each.findings) for each in one_by_one] == [
        (id_, of_them.dataset, ()) for id_ in of_them.ids
    ]
    assert records(of_them) == [orjson.loads(each.data) for each in one_by_one]
    assert sum(len(each.data) for each in one_by_one) <= of_them.size


def test_an_unusual_single_event_leaves_the_others_as_columns() -> None:
    typeless = {name: value for name, value in EVENT.items() if name != "type"}
    unusual = (b"hello", b'{"a":1},{"b":2}', orjson.dumps([EVENT]), batch(EVENT), b"\n", b"{}", orjson.dumps({"x": 1}))
    bodies = [orjson.dumps(EVENT), *unusual, orjson.dumps(typeless | {"messageId": "m2"})]
    found = segment.singles(bodies, request(route="track"), [RECEIVED_AT] * len(bodies))
    assert found is not None
    assert (found[0], found[1].ids) == ([0, len(bodies) - 1], ["m1", "m2"])
    assert {each["type"] for each in records(found[1])} == {"track"}
    assert segment.singles(unusual, request(route="track"), [RECEIVED_AT] * len(unusual)) is None


DEEP = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH


@pytest.mark.parametrize(
    "value",
    [
        *(b"1e309", b"-1e309", b"1E+400", b"1.5e999", b"1" * 400, b"0." + b"1" * 400, b"12345e99999"),
        *(b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b"\n1", b"NaN", b"01", b'"\t"', DEEP, b"[" * 64 + b"]" * 64),
        b"[" * 5_000 + b"]" * 5_000,
    ],
    ids=lambda value: value[:12].decode("latin-1"),
)
def test_what_readers_differ_on_is_looked_at_event_by_event(value: bytes) -> None:
    event = orjson.dumps(EVENT)[:-1]
    assert columns(b'{"batch":[%b,"properties":{"v":%b}}]}' % (event, value)) is None


@pytest.mark.parametrize(
    "value",
    [
        *(b"1e9", b"1e-30", b"12.5", b"-0", b'"\xc3\xa9"', b'"\\ud83d\\ude00"', b" 1", b'"{[{["', b"1" * 200),
        *(b'"0e123456"', b'"3f4e1234-12e4-9e99-0e00-5d2e75e12345"', b"[" * 40 + b"]" * 40),
    ],
)
def test_what_all_read_alike_stays_the_text_that_was_sent(value: bytes) -> None:
    found = columns(b'{"batch":[%b,"properties":{"v":%b}}]}' % (orjson.dumps(EVENT)[:-1], value))
    assert found is not None
    assert b'"properties":{"v":%b}' % value in msgspec.json.encode(found.records[0])


def test_many_small_objects_are_no_deep_one() -> None:
    assert columns(batch(*[EVENT | {"properties": {"items": [{"n": n} for n in range(8)]}}] * 100)) is not None
    assert columns(batch(EVENT | {"properties": {"text": "a;" * 100}})) is not None


TOKENS = st.one_of(
    st.sampled_from(
        [
            *(b"1e309", b"-1E+400", b"1.5e999", b"7" * 400, b"0." + b"3" * 290 + b"e99", b"2e-400", b"1e9", b"3e07"),
            *(b"true", b"null", b'"3f4e1234-12e4"', b'"\\u001b"', b'"a;b[{"', b"{}", b"[]", b" 1 ", b'"\xc3\xa9=e12"'),
        ]
    ),
    st.builds(lambda depth: b"[" * depth + b"]" * depth, st.integers(1, 70)),
    st.builds(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth, st.integers(1, 70)),
)
TEXTS_OF_OBJECTS = st.one_of(
    st.builds(
        lambda values: b"{%b}" % b",".join(b'"%d":%b' % each for each in enumerate(values)),
        st.lists(TOKENS, max_size=3),
    ),
    TOKENS,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS_OF_OBJECTS, max_size=4))
@example([])
@example([b"{}"])
@example([b"5", b"{}"])
@example([b'{"a":1}', b"[{}]"])
def test_objects_are_said_to_be_read_alike_only_when_json_reads_each(texts: list[bytes]) -> None:
    if body.read_alike([msgspec.Raw(each) for each in texts]) is not None:
        values = [orjson.loads(each) for each in texts]
        assert all(type(each) is dict and not deeper_than(each, MAX_DEPTH - 1) for each in values)


@pytest.mark.parametrize(
    ("member", "usual"),
    [
        *((b'"writeKey":"k"', True), (b'"timestamp":"then"', True), (b'"sequence":7', True), (b'"context":{}', True)),
        *((b'"sequence":1e309', False), (b'"other":1', False), (b'"other":1e309', False)),
        (b'"context":{"a":1}', False),
    ],
)
def test_a_batch_that_says_more_than_sdks_do_is_looked_at_event_by_event(member: bytes, *, usual: bool) -> None:
    assert (columns(b'{"batch":[%b],%b}' % (orjson.dumps(EVENT), member)) is not None) is usual


@pytest.mark.parametrize("kinds", [["Seen"], ["Order Completed"], ["Order Refunded", "Seen", "Order Completed"]])
def test_orders_get_what_they_do_not_state(kinds: list[str]) -> None:
    told: list[dict[str, Any]] = [{"total": 5, "tax": 1}, {"revenue": None, "value": 3}, {"revenue": 7, "total": 8}, {}]
    events: list[dict[str, Any]] = [EVENT | {"event": kind} for kind in kinds]
    events += [EVENT | {"event": kind, "properties": each} for each in told for kind in kinds]
    for some in (events, events[len(kinds) :]):
        found = columns(batch(*some))
        assert found is not None
        assert records(found) == [each.value for each in segment.parse(batch(*some), request())]


@pytest.mark.parametrize(
    "url",
    [
        *(
            b"/?\\u0075tm_source=x",
            b"/\\u003futm_source=x",
            b"/?utm_source\\u003dx",
            b"/?\\u0047CLID=1",
            b"/?gcl\\u0069d\\u003D1",
        ),
        *(b"/?epik=1", b"/?gclid_=1&gcl%69d=2", b"/?a=1&ttclid=%3D", b"/?product_id=1&b=utm_"),
        *(b"\\/?utm_source=x", b"/?UTM_Term=x", "/?mscl\u212aid=1".encode(), b"/?q=utm_", b"/?q=1"),
    ],
)
def test_an_address_names_a_click_however_it_is_written(url: bytes) -> None:
    body = b'{"batch":[%b,"context":{"page":{"url":"%b"}}}]}' % (orjson.dumps(EVENT)[:-1], url)
    found = columns(body)
    assert found is not None
    assert records(found) == [each.value for each in segment.parse(body, request())]


def test_an_event_alone_and_batches_for_several_datasets_go_event_by_event() -> None:
    assert columns(orjson.dumps(EVENT)) is None
    two = (SourceMapping("track", "Bought", "orders"), SourceMapping("", "", "events"))
    assert columns(batch(EVENT, EVENT | {"event": "Bought"}), *two) is None
    found = columns(batch(EVENT | {"event": "Bought"}), *two)
    assert found is not None
    assert found.dataset == "orders"


def test_what_a_batch_says_for_all_its_events_is_bounded() -> None:
    assert columns(batch(*[EVENT] * 100, sentAt="x" * 20_000)) is None


def keeps(schema: dict[str, Any], *events: Any) -> bool:
    """Tell what is said of a batch, having made sure that it is not said of one that breaks the contract."""
    body = batch(*events)
    found = columns(body)
    assert found is not None
    validator = validator_of(orjson.dumps(schema))
    assert validator.columnwise is not None
    said = validator.columnwise.keep(found)
    if said:
        assert all(validator.is_valid(each.value) for each in segment.parse(body, request()))
    return said


def events_schema(**properties: Any) -> dict[str, Any]:
    return EVENTS_SCHEMA | {"properties": EVENTS_SCHEMA["properties"] | properties}


@pytest.mark.parametrize(
    ("schema", "broken"),
    [
        (EVENTS_SCHEMA, {"timestamp": "yesterday"}),
        (EVENTS_SCHEMA, {"properties": {"total": -1}}),
        (EVENTS_SCHEMA | {"required": ["user_id"]}, {"userId": None}),
        (EVENTS_SCHEMA | {"required": ["properties"]}, {"properties": None}),
        (EVENTS_SCHEMA | {"additionalProperties": False}, {"category": "shop"}),
        (events_schema(event={"type": "string", "maxLength": 6}), {"event": "Purchase"}),
        (events_schema(user_id={"type": "integer"}), {}),
        (events_schema(properties={"type": "string"}), {}),
        (events_schema(event={"type": ["object", "null"]}), {}),
    ],
)
def test_a_batch_with_one_broken_record_is_not_said_to_keep_its_contract(
    schema: dict[str, Any], broken: dict[str, Any]
) -> None:
    good = EVENT | {"properties": {"total": 1}}
    bad = {name: value for name, value in {**good, **broken}.items() if value is not None}
    assert not keeps(schema, good, bad, good)
    if broken:
        assert keeps(schema, good, good)
        assert keeps(schema, good, good | {"userId": ""})


@pytest.mark.parametrize(
    "keyword",
    [
        {"minProperties": 1},
        {"allOf": [{"required": ["event"]}]},
        {"additionalProperties": {"type": "string"}},
        {"patternProperties": {"^x": False}},
        {"properties": {"event": False}},
        {"type": ["object", "null"]},
    ],
)
def test_a_contract_on_more_than_single_properties_is_not_taken_apart(keyword: dict[str, Any]) -> None:
    assert validator_of(orjson.dumps(EVENTS_SCHEMA | keyword)).columnwise is None
