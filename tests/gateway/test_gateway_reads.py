"""Reads by id: together in one call, the same answers as one by one, and nobody hurt by another."""

import asyncio

import grpc
import httpx
import pytest
from counterfoil.common.v1.calls_pb2 import CallResult
from counterfoil.common.v1.receipts_pb2 import Receipt
from counterfoil_chassis.errors import AbortedError
from counterfoil_chassis.status import to_status
from counterfoil_gateway import api as apis
from counterfoil_gateway.asgi import SECURITY

from tests.gateway.conftest import Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
SERVICES = {"ingest", "contracts", "graph", "models", "governance"}


def problem(answer: httpx.Response, status: int, reason: str) -> None:
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text


class TakesLongError(AbortedError):
    reason = "TAKES_LONG"


def receipts(doors: Doors, count: int) -> list[str]:
    ids = [f"models.{number}" for number in range(count)]
    doors.backend.ledger |= {each: Receipt(receipt_id=each, purpose=f"for {each}") for each in ids}
    return ids


async def test_what_is_read_at_once_travels_together(doors: Doors, admin: dict):
    ids = receipts(doors, 60)
    doors.backend.held = asyncio.Event()
    asked = [asyncio.create_task(doors.http.get(f"/v1/receipts/{each}", headers=admin)) for each in ids]
    async with asyncio.timeout(60):
        while not doors.backend.shared:
            await asyncio.sleep(0.005)
    doors.backend.held.set()
    answers = await asyncio.gather(*asked)
    assert [answer.json()["receipt_id"] for answer in answers] == ids
    assert sum(doors.backend.shared) == 60
    assert len(doors.backend.shared) < 20, doors.backend.shared


def _undated(answer: httpx.Response) -> set[tuple[str, str]]:
    """Return the header fields but the date: the second may turn between two answers."""
    return {field for field in answer.headers.multi_items() if field[0] != "date"}


async def test_an_answer_is_the_one_that_the_generated_door_gives(doors: Doors, admin: dict):
    [receipt_id] = receipts(doors, 1)
    for found in (receipt_id, "models.none", "m", "m" * 200):
        for headers in (admin, {}, {"x-api-key": "cfk_none"}, admin | {"request-timeout": "never"}):
            fast, again = [await doors.http.get(f"/v1/receipts/{found}", headers=headers) for _ in range(2)]
            asked = len(doors.backend.shared)
            slow = await doors.http.get(f"/v1/receipts/%6D{found[1:]}", headers=headers)
            assert len(doors.backend.shared) == asked, "an escaped id takes the other way"
            for other in (again, slow):
                assert other.status_code == fast.status_code
                assert _undated(other) == _undated(fast)
                assert _untraced(other.json()) == _untraced(fast.json())
            assert {(n, v) for n, v in fast.headers.raw if n in dict(SECURITY)} == set(SECURITY)


def _untraced(body: dict) -> dict:
    return {name: value for name, value in body.items() if name != "trace_id"}


async def test_a_read_that_takes_long_and_a_service_of_a_release_before_are_called_by_themselves(
    doors: Doors, admin: dict
):
    [receipt_id] = receipts(doors, 1)
    doors.backend.shared_result = CallResult(status=to_status(TakesLongError("later")).SerializeToString())
    assert (await doors.http.get(f"/v1/receipts/{receipt_id}", headers=admin)).json()["receipt_id"] == receipt_id
    doors.backend.shared_result, doors.backend.shared_status = None, grpc.StatusCode.UNIMPLEMENTED
    assert (await doors.http.get(f"/v1/receipts/{receipt_id}", headers=admin)).json()["receipt_id"] == receipt_id
    assert len(doors.backend.requests) == 2
    assert len(doors.backend.shared) == 2


async def test_one_that_fails_fails_alone(doors: Doors, admin: dict):
    ids = receipts(doors, 10)
    asked = [*ids[:5], "nobody.1", *ids[5:]]
    answers = await asyncio.gather(*(doors.http.get(f"/v1/receipts/{each}", headers=admin) for each in asked))
    assert [answer.status_code for answer in answers] == [200] * 5 + [404] + [200] * 5
    problem(answers[5], 404, "NOT_FOUND")


async def test_a_caller_out_of_time_is_told_and_the_others_are_served(doors: Doors, admin: dict):
    first, second = receipts(doors, 2)
    doors.backend.held = asyncio.Event()
    patient = asyncio.create_task(doors.http.get(f"/v1/receipts/{first}", headers=admin))
    late = await doors.http.get(f"/v1/receipts/{second}", headers=admin | {"request-timeout": "0.1"})
    problem(late, 504, "DEADLINE_EXCEEDED")
    doors.backend.held.set()
    assert (await patient).json()["receipt_id"] == first


@pytest.mark.parametrize(("status", "http"), [(grpc.StatusCode.UNAVAILABLE, 503), (grpc.StatusCode.INTERNAL, 500)])
async def test_a_shared_call_that_fails_is_told_as_any_other(
    doors: Doors, admin: dict, status: grpc.StatusCode, http: int
):
    [receipt_id] = receipts(doors, 1)
    doors.backend.shared_status = status
    answer = await doors.http.get(f"/v1/receipts/{receipt_id}", headers=admin | {"request-timeout": "2"})
    assert answer.status_code == http
    assert answer.json()["code"] == status.name


async def test_each_has_its_own_token_and_trace(doors: Doors, admin: dict):
    [receipt_id] = receipts(doors, 1)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = admin | {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    await doors.http.get(f"/v1/receipts/{receipt_id}", headers=headers)
    [seen] = doors.backend.metadata
    assert seen["traceparent"].startswith(f"00-{trace_id}-")
    assert "b7ad6b7169203331" not in seen["traceparent"]
    [caller] = doors.backend.callers
    assert (caller.workspace, caller.service) == ("w", "")


async def test_a_receipt_that_changed_is_written_anew(doors: Doors, admin: dict):
    doors.backend.ledger["models.1"] = Receipt(receipt_id="models.1", purpose="one")
    for purpose in ("one", "two", "one"):
        doors.backend.ledger["models.1"] = Receipt(receipt_id="models.1", purpose=purpose)
        assert (await doors.http.get("/v1/receipts/models.1", headers=admin)).json()["purpose"] == purpose


async def test_every_read_by_id_is_a_get_of_one_thing_that_needs_no_more_than_its_id():
    reads = [method for method in apis.load(apis.image()).methods if method.point_read]
    assert {method.owner for method in reads} == SERVICES
    for method in reads:
        [binding] = method.bindings
        assert (binding.verb, binding.body, binding.action) == ("GET", "", ""), method.name
        assert not method.server_streaming
        assert not method.client_streaming
