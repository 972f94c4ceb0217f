"""Segment bodies become records of `events`; what one event holds never costs another."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import orjson
import pytest
from counterfoil_ingest.entities import Candidate, SourceMapping
from counterfoil_ingest.errors import BadGzipError, BadJsonError, BodyTooLargeError, TooManyRecordsError
from counterfoil_ingest.protocols import Request, installed, records, segment
from counterfoil_ingest.protocols.body import MAX_BODY_BYTES, elements, inflate
from hypothesis import given
from hypothesis import strategies as st

EVERYTHING = (SourceMapping("", "", "events"),)
RECEIVED_AT = 1_767_323_045_000_000


def request(route: str = "batch", mappings: tuple[SourceMapping, ...] = EVERYTHING, request_id: str = "") -> Request:
    numbers = itertools.count()
    return Request(route, "events", request_id, RECEIVED_AT, mappings, lambda: f"new-{next(numbers)}")


def parse(body: Any, route: str = "batch", mappings: tuple[SourceMapping, ...] = EVERYTHING) -> list[Candidate]:
    return segment.parse(body if isinstance(body, bytes) else orjson.dumps(body), request(route, mappings))


def test_a_track_event_in_a_batch_becomes_a_record() -> None:
    (candidate,) = parse(
        {
            "writeKey": "cfw_secret",
            "sentAt": "2026-01-02T03:04:06Z",
            "context": {"ip": "1.2.3.4", "library": {"name": "shared"}},
            "batch": [
                {
                    "type": "track",
                    "event": "Order Completed",
                    "messageId": "m1",
                    "userId": 42,
                    "anonymousId": "a1",
                    "timestamp": "2026-01-02T03:04:05+02:00",
                    "properties": {"orderId": "o1", "total": 9.5},
                    "context": {"library": {"name": "own"}},
                    "integrations": {"All": True},
                    "writeKey": "cfw_secret",
                    "deviceToken": "d1",
                    "groupId": None,
                }
            ],
        }
    )
    assert (candidate.record_id, candidate.dataset, candidate.findings) == ("m1", "events", ())
    assert orjson.loads(candidate.data) == {
        "message_id": "m1",
        "type": "track",
        "event": "Order Completed",
        "timestamp": "2026-01-02T03:04:05+02:00",
        "user_id": "42",
        "anonymous_id": "a1",
        "properties": {"orderId": "o1", "total": 9.5, "revenue": 9.5},
        "context": {"ip": "1.2.3.4", "library": {"name": "own"}},
        "integrations": {"All": True},
        "device_token": "d1",
        "sent_at": "2026-01-02T03:04:06Z",
    }
    assert b"cfw_secret" not in candidate.data + orjson.dumps(candidate.origin)


@pytest.mark.parametrize(
    ("route", "type_"),
    [("t", "track"), ("i", "identify"), ("page", "page"), ("s", "screen"), ("g", "group"), ("alias", "alias")],
)
def test_the_route_gives_the_type_of_a_single_event(route: str, type_: str) -> None:
    (candidate,) = parse({"messageId": "m", "anonymousId": "a"}, route)
    assert candidate.value["type"] == type_


def test_the_name_of_a_page_is_its_event() -> None:
    (candidate,) = parse({"type": "page", "messageId": "m", "name": "Home", "category": "Shop"})
    assert candidate.value["event"] == "Home"
    assert candidate.value["category"] == "Shop"
    assert "name" not in candidate.value


def test_times_come_from_the_event_then_the_batch_then_the_arrival() -> None:
    batch = {"timestamp": "2020-01-01T00:00:00Z", "batch": [{"timestamp": 5}, {"originalTimestamp": "o"}, {}]}
    assert [each.value["timestamp"] for each in parse(batch)] == [5, "o", "2020-01-01T00:00:00Z"]
    (candidate,) = parse({"type": "track"})
    assert candidate.value["timestamp"] == "2026-01-02T03:04:05.000Z"


def test_traits_of_identify_are_found_in_the_context() -> None:
    (candidate,) = parse({"type": "identify", "context": {"traits": {"email": "a@b.c"}}})
    assert candidate.value["traits"] == {"email": "a@b.c"}


def test_an_event_without_id_gets_one_and_a_long_one_is_kept_beside_its_hash() -> None:
    without, number, long = parse({"batch": [{}, {"messageId": 7}, {"messageId": "x" * 300}]})
    assert without.record_id == without.value["message_id"] == "new-0"
    assert number.record_id == number.value["message_id"] == "7"
    assert long.record_id.startswith("sha256:")
    assert long.value["message_id"] == "x" * 300


def test_two_spellings_of_a_key_are_both_kept() -> None:
    (candidate,) = parse({"userId": "a", "user_id": "b", "message_id": "c", "messageId": "d"})
    assert candidate.value["user_id"] == "a"
    assert candidate.value["user_id_"] == "b"
    assert (candidate.record_id, candidate.value["message_id_"]) == ("c", "d")


def test_mappings_decide_in_their_order_and_the_rest_is_unplanned() -> None:
    mappings = (
        SourceMapping("track", "Order Completed", "orders"),
        SourceMapping("track", "", "events"),
        SourceMapping("", "Home", "homes"),
    )
    batch = {
        "batch": [
            {"type": "track", "event": "Order Completed"},
            {"type": "track", "event": "Other"},
            {"type": "page", "name": "Home"},
            {"type": "identify"},
            {"type": 5, "event": ["Home"]},
        ]
    }
    datasets = [each.dataset for each in parse(batch, mappings=mappings)]
    assert datasets == ["orders", "events", "homes", "unplanned", "unplanned"]


@pytest.mark.parametrize(
    "bad",
    ['"text"', "5", "null", "[1,2]", '{"a":"\\ud83d"}', '{"a":NaN}', '{"a":' * 2000 + "1" + "}" * 2000, '{"a":1e999}'],
)
def test_one_bad_event_of_a_batch_costs_no_other(bad: str) -> None:
    good = '{"type":"track","messageId":"%s","properties":{"a":"[{,\\"}"}}'
    body = f'{{"sentAt":"s","batch":[{good % "m1"}, {bad} ,{good % "m2"}],"context":{{"k":1}}}}'
    first, middle, last = parse(body.encode())
    assert (first.record_id, first.findings) == ("m1", ())
    assert (last.record_id, last.findings) == ("m2", ())
    assert last.value["context"] == {"k": 1}
    (finding,) = middle.findings
    assert finding.reason in ("NOT_AN_OBJECT", "BAD_JSON", "TOO_DEEP")
    assert (
        orjson.loads(middle.data) == json.loads(bad)
        if finding.reason == "NOT_AN_OBJECT"
        else middle.data == bad.encode()
    )


def test_bytes_that_are_not_utf8_cost_their_event_alone() -> None:
    bad, good = parse(b'{"batch":[{"a":"\xff"},{"type":"track","messageId":"m"}]}')
    assert bad.findings[0].reason == "BAD_UTF8"
    assert good.record_id == "m"


@pytest.mark.parametrize(
    "body", [b"", b"hello", b'{"batch":[{"a":1}', b'{"batch":[}]', b'{"batch":[{}],}', b"\xff\xfe", b"]["]
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadJsonError):
        parse(body)


def test_a_single_event_with_half_a_character_is_quarantined_not_refused() -> None:
    (candidate,) = parse(b'{"type":"track","event":"\\ud83d"}', "track")
    assert candidate.findings[0].reason == "BAD_JSON"


def test_a_batch_of_more_than_five_thousand_is_refused() -> None:
    assert len(parse({"batch": [{}] * 5000})) == 5000
    with pytest.raises(TooManyRecordsError):
        parse({"batch": [{}] * 5001})


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
        max_size=5,
    )
)
def test_any_array_is_cut_into_its_elements(values: list[Any]) -> None:
    for text in (json.dumps(values), json.dumps(values, indent=1), json.dumps(values, ensure_ascii=False)):
        found = elements(text.encode("utf-8", "surrogatepass"))
        assert found is not None
        assert [json.loads(each.decode("utf-8", "surrogatepass")) for each in found] == values


def test_records_come_as_array_object_or_lines() -> None:
    def ids(body: bytes, request_id: str = "") -> list[str]:
        return [each.record_id for each in records.parse(body, request("", request_id=request_id))]

    assert ids(b'[{"message_id":"a"},{"message_id":""},{}]', "r") == ["a", "r#1", "r#2"]
    assert ids(b'{"message_id":"a"}') == ["a"]
    assert ids(b'{"message_id":"a"}\r\n\n{"message_id":"b"}\n') == ["a", "b"]
    assert ids(b"[]") == []
    assert ids(b'{\n "message_id": "a"\n}') == ["a"]
    assert ids(b"{}\n{}") == ["new-0", "new-1"]


def test_one_bad_record_costs_no_other() -> None:
    lines = records.parse(b'{"message_id":"a"}\n{"message_id":\n{"a":"\xff"}\n5\n{"message_id":"b"}', request(""))
    assert [each.findings[0].reason if each.findings else "" for each in lines] == [
        "",
        "BAD_JSON",
        "BAD_UTF8",
        "NOT_AN_OBJECT",
        "",
    ]
    array = records.parse(b'[{"message_id":"a"},{"a":"\\udc00"},[1]]', request(""))
    assert [each.findings[0].reason if each.findings else "" for each in array] == ["", "BAD_JSON", "NOT_AN_OBJECT"]
    for body in (b"hello\nworld", b"[1,", b"{", b"\n"):
        with pytest.raises(BadJsonError):
            records.parse(body, request(""))


def test_records_are_at_most_ten_thousand() -> None:
    with pytest.raises(TooManyRecordsError):
        records.parse(b"[" + b"{}," * 10_000 + b"{}]", request(""))


def test_what_is_stored_is_what_was_checked_when_a_key_comes_twice() -> None:
    (candidate,) = records.parse(b'{"a":1,"a":2}', request(""))
    assert candidate.data == b'{"a":2}'


def test_huge_numbers_do_not_break_a_record() -> None:
    (candidate,) = records.parse(b'{"a":123456789012345678901234567890,"b":-0.0,"c":18446744073709551615}', request(""))
    assert orjson.loads(candidate.data)["c"] == 18446744073709551615


def test_bodies_are_inflated_by_their_bytes() -> None:
    assert inflate(gzip.compress(b"ab") + gzip.compress(b"cd")) == b"abcd"
    assert inflate(b"\xef\xbb\xbf{}") == b"{}"
    assert inflate(b"") == b""


@pytest.mark.parametrize(
    "body", [b"\x1f\x8bnot gzip", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"a") + b"trailing"]
)
def test_broken_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(BadGzipError):
        inflate(body)


def test_a_gzip_bomb_is_refused_without_being_inflated() -> None:
    bomb = gzip.compress(b"\0" * (MAX_BODY_BYTES + 1))
    with pytest.raises(BodyTooLargeError):
        inflate(bomb)
    with pytest.raises(BodyTooLargeError):
        inflate(b" " * (MAX_BODY_BYTES + 1))
    assert len(inflate(gzip.compress(b"\0" * MAX_BODY_BYTES))) == MAX_BODY_BYTES


def test_protocols_are_installed_as_entry_points() -> None:
    assert (installed()["segment"].parse, installed()["segment"].columns) == (segment.parse, segment.columns)
    assert (installed()["records"].parse, installed()["records"].columns) == (records.parse, None)
