"""Payloads of Snowplow's trackers become records of `events`; what one event holds never costs another."""

from __future__ import annotations

import base64
import itertools
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from counterfoil_ingest.entities import UNPLANNED, Candidate, SourceMapping
from counterfoil_ingest.errors import BadJsonError, TooManyRecordsError
from counterfoil_ingest.protocols import Request, installed, snowplow
from hypothesis import given
from hypothesis import strategies as st
from snowplow_tracker import (
    Emitter,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
    Tracker,
)

EVERYTHING = (SourceMapping("", "", "events"),)
RECEIVED_AT = 1_767_323_045_000_000  # 2026-01-02T03:04:05Z
PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"


def request(route: str = "tp2", mappings: tuple[SourceMapping, ...] = EVERYTHING) -> Request:
    numbers = itertools.count()
    return Request(route, "", "", RECEIVED_AT, mappings, lambda: f"new-{next(numbers)}")


def parse(*events: Any, mappings: tuple[SourceMapping, ...] = EVERYTHING) -> list[Candidate]:
    return snowplow.parse(orjson.dumps({"schema": PAYLOAD, "data": events}), request(mappings=mappings))


def record(**event: Any) -> dict[str, Any]:
    [candidate] = parse({"e": "pv", "eid": "e1", **event})
    assert orjson.loads(candidate.data) == candidate.value
    return candidate.value  # type: ignore[no-any-return]


class _Caught(Emitter):
    """Snowplow's own emitter, caught before the network."""

    def __init__(self) -> None:
        super().__init__("localhost", batch_size=1)
        self.bodies: list[bytes] = []

    def http_post(self, data: str) -> int:
        self.bodies.append(data.encode())
        return 200


@pytest.mark.parametrize("encoded", [True, False])
def test_what_the_tracker_for_python_sends_becomes_records(encoded: bool):
    caught = _Caught()
    who = Subject().set_user_id("ada").set_domain_user_id("device-1").set_screen_resolution(1024, 768).set_lang("en")
    tracker = Tracker("web", caught, subject=who, app_id="cfw_secret", encode_base64=encoded)
    tracker.track(PageView("https://shop.test/?utm_source=news&utm_campaign=may&gclid=g1", page_title="Home"))
    tracker.track(StructuredEvent("cart", "add", label="shoe", property_="red", value=2.5))
    attached = SelfDescribingJson("iglu:com.shop/member/jsonschema/1-0-0", {"tier": "gold"})
    viewed = SelfDescribingJson("iglu:com.shop/product_viewed/jsonschema/1-0-0", {"sku": "s-1"})
    tracker.track(SelfDescribing(viewed, context=[attached]))
    tracker.track(ScreenView(id_="1", name="Cart"))
    candidates = [each for body in caught.bodies for each in snowplow.parse(body, request())]
    assert [each.findings for each in candidates] == [()] * 4
    records = [each.value for each in candidates]
    assert [(each["type"], each["event"]) for each in records] == [
        ("page", "Home"),
        ("track", "add"),
        ("track", "product_viewed"),
        ("screen", "Cart"),
    ]
    assert {(each["user_id"], each["anonymous_id"]) for each in records} == {("ada", "device-1")}
    assert records[0]["context"]["campaign"] == {"source": "news", "name": "may"}
    assert records[0]["context"]["click_ids"] == {"gclid": "g1"}
    assert records[0]["context"]["screen"] == {"width": 1024, "height": 768}
    assert records[1]["properties"] == {
        "category": "cart",
        "action": "add",
        "label": "shoe",
        "property": "red",
        "value": 2.5,
    }
    assert records[2]["properties"] == {"sku": "s-1"}
    assert records[2]["context"]["snowplow"]["contexts"] == [
        {"schema": "iglu:com.shop/member/jsonschema/1-0-0", "data": {"tier": "gold"}}
    ]
    assert b"cfw_secret" not in b"".join(each.data for each in candidates)


def test_a_query_says_the_same_as_a_payload():
    event = {"e": "se", "eid": "e1", "se_ca": "cart", "se_ac": "add", "dtm": "1767323000000", "uid": "ada", "x": "1&2"}
    [posted] = parse(dict(event))
    [asked] = snowplow.parse(urlencode(event).encode(), request("i"))
    assert asked.value == posted.value
    assert posted.value["context"]["snowplow"] == {"dtm": "1767323000000", "x": "1&2"}


@pytest.mark.parametrize(
    ("times", "happened"),
    [
        ({"dtm": "1767319445000", "stm": "1767319455000"}, "2026-01-02T03:03:55.000Z"),  # an hour slow, sent 10 s later
        ({"dtm": "1767319445500", "stm": "1767319445000"}, "2026-01-02T03:04:05.000Z"),  # `stm` is cut to seconds
        ({"dtm": "1767319445000"}, "2026-01-02T02:04:05.000Z"),
        ({"dtm": 1767319445000}, "2026-01-02T02:04:05.000Z"),
        ({"dtm": "1767319445000", "stm": "1767319455000", "ttm": "1767000000000"}, "2025-12-29T09:20:00.000Z"),
        ({"dtm": "1767319445000", "stm": "1500000000000"}, "2026-01-02T02:04:05.000Z"),
        ({}, "2026-01-02T03:04:05.000Z"),
        ({"dtm": "yesterday"}, "yesterday"),
        ({"dtm": "9" * 30}, "9" * 30),
    ],
)
def test_the_time_is_when_it_happened_by_our_clock(times: dict[str, Any], happened: str):
    made = record(**times)
    assert made["timestamp"] == happened
    if "dtm" in times:
        assert made["context"]["snowplow"]["dtm"] == times["dtm"]  # what the tracker said stays


