"""What every event gets as it lands: a time by our clock, the campaign and the click that led to it, its revenue."""

from __future__ import annotations

import itertools
from copy import deepcopy
from typing import Any

import orjson
import pytest
from counterfoil_ingest.entities import SourceMapping
from counterfoil_ingest.protocols import Request, installed
from counterfoil_ingest.protocols.landing import by_our_clock, land, landed, moment, revenue, written
from hypothesis import given
from hypothesis import strategies as st

RECEIVED_AT = 1_767_323_045_000_000
"""2026-01-02T03:04:05Z."""
MICROSECONDS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
MODERATE = st.integers(0, 4_000_000_000_000_000)


@given(MICROSECONDS)
def test_a_moment_is_what_was_written(at: int) -> None:
    assert moment(written(at)) == at


@given(happened=MODERATE, waited=st.integers(0, 10**12), offset=st.integers(-(10**13), 10**13))
def test_a_clock_that_goes_wrong_costs_no_time_between_events(happened: int, waited: int, offset: int) -> None:
    """An event that waited before it was sent, by a clock that is `offset` away, happened so long before it arrived."""
    sent = happened + waited
    ours = by_our_clock(written(happened), sent_at=written(sent), received_at=sent + offset)
    if abs(offset) <= 5_000_000:
        assert ours is None or moment(ours) == sent + offset
    else:
        assert ours is not None
        assert moment(ours) == sent + offset - waited


@given(st.one_of(MICROSECONDS.map(written), st.text(max_size=30)), st.one_of(MICROSECONDS.map(written), st.text()))
def test_nothing_happens_after_it_arrived_and_what_cannot_be_read_stays(stated: str, sent_at: str) -> None:
    ours = by_our_clock(stated, sent_at=sent_at, received_at=RECEIVED_AT)
    happened = moment(stated if ours is None else ours)
    assert happened is None or happened <= RECEIVED_AT + 5_000_000
    assert ours is None or moment(stated) is not None


@pytest.mark.parametrize(
    ("times", "landed_times"),
    [
        ({"timestamp": "2026-01-02T03:00:00Z", "sent_at": "2026-01-02T03:04:03Z"}, {}),  # on its way for two seconds
        ({"timestamp": "2020-01-01T00:00:00Z"}, {}),
        (
            {"timestamp": "2026-01-02T01:00:00+01:00", "sent_at": "2026-01-02T01:04:05+01:00"},
            {"timestamp": "2026-01-02T03:00:00.000Z", "original_timestamp": "2026-01-02T01:00:00+01:00"},
        ),
        (
            {"timestamp": "2031-01-01T00:00:00Z"},
            {"timestamp": "2026-01-02T03:04:05.000Z", "original_timestamp": "2031-01-01T00:00:00Z"},
        ),
        (
            {
                "timestamp": "2031-01-01T00:00:00Z",
                "original_timestamp": "2031-01-01T00:00:01Z",
                "sent_at": "2031-01-01T00:01:00Z",
            },
            {
                "timestamp": "2026-01-02T03:03:05.000Z",
                "original_timestamp": "2031-01-01T00:00:00Z",
                "original_timestamp_": "2031-01-01T00:00:01Z",
            },
        ),
        ({"timestamp": "yesterday", "sent_at": "2031-01-01T00:01:00Z"}, {}),
        ({"timestamp": "2026-01-01T00:00:00", "sent_at": "2031-01-01T00:01:00Z"}, {}),  # in no zone
        ({"timestamp": 5, "sent_at": 6}, {}),
        ({"timestamp": "2026-01-02T03:04:05.000Z", "sent_at": "2031-01-01T00:01:00Z"}, {}),  # when it arrived
    ],
)
def test_times_are_by_our_clock_and_the_senders_words_stay(times: dict[str, Any], landed_times: dict[str, Any]) -> None:
    record = dict(times)
    land(record, RECEIVED_AT)
    assert record == times | landed_times
    land(record, RECEIVED_AT)
    assert record == times | landed_times, "to land again changes nothing"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://a.test/?utm_source=s&utm_medium=m&utm_campaign=c&utm_term=t&utm_content=n&utm_id=7", "campaign"),
        ("https://a.test/?GCLID=g&ScCid=s&x=1#y", "click_ids"),
        ("//[bad?gclid=1", ""),
        ("https://a.test/?utm_source=", ""),
        ("https://a.test/?" + "&".join(f"a{n}=gclid" for n in range(600)), ""),
        ("https://a.test/?gclid=" + "x" * 9_000, ""),
        (None, ""),
    ],
)
def test_an_address_names_its_campaign_and_its_click(url: Any, found: str) -> None:
    assert list(landed(url)) == ([found] if found else [])
    whole = {"source": "s", "medium": "m", "name": "c", "term": "t", "content": "n", "id": "7"}
    assert landed(url).get("campaign", whole) == whole
    assert landed(url).get("click_ids", {}) in ({}, {"gclid": "g", "sccid": "s"})


URL = "https://a.test/?utm_source=mail&gclid=g1"


