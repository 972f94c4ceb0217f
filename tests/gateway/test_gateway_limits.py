"""Limits: a bucket per key at both doors, and one per address for keys that are none."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from counterfoil.governance.v1 import workspaces_pb2, workspaces_pb2_grpc
from counterfoil_chassis.status import failure_of
from counterfoil_gateway.addresses import network_of, peer_of
from counterfoil_gateway.limits import MOST_CALLERS, Limiter, Rate
from counterfoil_gateway.problems import Problem
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.conftest import ADMIN, DENIED, READER, UNKNOWN, WRITE, Doors, gateway_and_backend

on_session_loop = pytest.mark.asyncio(loop_scope="session")
URL = "/v1/workspaces/mine"
SLOW = {"requests_per_second": 0.01, "requests_burst": 3, "failed_sign_ins_per_second": 0.01}
SLOW |= {"failed_sign_ins_burst": 5, "event_requests_per_second": 0.01, "event_requests_burst": 2}


class Time:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(limiter: Limiter, caller: str) -> bool:
    try:
        limiter.take(caller)
    except Problem:
        return False
    return True


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 50), st.integers(1, 20))
def test_no_window_holds_more_than_its_share_and_the_burst(pauses: list[float], per_second: float, burst: int):
    clock = Time()
    limiter = Limiter("requests", Rate(per_second, burst), clock)
    served: list[float] = []
    for pause in pauses:
        clock.now += pause
        if taken(limiter, "a"):
            served.append(clock.now)
    for first, begin in enumerate(served):
        for last, end in enumerate(served[first:], start=first):
            assert last - first + 1 <= burst + per_second * (end - begin) + 1e-6


def test_a_full_bucket_gives_the_burst_and_then_one_by_one():
    clock = Time()
    limiter = Limiter("requests", Rate(2, 3), clock)
    assert [taken(limiter, "a") for _ in range(4)] == [True, True, True, False]
    assert taken(limiter, "b"), "another caller has another bucket"
    clock.now += 0.4
    assert not taken(limiter, "a")
    clock.now += 0.1
    assert [taken(limiter, "a") for _ in range(2)] == [True, False]
    clock.now += 100
    assert [taken(limiter, "a") for _ in range(4)] == [True, True, True, False]


def test_a_refusal_says_how_long_to_wait():
    limiter = Limiter("requests", Rate(0.1, 2), Time())
    limiter.take("a")
    limiter.require("a")
    limiter.take("a")
    for ask in (limiter.take, limiter.require):
        with pytest.raises(Problem) as problem:
            ask("a")
        assert problem.value.headers == {
            "retry-after": "10",
            "ratelimit-policy": '"requests";q=2;w=20',
            "ratelimit": '"requests";r=0;t=10',
        }


def test_without_a_rate_there_is_no_limit():
    limiter = Limiter("requests", Rate(0, 1), Time())
    assert all(taken(limiter, "a") for _ in range(100))
    limiter.require("a")


def test_callers_who_went_do_not_fill_the_memory():
    clock = Time()
    limiter = Limiter("requests", Rate(1, 2), clock)
    for n in range(MOST_CALLERS):
        limiter.take(str(n))
    limiter.take("busy")
    limiter.take("busy")
    assert len(limiter._full_at) <= MOST_CALLERS
    assert not taken(limiter, "busy"), "the newest are kept"
    clock.now += 100
    for n in range(MOST_CALLERS):
        limiter.take(f"later {n}")
    assert len(limiter._full_at) <= MOST_CALLERS


def test_one_ipv6_network_is_one_caller():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert (network_of("10.0.0.1"), network_of("not:an:address")) == ("10.0.0.1", "not:an:address")
    assert peer_of("ipv4:10.0.0.1:5000") == "10.0.0.1"
    assert peer_of("ipv6:%5B::1%5D:5000") == "::1"
    assert peer_of("unix:/tmp/socket") == ""


@pytest_asyncio.fixture(loop_scope="session")
async def slow(keys_dir: Path) -> AsyncIterator[Doors]:
    async for doors in gateway_and_backend(keys_dir, **SLOW):
        yield doors


@on_session_loop
async def test_a_key_that_asks_too_much_is_told_so_at_both_doors(slow: Doors):
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(slow.rpc)
    key = {"x-api-key": ADMIN}
    request = workspaces_pb2.GetWorkspaceRequest(workspace_id="mine")
    assert (await slow.http.get(URL, headers=key)).status_code == 200
    await stub.GetWorkspace(request, metadata=tuple(key.items()))
    link = (await slow.http.post("/console/sign-in-links", headers=key)).json()["url"]
    answer = await slow.http.get(URL, headers=key)
    assert (answer.status_code, answer.json()["reason"]) == (429, "RATE_LIMITED")
    assert 1 <= int(answer.headers["retry-after"]) <= 100
    assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=300'
    assert answer.headers["ratelimit"] == f'"requests";r=0;t={answer.headers["retry-after"]}'
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetWorkspace(request, metadata=tuple(key.items()))
    failure = failure_of(caught.value)
    assert (caught.value.code(), failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert failure.retry_after is not None
    assert failure.retry_after.total_seconds() >= 1
    await slow.http.get(link)
    assert (await slow.http.get(URL)).status_code == 429, "a session draws on its key's bucket"
    slow.http.cookies.clear()
    assert (await slow.http.get(URL, headers={"x-api-key": READER})).status_code == 403, (
        "another key has another bucket"
    )


@on_session_loop
async def test_an_address_that_guesses_keys_is_not_listened_to_and_known_keys_are(slow: Doors):
    guesses = [await slow.http.get(URL, headers={"x-api-key": f"cfk_{n:043}"}) for n in range(8)]
    assert [answer.status_code for answer in guesses] == [401] * 5 + [429] * 3
    assert guesses[-1].headers["ratelimit-policy"].startswith('"failed sign-ins";q=5')
    lookups = slow.backend.api_keys.lookups
    answer = await slow.http.get(URL, headers={"x-api-key": UNKNOWN})
    assert (answer.status_code, answer.json()["reason"]) == (429, "RATE_LIMITED")
    assert slow.backend.api_keys.lookups == lookups, "a guess costs governance nothing any more"
    assert (await slow.http.get(URL, headers={"x-api-key": ADMIN})).status_code == 200
    event = await slow.http.post("/v1/track", json={"event": "E", "writeKey": "cfw_none"})
    assert event.status_code == 429, "guessing write keys is guessing, too"


@on_session_loop
async def test_event_routes_have_a_bucket_of_their_own(slow: Doors):
    asked = [await slow.http.post("/v1/track", json={"event": "E", "writeKey": WRITE}) for _ in range(3)]
    assert [answer.status_code for answer in asked] == [200, 200, 429]
    assert "retry-after" in asked[-1].headers, "so that SDKs keep their events"


@on_session_loop
async def test_a_workspace_with_a_quota_is_bound_over_all_of_its_keys(keys_dir: Path):
    async for doors in gateway_and_backend(keys_dir):
        for _ in range(5):
            assert (await _ask(doors, ADMIN)).status_code == 200
        doors.backend.set_quotas("w", requests_per_second=1)
        refused = await _until(doors, 429, keys=(ADMIN, READER))
        assert refused.json()["reason"] == "RATE_LIMITED"
        assert refused.json()["metadata"] == {"limit": "requests of the workspace"}
        assert (await _ask(doors, DENIED)).status_code == 403, "another workspace has its own"
        doors.backend.set_quotas("w", requests_per_second=0)
        await _until(doors, 200, keys=(ADMIN,))
        assert {(await _ask(doors, ADMIN)).status_code for _ in range(20)} == {200}


async def _until(doors: Doors, status: int, *, keys: tuple[str, ...]) -> httpx.Response:
    """Ask with each key in turn until the watch has brought what makes this the answer."""
    async with asyncio.timeout(60):
        for key in itertools.cycle(keys):
            if (answer := await _ask(doors, key)).status_code == status:
                return answer
    raise AssertionError("unreachable")


async def _ask(doors: Doors, key: str) -> httpx.Response:
    return await doors.http.get(URL, headers={"x-api-key": key})
