"""The Segment family of SDKs: every route, every place for the key, every form of body, and what senders are told."""

from __future__ import annotations

import base64
import gzip

import grpc
import orjson
import pytest
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.ingest.v1.append_pb2 import AppendItem, AppendManyRequest, AppendResult
from counterfoil_gateway.append import Item, encode

from tests.gateway.conftest import ADMIN, UNKNOWN, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
AUTH = (WRITE, "")
EVENT = {"type": "track", "event": "Seen", "userId": "ada", "messageId": "m1"}
NAMES = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a", "batch": "b"}
PATHS = [(f"/v1/{p}", n) for n, s in NAMES.items() for p in (n, s)] + [
    ("/v1/import", "import"),
    ("/beacon/v1/batch", "batch"),
]


@pytest.mark.parametrize(("path", "route"), PATHS)
async def test_every_route_takes_an_event_with_exactly_200(doors: Doors, path: str, route: str):
    for at in (path, path + "/"):
        answer = await doors.http.post(at, json=EVENT, auth=AUTH)
        assert (answer.status_code, answer.content) == (200, b'{"success":true}')
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["access-control-expose-headers"] == "Retry-After"
    item = doors.backend.items[-1]
    assert (item.protocol, item.route, orjson.loads(item.body)) == ("segment", route, EVENT)


async def test_an_item_carries_who_when_and_which_trace(doors: Doors):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await doors.http.post("/v1/track", json=EVENT, auth=AUTH, headers=headers)
    [item] = doors.backend.items
    caller = doors.backend.verifier.verify(item.token)
    assert (caller.workspace, caller.principal, caller.scopes) == ("w", "source:s1", {"ingest.append"})
    assert item.received_at.seconds > 1_700_000_000
    assert item.traceparent.split("-")[1] == trace
    assert "traceparent" not in doors.backend.metadata[-1]  # a shared call belongs to no single trace


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps(EVENT),
        gzip.compress(orjson.dumps({"batch": [EVENT]})),
        b'{"writeKey":"%s","batch":[]}' % WRITE.encode(),
        gzip.compress(b'{"writeKey":"%s","batch":[]}' % WRITE.encode()),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_bodies_go_on_as_they_came(doors: Doors, body: bytes, kind: str):
    headers = {"content-type": kind} if kind else {}
    answer = await doors.http.post("/v1/batch", content=body, headers=headers, auth=AUTH)
    assert answer.status_code == 200
    assert (doors.backend.items[-1].body, doors.backend.items[-1].content_type) == (body, kind)


async def test_the_key_may_stand_in_header_query_or_body(doors: Doors):
    basic = {"authorization": "Basic " + base64.b64encode(f"{WRITE}:".encode()).decode()}
    with_key = orjson.dumps(EVENT | {"writeKey": WRITE})
    for headers, query, body in (
        (basic, "", b"{}"),
        ({"x-write-key": WRITE}, "", b"{}"),
        ({}, f"?a=1&writeKey={WRITE}", b"{}"),
        ({}, "", with_key),
        ({"authorization": "Bearer some-oauth-token"}, "", with_key),
        ({}, "", gzip.compress(with_key)),
    ):
        answer = await doors.http.post(f"/v1/track{query}", content=body, headers=headers)
        assert answer.status_code == 200, (headers, query, answer.text)
    assert len(doors.backend.items) == 6


async def test_wrong_keys_are_401_and_say_why(doors: Doors):
    for auth, reason in (
        (None, "CREDENTIAL_MISSING"),
        (("cfw_" + "x" * 43, ""), "CREDENTIAL_INVALID"),
        ((UNKNOWN, ""), "CREDENTIAL_WRONG_KIND"),
        ((ADMIN, ""), "CREDENTIAL_WRONG_KIND"),
    ):
        answer = await doors.http.post("/v1/batch", json={"batch": []}, auth=auth)
        assert (answer.status_code, answer.json()["reason"]) == (401, reason)
        assert answer.json()["trace_id"]
    assert doors.backend.items == []