@pytest.mark.parametrize(
    ("event", "campaign", "click_ids"),
    [
        ({"context": {"page": {"url": URL}}}, {"source": "mail"}, {"gclid": "g1"}),
        ({"context": {"page": {"url": "https://a.test/", "search": "?fbclid=f"}}}, None, {"fbclid": "f"}),
        ({"context": {"page": {"url": URL}, "campaign": {"name": "own"}}}, {"name": "own"}, {"gclid": "g1"}),
        ({"context": {"page": {"url": URL}, "click_ids": {"gclid": "own"}}}, {"source": "mail"}, {"gclid": "own"}),
        ({"type": "page", "properties": {"url": URL}}, {"source": "mail"}, {"gclid": "g1"}),
        ({"type": "track", "properties": {"url": URL}}, None, None),  # of a product, say
    ],
)
def test_an_event_carries_the_campaign_and_the_click_of_its_page(event: Any, campaign: Any, click_ids: Any) -> None:
    record = dict(event)
    land(record, RECEIVED_AT)
    context = record.get("context", {})
    assert (context.get("campaign"), context.get("click_ids")) == (campaign, click_ids)


@pytest.mark.parametrize(
    ("properties", "found"),
    [
        ({"subtotal": 90, "total": 120, "tax": 20, "shipping": 10}, 90.0),
        ({"total": 120.3, "tax": 20.1, "shipping": "10.1"}, 90.1),
        ({"total": 120}, 120.0),
        ({"total": -120, "tax": -20}, -100.0),
        ({"total": 10, "tax": 20}, None),
        ({"value": 7}, 7.0),
        ({"products": [{"price": 2.5, "quantity": 2}, {"price": "1"}], "discount": 1}, 5.0),
        ({"products": [{"price": 2.5}, {"quantity": 2}]}, None),
        ({"products": []}, None),
        ({"total": True}, None),
        ({"total": "much"}, None),
        ({"total": "9e999999"}, None),
        ({"total": "NaN"}, None),
        ({"total": 10, "tax": "1e-999999"}, 10.0),
        ({}, None),
    ],
)
def test_revenue_is_after_discounts_without_tax_and_shipping(properties: dict[str, Any], found: float | None) -> None:
    assert revenue(properties) == found
    record = {"event": "Order Completed", "properties": properties}
    land(record, RECEIVED_AT)
    assert record["properties"] == properties | ({} if found is None else {"revenue": found})
    stated = {"event": "Order Completed", "properties": properties | {"revenue": "own"}}
    land(stated, RECEIVED_AT)
    assert stated["properties"]["revenue"] == "own"
    other = {"event": "Product Viewed", "properties": properties}
    land(other, RECEIVED_AT)
    assert other["properties"] == properties


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.integers(-(2**53), 2**53), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
NAMES = ("timestamp", "sent_at", "original_timestamp", "type", "event", "context", "properties", "page", "url", "total")
OBJECTS = st.dictionaries(st.sampled_from((*NAMES, "campaign", "click_ids", "products", "price", "subtotal")), VALUES)


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(VALUES, OBJECTS)), OBJECTS)
def test_whatever_an_event_holds_nothing_of_it_is_lost_or_changed_in_place(event: Any, page: Any) -> None:
    event = {"context": {"page": page}, "event": "Order Completed", **event}
    sent = deepcopy(event)
    record = dict(event)
    land(record, RECEIVED_AT)
    assert event == sent
    assert {name: record[name] for name in sent if name not in ("timestamp", "context", "properties")} == {
        name: value for name, value in sent.items() if name not in ("timestamp", "context", "properties")
    } | ({"original_timestamp": record["original_timestamp"]} if "original_timestamp" in sent else {})
    for name in ("context", "properties"):
        if isinstance(sent.get(name), dict):
            assert {key: record[name][key] for key, value in sent[name].items() if value} == {
                key: value for key, value in sent[name].items() if value
            } or name == "context"
    again = deepcopy(record)
    land(again, RECEIVED_AT)
    assert again == record, "to land twice is to land once"


@pytest.mark.parametrize("name", ["segment", "snowplow", "records"])
def test_every_protocol_gives_the_one_form(name: str) -> None:
    """The same purchase, from a page that an advertisement led to, by a clock an hour slow, ten seconds under way."""
    numbers = itertools.count()
    request = Request(
        {"segment": "batch", "snowplow": "tp2", "records": ""}[name],
        "events",
        "",
        RECEIVED_AT,
        (SourceMapping("", "", "events"),),
        lambda: str(next(numbers)),
    )
    happened, sent = RECEIVED_AT - 3_610_000_000, RECEIVED_AT - 3_600_000_000
    plain = {"type": "track", "timestamp": written(happened), "context": {"page": {"url": URL}}}
    bodies: dict[str, Any] = {
        "segment": {
            "sentAt": written(sent),
            "batch": [
                plain
                | {"messageId": "m", "event": "Order Completed", "properties": {"order_id": "o", "total": 12, "tax": 2}}
            ],
        },
        "snowplow": {
            "data": [
                {
                    "e": "tr",
                    "eid": "m",
                    "url": URL,
                    "tr_id": "o",
                    "tr_tt": "12",
                    "tr_tx": "2",
                    "dtm": str(happened // 1_000),
                    "stm": str(sent // 1_000),
                }
            ]
        },
        "records": plain
        | {
            "message_id": "m",
            "event": "Order Completed",
            "sent_at": written(sent),
            "properties": {"order_id": "o", "total": 12, "tax": 2},
        },
    }
    (candidate,) = installed()[name].parse(orjson.dumps(bodies[name]), request)
    record = orjson.loads(candidate.data)
    assert (record["message_id"], record["type"], record["timestamp"]) == (
        "m",
        "track",
        written(RECEIVED_AT - 10_000_000),
    )
    assert (record["original_timestamp"], record["sent_at"]) == (written(happened), written(sent))
    assert record["properties"] == {"order_id": "o", "total": 12, "tax": 2, "revenue": 10.0}
    assert (record["context"]["campaign"], record["context"]["click_ids"]) == ({"source": "mail"}, {"gclid": "g1"})
