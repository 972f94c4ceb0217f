"""Events from the unmodified client of Segment, and what becomes of events that are wrong."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from segment.analytics import Client

from tests.system.tenant import Tenant, ok, problem

EVENTS = 10_000


def deliver(tenant: Tenant, write_key: str, count: int, *, compress: bool = False) -> list[Any]:
    """Send the same events every time with Segment's own client; return what it could not deliver."""
    failures: list[Any] = []
    client = Client(
        write_key,
        host=tenant.installation.url,
        gzip=compress,
        max_queue_size=count,
        on_error=lambda error, batch: failures.append((error, len(batch))),
    )
    for number in range(count):
        client.track(
            user_id=f"user-{number % 500}",
            event="Order Completed",
            properties={"order_id": str(number), "total": number / 100, "currency": "USD"},
            timestamp=datetime(2025, 6, 1, tzinfo=UTC),
            message_id=str(uuid5(NAMESPACE_URL, f"order-{number}")),
        )
    client.flush()
    client.shutdown()
    return failures


@pytest.mark.soak("postgresql")  # where fewer events of other tests come the same way
def test_segment_client_delivers_ten_thousand_events_and_resending_adds_none(tenant: Tenant):
    _, write_key = tenant.source()
    for compress in (False, True):
        assert deliver(tenant, write_key, EVENTS, compress=compress) == []
        assert tenant.datasets()["events"]["records"] == EVENTS
        assert tenant.datasets()["events"]["quarantined"] == 0
        assert tenant.sql("SELECT count(*), count(DISTINCT message_id), count(DISTINCT user_id) FROM events") == [
            [EVENTS, EVENTS, 500]
        ]
    cents = sum(range(EVENTS))
    assert tenant.sql("SELECT sum(json_extract_string(properties, '$.total')::DECIMAL(18,2)) FROM events") == [
        [f"{cents // 100}.{cents % 100:02d}"]
    ]


def test_keeps_the_neighbours_of_an_event_that_breaks_its_contract(tenant: Tenant):
    source_id, write_key = tenant.source("Poisoned")
    before = tenant.datasets().get("events", {"records": 0})["records"]
    good = [{"type": "track", "event": "Seen", "userId": "ada", "messageId": f"good-{n}"} for n in range(3)]
    poison = [
        {"type": "track", "event": "Late", "userId": "ada", "messageId": "no-time", "timestamp": "yesterday"},
        {"type": "track", "event": 7, "userId": "ada", "messageId": "number-for-name"},
        {"type": "nonsense", "userId": "ada", "messageId": "no-such-type"},
        "not an object",
        None,
        [],
    ]
    answer = tenant.send_events(write_key, [good[0], *poison[:3], good[1], *poison[3:], good[2]])
    assert answer.status_code == 200
    assert tenant.datasets()["events"]["records"] == before + len(good)
    listed = ok(tenant.http.get("/v1/quarantine", params={"page_size": 100}))["quarantined_records"]
    mine = [record for record in listed if record["source_id"] == source_id]
    assert len(mine) == len(poison)
    for record in mine:
        assert all(finding["reason"] and finding["path"].startswith("$") for finding in record["findings"])
        assert record["findings"]
        assert not record["raw"], "a list carries no bytes"
    numbered = next(record for record in mine if record["record_id"] == "number-for-name")
    assert [finding["path"] for finding in numbered["findings"]] == ["$.event"]
    shown = ok(tenant.http.get(f"/v1/quarantine/{numbered['quarantine_id']}"))
    assert shown["raw"]


def test_event_bodies_never_get_a_4xx_for_their_contents(tenant: Tenant):
    _, write_key = tenant.source("Odd")
    odd: list[Any] = [
        {"type": "track", "event": "x" * 40_000, "userId": "u"},
        {"type": "track", "event": "Late", "userId": "u", "timestamp": "yesterday"},
        {"type": "identify"},
        {},
    ]
    for event in odd:
        assert tenant.send_events(write_key, [event]).status_code == 200, event
    assert tenant.send_events(write_key, []).status_code == 200


@pytest.mark.parametrize("depth", [100, 500, 5_000])
def test_an_event_that_is_too_deep_waits_in_quarantine_and_its_neighbour_passes(tenant: Tenant, depth: int):
    _, write_key = tenant.source("Deep")
    inner = b'{"a":' * depth + b"1" + b"}" * depth
    good = b'{"type":"track","event":"Flat","userId":"u","messageId":"flat-%d"}' % depth
    body = b'{"batch":[{"type":"track","event":"Deep","userId":"u","properties":' + inner + b"}," + good + b"]}"
    with tenant.installation.http() as client:
        assert client.post("/v1/batch", content=body, auth=(write_key, "")).status_code == 200
    assert tenant.sql("SELECT count(*) FROM events WHERE message_id = ?", f"flat-{depth}") == [[1]]
    newest = ok(tenant.http.get("/v1/quarantine", params={"reason": "TOO_DEEP", "page_size": 1}))
    [record] = newest["quarantined_records"]
    raw = base64.b64decode(ok(tenant.http.get(f"/v1/quarantine/{record['quarantine_id']}"))["raw"])
    assert raw.count(b'{"a":') == depth


def test_every_event_route_takes_an_event(tenant: Tenant):
    _, write_key = tenant.source("Routes")
    with tenant.installation.http() as client:
        for path in ("identify", "track", "page", "screen", "group", "alias", "i", "t", "p", "s", "g", "a"):
            event = {
                "userId": "ada",
                "messageId": f"route-{path}",
                "event": "Seen",
                "name": "Home",
                "groupId": "g",
                "previousId": "old",
            }
            answer = client.post(f"/v1/{path}", json=event, auth=(write_key, ""))
            assert answer.status_code == 200, (path, answer.text)
    [[found]] = tenant.sql("SELECT count(DISTINCT type) FROM events WHERE message_id LIKE 'route-%'")
    assert found == 6


def test_event_body_that_is_not_json_is_a_problem_with_a_stable_reason(tenant: Tenant):
    _, write_key = tenant.source("Broken")
    with tenant.installation.http() as client:
        for body in (b"{", b"\xff\xfe", b"", b"not json"):
            problem(client.post("/v1/batch", content=body, auth=(write_key, "")), status=400)