async def test_keys_that_cannot_be_checked_are_not_refused(doors: Doors):
    doors.backend.write_keys.refuse_with = grpc.StatusCode.INTERNAL
    answer = await doors.http.post("/v1/batch", json={}, auth=("cfw_" + "n" * 43, ""))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), "an SDK drops its batch on 401"


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"not json", b"", gzip.compress(b"{")[:-4] + b"x"])
async def test_a_body_without_key_that_is_not_json_is_400(doors: Doors, body: bytes):
    answer = await doors.http.post("/v1/batch", content=body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BAD_JSON")


async def test_a_gzip_bomb_is_not_unpacked_to_find_a_key(doors: Doors):
    answer = await doors.http.post("/v1/batch", content=gzip.compress(b'{"a":"' + b" " * (64 << 20), 9))
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


async def test_bodies_over_the_limit_are_413(doors: Doors):
    answer = await doors.http.post("/v1/batch", content=b"x" * (5 << 20), auth=AUTH)
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (AppendResult(code=3, reason="BAD_JSON", detail="not JSON"), 400),
        (AppendResult(code=3, reason="BODY_TOO_LARGE", detail="over 20 MiB"), 413),
        (AppendResult(code=8, reason="LOG_BUSY", retry_after={"seconds": 3}), 429),
        (AppendResult(code=14, reason="LOG_UNAVAILABLE"), 503),
        (AppendResult(code=13, reason="INTERNAL"), 503),
        (AppendResult(code=16, reason="TOKEN_EXPIRED"), 503),
        (AppendResult(code=14, reason="CONTRACTS_UNAVAILABLE"), 503),
        (AppendResult(verdicts=[Verdict(outcome=Verdict.QUARANTINED), Verdict(outcome=Verdict.DUPLICATE)]), 200),
    ],
)
async def test_what_became_of_the_events_decides_whether_the_sender_tries_again(
    doors: Doors, result: AppendResult, status: int
):
    doors.backend.append_result = result
    answer = await doors.http.post("/v1/batch", json={"batch": [EVENT]}, auth=AUTH)
    assert answer.status_code == status, answer.text
    if status in (429, 503):
        assert answer.headers["retry-after"] == ("3" if status == 429 else "1")


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_failing_log_makes_senders_wait(doors: Doors, code: grpc.StatusCode):
    doors.backend.append_status = code
    answer = await doors.http.post("/v1/batch", json={"batch": [EVENT]}, auth=AUTH)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_pages_of_any_origin_may_send_and_see_how_long_to_wait(doors: Doors):
    origin = {"origin": "https://shop.example"}
    asked = origin | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,anonymousid,sentat,x-write-key",
    }
    preflight = await doors.http.options("/v1/t", headers=asked)
    assert preflight.status_code == 204
    allowed = {h.strip() for h in preflight.headers["access-control-allow-headers"].split(",")}
    assert allowed >= set(asked["access-control-request-headers"].split(","))
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert int(preflight.headers["access-control-max-age"]) > 0
    for answer in (
        preflight,
        await doors.http.post("/v1/t", json=EVENT, headers=origin, auth=AUTH),
        await doors.http.post("/v1/t", json=EVENT, headers=origin),
    ):
        assert answer.headers["access-control-allow-origin"] == origin["origin"]
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == "Retry-After"
        assert answer.headers["vary"] == "Origin"


async def test_pixels_send_events_and_answer_with_an_image(doors: Doors):
    query = {"writeKey": WRITE, "event": "Opened", "userId": "ada", "properties.mail.id": "7", "properties.mail": "x"}
    answer = await doors.http.get("/pixel/v1/track", params=query)
    assert (answer.status_code, answer.headers["content-type"], answer.content[:6]) == (200, "image/gif", b"GIF89a")
    event = orjson.loads(doors.backend.items[-1].body)
    assert event == {"event": "Opened", "userId": "ada", "properties": {"mail": "x"}, "type": "track"}
    data = base64.urlsafe_b64encode(orjson.dumps({"name": "Home", "userId": "ada"})).decode().rstrip("=")
    answer = await doors.http.get("/pixel/v1/page", params={"writeKey": WRITE, "data": data})
    assert answer.status_code == 200
    assert orjson.loads(doors.backend.items[-1].body) == {"name": "Home", "userId": "ada", "type": "page"}
    for query, status in (({"event": "x"}, 401), ({"writeKey": WRITE, "data": "%%%"}, 400)):
        assert (await doors.http.get("/pixel/v1/track", params=query)).status_code == status


async def test_browser_sdks_load_their_settings(doors: Doors):
    answer = await doors.http.get(f"/v1/projects/{WRITE}/settings")
    segment = answer.json()["integrations"]["Segment.io"]
    assert (segment["apiKey"], segment["protocol"]) == (WRITE, "http")
    assert segment["apiHost"] == doors.url.removeprefix("http://") + "/v1"
    for at in ("/sourceConfig/", "/sourceConfig"):
        answer = await doors.http.get(at, auth=AUTH)
        source = answer.json()["source"]
        assert (source["id"], source["writeKey"], source["enabled"]) == ("s1", WRITE, True)
    assert (await doors.http.get("/v1/projects/cfw_none/settings")).status_code == 401


async def test_other_verbs_on_event_paths_are_not_served(doors: Doors):
    answer = await doors.http.get("/v1/track")
    assert answer.status_code == 404


async def test_what_takes_longer_than_its_neighbours_can_wait_goes_again_alone(doors: Doors):
    doors.backend.append_results.append(AppendResult(code=grpc.StatusCode.ABORTED.value[0], reason="TAKES_LONG"))
    answer = await doors.http.post("/v1/track", json=EVENT, auth=AUTH)
    assert answer.status_code == 200
    first, second = doors.backend.items
    assert first == second


async def test_items_are_encoded_as_the_message_would_be():
    heads = [AppendItem(token="t" * 400, route=route) for route in ("batch", "track", "")]
    bodies = [b"", b"x" * 127, b"\x0a" * 70_000]
    encoded = encode([Item(head.SerializeToString(), body) for head, body in zip(heads, bodies, strict=True)])
    for head, body in zip(heads, bodies, strict=True):
        head.body = body
    assert AppendManyRequest.FromString(encoded) == AppendManyRequest(items=heads)
