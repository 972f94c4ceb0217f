"""The door for metrics and health: what it answers, and what it does not let anybody do to the process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import httpx
import pytest
from counterfoil_chassis import vitals
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.health import READINESS, STARTUP, Health
from counterfoil_chassis.metrics import SERVER_CALLS
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from tests.chassis.probe import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def address(health: Health, clock: HandClock) -> AsyncIterator[str]:
    async with vitals.serving("probe", "127.0.0.1:0", clock, checks=health) as address:
        yield address


async def ask(address: str, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    writer.write(request)
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def get(address: str, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.get(f"http://{address}{path}", headers=headers)


async def test_metrics_come_in_either_format_and_both_can_be_parsed(address: str) -> None:
    series = SERVER_CALLS.of("test.Service/Parsed")
    series.end(series.begin(), "OK")
    plain = await get(address, "/metrics")
    opened = await get(address, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert plain.headers["content-type"].startswith("text/plain")
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    for families in (list(plain_metrics(plain.text)), list(open_metrics(opened.text))):
        found = {sample.name for family in families for sample in family.samples}
        assert {"counterfoil_server_calls_total", "process_resident_memory_bytes"} <= found


async def test_a_call_counts_once_in_rate_duration_and_not_at_all_any_more_in_flight(address: str) -> None:
    series = SERVER_CALLS.of("test.Service/Counted")
    with series.counted("CANCELLED") as counted:
        running = await samples(address, "test.Service/Counted")
        counted.outcome = "OK"
    with pytest.raises(ZeroDivisionError), series.counted("CANCELLED"):
        1 / 0  # noqa: B018
    done = await samples(address, "test.Service/Counted")
    assert running["counterfoil_server_calls_in_flight"] == 1
    assert done["counterfoil_server_calls_in_flight"] == 0
    assert done["counterfoil_server_calls_duration_seconds_count"] == 2
    assert done["counterfoil_server_calls_total OK"] == done["counterfoil_server_calls_total CANCELLED"] == 1


async def samples(address: str, method: str) -> dict[str, float]:
    page = (await get(address, "/metrics")).text
    return {
        f"{sample.name} {sample.labels.get('code', '')}".strip(): sample.value
        for family in plain_metrics(page)
        for sample in family.samples
        if sample.labels.get("method") == method and "le" not in sample.labels
    }


async def test_health_says_of_each_dependency_whether_since_when_and_what_to_do(
    address: str, health: Health, clock: HandClock
) -> None:
    wrong = ""
    health.add("database", lambda: wrong, needed=True)
    health.add("watch contracts", lambda: "start contracts")
    first = clock.now()
    answer = await get(address, "/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    clock.forward(timedelta(minutes=1))
    wrong = "start PostgreSQL"
    answer = await get(address, "/healthz")
    assert (answer.status_code, answer.json()["status"]) == (503, "failing")
    told = {check["name"]: check for check in answer.json()["checks"]}
    assert told["database"] == {
        "name": "database",
        "ok": False,
        "needed": True,
        "since": clock.now().isoformat(timespec="seconds"),
        "detail": "start PostgreSQL",
    }
    assert told["watch contracts"]["since"] == first.isoformat(timespec="seconds")
    wrong = ""
    assert (await get(address, "/healthz")).status_code == 200


async def test_of_checks_with_one_name_the_failing_one_speaks_and_a_check_can_go(
    health: Health, clock: HandClock
) -> None:
    health.add("log consumer graph", lambda: "")
    forget = health.add("log consumer graph", lambda: "rebuild it")
    health.add("log consumer graph", lambda: "")
    [check] = await health.report(clock.now())
    assert (check.ok, check.detail) == (False, "rebuild it")
    forget()
    [check] = await health.report(clock.now())
    assert check.ok


async def test_a_check_that_hangs_fails_and_hangs_nobody(
    health: Health, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfoil_chassis.health._PATIENCE_SECONDS", 0.05)

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    health.add("database", hang, needed=True)
    [check] = await health.report(clock.now())
    assert not check.ok
    assert not health.ready
    assert json.loads(health.failing()) == {"database": check.detail}


async def test_probes_are_told_what_the_process_says_and_what_is_missing(
    address: str, health: Health, clock: HandClock
) -> None:
    assert (await get(address, "/livez")).status_code == 200
    assert (await get(address, "/startupz")).status_code == (await get(address, "/readyz")).status_code == 503
    health.told |= {STARTUP: True, READINESS: False}
    health.add("database", lambda: "start PostgreSQL", needed=True)
    await health.report(clock.now())
    assert (await get(address, "/startupz")).status_code == 200
    missing = await get(address, "/readyz")
    assert (missing.status_code, missing.text) == (503, "readiness: no; database: start PostgreSQL\n")
    health.told[READINESS] = True
    assert (await get(address, "/readyz")).text == "readiness: yes\n"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /healthz HTTP/1.1", 405),
        (b"GET / HTTP/1.1", 404),
        (b"GET /../etc/passwd HTTP/1.1", 404),
        (b"GET /metrics?name[]=x HTTP/1.1", 200),
        (b"nonsense", 404),
    ],
)
async def test_it_answers_two_paths_and_reads_only(address: str, request_line: bytes, status: int) -> None:
    answer = await ask(address, request_line + b"\r\nhost: here\r\n\r\n")
    assert answer.split(b" ", 2)[1] == str(status).encode()


async def test_head_has_the_length_and_no_body(address: str) -> None:
    head, _, body = (await ask(address, b"HEAD /healthz HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"content-length: " in head
    assert body == b""


async def test_a_request_that_never_ends_and_one_too_long_are_cut_off(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(vitals, "_SECONDS", 0.1)
        assert await ask(address, b"GET /metr") == b""
        assert await ask(address, b"GET /metrics HTTP/1.1\r\nx: " + b"x" * 100_000) == b""
    assert (await get(address, "/healthz")).status_code == 200


async def test_one_connection_too_many_is_closed_and_the_next_one_served_when_there_is_room(address: str) -> None:
    host, port = address.rsplit(":", 1)
    held = [await asyncio.open_connection(host, port) for _ in range(vitals.MOST_CONNECTIONS)]
    await asyncio.sleep(0)
    assert await ask(address, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(30):
        while not await ask(address, b"GET /healthz HTTP/1.1\r\n\r\n"):
            await asyncio.sleep(0.01)


async def test_without_an_address_there_is_no_door_and_a_taken_one_is_one_line(address: str, clock: HandClock) -> None:
    async with vitals.serving("probe", "", clock) as none:
        assert none == ""
    with pytest.raises(StartError, match="for metrics"):
        await vitals.serving("probe", address, clock).__aenter__()