def test_a_device_is_known_by_the_first_id_it_tells():
    session = {
        "schema": "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2",
        "data": {"userId": "phone", "sessionId": "s1", "sessionIndex": 3},
    }
    contexts = orjson.dumps({"schema": "iglu:x/contexts/jsonschema/1-0-0", "data": [session]}).decode()
    assert record(co=contexts)["anonymous_id"] == "phone"
    assert record(co=contexts)["context"]["session"] == {"id": "s1", "index": 3}
    told = record(co=contexts, duid="browser", nuid="network")
    assert told["anonymous_id"] == "browser"
    assert told["context"]["snowplow"]["other_device_ids"] == ["phone", "network"]


def test_events_are_mapped_by_type_and_name():
    mappings = (SourceMapping("track", "add", "carts"), SourceMapping("page", "", "pages"))
    mapped = parse({"e": "se", "se_ac": "add"}, {"e": "pv"}, {"e": "pp"}, mappings=mappings)
    assert [each.dataset for each in mapped] == ["carts", "pages", UNPLANNED]


def test_an_event_without_an_id_gets_one_and_a_long_id_is_kept_as_its_hash():
    without, long = parse({"e": "pv"}, {"e": "pv", "eid": "x" * 300})
    assert without.value["message_id"] == without.record_id == "new-0"
    assert long.record_id.startswith("sha256:")


@pytest.mark.parametrize(
    ("event", "reason", "path"),
    [
        ({"e": "ue", "ue_pr": "{"}, "BAD_JSON", "$.ue_pr"),
        ({"e": "ue", "ue_px": "!!"}, "BAD_JSON", "$.ue_px"),
        ({"e": "ue", "ue_px": "é"}, "BAD_JSON", "$.ue_px"),
        ({"e": "ue", "ue_pr": 7}, "BAD_JSON", "$.ue_pr"),
        ({"e": "ue", "ue_pr": '{"schema":"x","data":{}}'}, "NO_SCHEMA", "$.ue_pr"),
        ({"e": "ue"}, "NO_SCHEMA", "$.ue_pr"),
        ({"e": "pv", "co": "[" * 500 + "]" * 500}, "TOO_DEEP", "$"),
        ("no object", "NOT_AN_OBJECT", "$"),
    ],
)
def test_what_cannot_be_read_waits_with_its_reason_and_costs_no_neighbour(event: Any, reason: str, path: str):
    bad, good = parse(event, {"e": "pv", "eid": "good"})
    assert (bad.findings[0].reason, bad.findings[0].path) == (reason, path)
    assert (good.record_id, good.findings) == ("good", ())


def test_a_payload_with_an_event_that_is_no_json_keeps_the_others():
    body = b'{"schema":"x","data":[{"e":"pv","eid":"a"},{"e":NaN},{"e":"pv","eid":"b"}]}'
    candidates = snowplow.parse(body, request())
    assert [each.record_id for each in candidates] == ["a", "new-0", "b"]
    assert [len(each.findings) for each in candidates] == [0, 1, 0]
    deep = b'{"data":[{"e":"pv","x":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b'},{"e":"pv","eid":"b"}]}'
    assert [[found.reason for found in each.findings] for each in snowplow.parse(deep, request())] == [["TOO_DEEP"], []]


def test_the_beginning_of_a_body_that_was_cut_waits_in_quarantine():
    [candidate] = snowplow.parse(b'{"data":[{"e":', request(snowplow.CUT))
    assert (candidate.data, candidate.findings[0].reason) == (b'{"data":[{"e":', "TOO_LARGE")


def test_a_body_is_refused_only_when_it_is_no_json_or_has_too_many_events():
    for body in (b"", b"hello", b"[1", b"\xff\xfe"):
        with pytest.raises(BadJsonError):
            snowplow.parse(body, request())
    with pytest.raises(TooManyRecordsError):
        parse(*[{}] * (snowplow.MAX_EVENTS + 1))


def test_the_protocol_is_installed():
    assert installed()["snowplow"].parse is snowplow.parse


TEXT = st.one_of(
    st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.none(), st.lists(st.text(max_size=3), max_size=2)
)
NAMES = ("e", "eid", "aid", "uid", "duid", "dtm", "stm", "ttm", "ue_pr", "ue_px", "co", "cx", "res", "url", "page")


@given(st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=15))
def test_whatever_an_event_holds_becomes_one_candidate_and_nothing_of_it_is_lost(event: dict[str, Any]):
    [candidate] = parse(event)
    assert candidate.origin is not None
    told = {name: value for name, value in event.items() if not str(event.get("aid", "")).startswith("cfw_")}
    assert candidate.origin.items() >= {k: v for k, v in told.items() if k != "aid"}.items()
    assert orjson.loads(candidate.data)["message_id"]


@given(st.binary(max_size=60))
def test_base64_in_either_alphabet_with_or_without_padding_is_read(blob: bytes):
    data = {"schema": "iglu:v/n/jsonschema/1-0-0", "data": {"x": blob.hex()}}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for text in (encode(orjson.dumps({"schema": UNSTRUCT, "data": data})).decode(),):
            for given_text in (text, text.rstrip("=")):
                assert record(e="ue", ue_px=given_text)["properties"] == {"x": blob.hex()}
