"""A process that hangs: the gateway says who is missing, refuses at once after a while, and recovers by itself."""

import asyncio
import signal
import time
from collections import Counter

import httpx
import pytest

from tests.system.installation import Installation

ASKED = {"ingest": "/v1/sources", "models": "/v1/models", "contracts": "/v1/contracts"}
"""Something that each service is asked for."""
PATIENCE = "2.5"
RECOVERY = 5.0


async def get(client: httpx.AsyncClient, service: str) -> httpx.Response:
    """Ask a service for something by the gateway, with some patience."""
    return await client.get(ASKED[service], headers={"Request-Timeout": PATIENCE})


async def missed(client: httpx.AsyncClient, service: str) -> Counter[str]:
    """Ask a service that hangs many times at once, and then again; return what was answered."""
    answers: Counter[str] = Counter()
    for _ in range(2):
        for answer in await asyncio.gather(*(get(client, service) for _ in range(10))):
            problem = answer.json()
            assert problem["metadata"] == {"dependency": service}, answer.text
            assert answer.status_code != 503 or answer.headers["retry-after"] == "1"
            answers[f"{answer.status_code} {problem['reason']}"] += 1
    return answers


async def back(client: httpx.AsyncClient, service: str) -> float:
    """Return the seconds until a service answers again."""
    begun = time.monotonic()
    async with asyncio.timeout(30):
        while (await get(client, service)).status_code != 200:
            await asyncio.sleep(0.05)
    return time.monotonic() - begun


@pytest.mark.alone
@pytest.mark.figures
async def test_who_hangs_is_named_at_once_after_a_while_and_asked_again_when_it_is_back(
    installation: Installation,
) -> None:
    processes = {service: installation.child(service) for service in ASKED}
    async with httpx.AsyncClient(
        base_url=installation.url, headers={"X-Api-Key": installation.admin_key}, timeout=30, trust_env=False
    ) as client:
        for service in ASKED:
            assert (await get(client, service)).status_code == 200
        try:
            for process in processes.values():
                process.send_signal(signal.SIGSTOP)
            found = dict(zip(ASKED, await asyncio.gather(*(missed(client, service) for service in ASKED)), strict=True))
            begun = time.monotonic()
            quick = await asyncio.gather(*(get(client, service) for service in ASKED for _ in range(10)))
            seconds = time.monotonic() - begun
            alive = await client.get("/healthz")
        finally:
            for process in processes.values():
                process.send_signal(signal.SIGCONT)
        recovery = dict(zip(ASKED, await asyncio.gather(*(back(client, service) for service in ASKED)), strict=True))
    print(f"{found}; recovered after seconds: {recovery}")
    assert alive.status_code == 200
    for service, answers in found.items():
        assert set(answers) == {"504 DEADLINE_EXCEEDED", "503 DEPENDENCY_UNAVAILABLE"}, service
    refused = [answer for answer in quick if answer.status_code == 503]
    assert len(refused) >= len(quick) - len(ASKED), "all but one try a second are refused at once"
    assert seconds < float(PATIENCE) + 1
    assert max(recovery.values()) < RECOVERY
