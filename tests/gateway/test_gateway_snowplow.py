"""Snowplow's trackers: where the key stands, what goes on to ingest, and what senders are told."""

from __future__ import annotations

import gzip

import orjson
import pytest
from counterfoil.ingest.v1.append_pb2 import AppendResult
from counterfoil_chassis.errors import Code
from counterfoil_gateway.bodies import MAX_BODY
from counterfoil_gateway.write_keys import MAX_INFLATED

from tests.gateway.conftest import UNKNOWN, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
TP2 = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD = orjson.dumps({"schema": "payload_data", "data": [{"e": "pv"}, {"e": "pv", "aid": WRITE}]})


@pytest.mark.parametrize(
    ("path", "body", "auth"),
    [
        (TP2, PAYLOAD, None),
        (TP2, gzip.compress(PAYLOAD), None),
        (f"/w/{WRITE}{TP2}", b'{"data":[{"aid":"website"}]}', None),
        (TP2, b'{"data":[{"aid":"website"}]}', (WRITE, "")),
        (TP2 + "/", PAYLOAD, None),
    ],
)
async def test_a_payload_goes_on_as_it_came(doors: Doors, path: str, body: bytes, auth: tuple[str, str] | None):
    answer = await doors.http.post(path, content=body, auth=auth, headers={"origin": "https://shop.test"})
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert answer.headers["access-control-allow-origin"] == "https://shop.test"
    assert answer.headers["access-control-allow-credentials"] == "true"
    [item] = doors.backend.items
    assert (item.protocol, item.route, item.body) == ("snowplow", "tp2", body)


@pytest.mark.parametrize("path", [f"/i?e=pv&aid={WRITE}", f"/w/{WRITE}/i?e=pv&aid=website"])
async def test_a_pixel_sends_its_query_and_gets_an_image(doors: Doors, path: str):
    answer = await doors.http.get(path)
    assert (answer.status_code, answer.headers["content-type"], answer.content[:6]) == (200, "image/gif", b"GIF89a")
    [item] = doors.backend.items
    assert (item.protocol, item.route, item.body.decode()) == ("snowplow", "i", path.partition("?")[2])


async def test_a_body_that_is_too_large_is_taken_up_to_there_since_a_refusal_would_bring_it_back_for_ever(doors: Doors):
    body = b'{"data":[{"e":"pv","x":"' + b"x" * MAX_BODY + b'"}]}'
    answer = await doors.http.post(f"/w/{WRITE}{TP2}", content=body)
    assert (answer.status_code, answer.content) == (200, b"ok")
    [item] = doors.backend.items
    assert (item.route, item.body) == ("cut", body[: 64 << 10])


async def test_a_body_that_is_too_large_once_decompressed_is_never_told_so(doors: Doors):
    bomb = gzip.compress(b'{"data":[{"e":"pv","x":"' + b"x" * (MAX_INFLATED + 9) + b'"}]}')
    refused = AppendResult(code=Code.INVALID_ARGUMENT, reason="BODY_TOO_LARGE")
    doors.backend.append_results.append(refused)
    assert (await doors.http.post(f"/w/{WRITE}{TP2}", content=bomb)).status_code == 200
    assert [(item.route, item.body) for item in doors.backend.items] == [("tp2", bomb), ("cut", bomb[: 64 << 10])]
    assert (await doors.http.post(TP2, content=bomb)).status_code == 401  # the key is within


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (TP2, b'{"data":[{"e":"pv"}]}', 401),
        (TP2, orjson.dumps({"data": [{"aid": UNKNOWN}]}), 401),
        (f"/w/cfw_unknown{TP2}", PAYLOAD, 401),
        (TP2, b"hello", 400),
        (TP2, b"[]", 401),
    ],
)
async def test_who_is_unknown_or_sends_no_json_is_refused(doors: Doors, path: str, body: bytes, status: int):
    answer = await doors.http.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert doors.backend.items == []


async def test_a_page_elsewhere_may_ask_first(doors: Doors):
    answer = await doors.http.options(TP2, headers={"origin": "https://shop.test"})
    assert answer.status_code == 204
    assert "content-type" in answer.headers["access-control-allow-headers"]
